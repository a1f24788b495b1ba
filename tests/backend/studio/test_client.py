"""The client of Label Studio against a small real server that answers by a script, or not at all."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from heatbox.errors import (
    HeatboxError,
    SettingsError,
    StudioAmbiguousError,
    StudioError,
    StudioRefusedError,
)
from heatbox.pipeline import Pipeline
from heatbox.studio import token as studio_token
from heatbox.studio.client import Studio, is_own
from heatbox.studio.query import VERSIONS, versions
from heatbox.studio.task_filter import TaskFilter

LEGACY = "0123456789abcdef"
PERSONAL = "head3r.payl0ad.signatur3"
PROJECT = {"title": "Cats", "label_config": "<View/>", "model_version": None}
NOTHING = {"tasks": [], "total": 0}
CUT, SILENCE = "cut", "silence"


class Script(ThreadingHTTPServer):
    """Answers requests in turn and remembers them; access tokens are `access-1`, `access-2`, ..."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.seen = []
        self.refreshed = 0
        self.refresh_status = 200
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Script
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/api/token/refresh/"):
            assert json.loads(body) == {"refresh": PERSONAL}
            self.server.refreshed += 1
            self.reply(self.server.refresh_status, {"access": f"access-{self.server.refreshed}"})
            return
        self.server.seen.append((self.command, self.path, self.headers["Authorization"]))
        answer = self.server.answers.pop(0)
        if answer == SILENCE:
            self.server.over.wait(5)
        if answer in (CUT, SILENCE):
            self.close_connection = True
        else:
            self.reply(*answer)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def reply(self, status, content=None, **headers):
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running() -> Iterator[Script]:
    with Script() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server():
    with running() as script:
        yield script


def connect(server, key=LEGACY, path="", timeout=0.2):
    return Studio(server.url + path, key, timeout=timeout, delays=(0.0, 0.0))


def authorizations(server):
    return [authorization for _, _, authorization in server.seen]


def test_a_legacy_token_is_sent_as_it_is(server):
    server.answers = [(200, PROJECT)]
    with connect(server, f" {LEGACY}\n") as studio:
        assert studio.project(3).model_version == ""
    assert authorizations(server) == [f"Token {LEGACY}"]


def test_a_personal_token_is_exchanged_once_for_several_requests(server):
    server.answers = [(200, PROJECT), (201, {"created": 2})]
    with connect(server, PERSONAL) as studio:
        assert (studio.project(3).title, studio.push(3, [{}, {}])) == ("Cats", 2)
    assert authorizations(server) == ["Bearer access-1"] * 2


def test_an_access_token_is_renewed_before_it_ends(server, monkeypatch):
    monkeypatch.setattr(studio_token, "_ACCESS_SECONDS", 0.0)
    server.answers = [(200, PROJECT)] * 2
    with connect(server, PERSONAL) as studio:
        studio.project(3)
        studio.project(3)
    assert authorizations(server) == ["Bearer access-1", "Bearer access-2"]


def test_an_access_token_that_is_refused_is_renewed_once_also_for_a_push(server):
    server.answers = [(401, {}), (201, {"created": 1})]
    with connect(server, PERSONAL) as studio:
        assert studio.push(3, [{}]) == 1
    assert authorizations(server) == ["Bearer access-1", "Bearer access-2"]


@pytest.mark.parametrize(("key", "tries"), [(LEGACY, 1), (PERSONAL, 2)])
def test_a_token_that_stays_refused_is_told(server, key, tries):
    server.answers = [(401, {"detail": "Invalid token."})] * tries
    with (
        connect(server, key) as studio,
        pytest.raises(StudioRefusedError, match=r"Invalid token\.") as caught,
    ):
        studio.project(3)
    assert "HEATBOX_STUDIO_API_KEY" in caught.value.remedy
    assert not server.answers


def test_a_personal_token_that_cannot_be_exchanged_is_told(server):
    server.refresh_status = 401
    with connect(server, PERSONAL) as studio, pytest.raises(StudioRefusedError, match="/api/token/refresh/"):
        studio.push(3, [])
    assert not server.seen


def test_a_push_is_certainly_not_sent_while_the_token_cannot_be_exchanged(server):
    server.refresh_status = 502
    with connect(server, PERSONAL) as studio, pytest.raises(StudioError) as caught:
        studio.push(3, [])
    assert type(caught.value) is StudioError
    assert not server.seen


def test_label_studio_may_be_installed_below_a_path(server):
    server.answers = [(200, PROJECT)]
    with connect(server, PERSONAL, "/studio/") as studio:
        studio.project(3)
    assert [urlsplit(path).path for _, path, _ in server.seen] == ["/studio/api/projects/3/"]


PASSING = [
    CUT,
    SILENCE,
    (200, "<html>"),
    *((status, "<html>") for status in (408, 429, 500, 502, 503, 504)),
]


@pytest.mark.parametrize("failure", PASSING, ids=str)
def test_reading_is_tried_again(server, failure):
    server.answers = [failure, failure, (200, PROJECT)]
    with connect(server, timeout=0.05) as studio:
        assert studio.project(3).title == "Cats"


@pytest.mark.parametrize("failure", PASSING, ids=str)
def test_reading_is_given_up_after_the_third_try(server, failure):
    server.answers = [failure] * 3
    with connect(server, timeout=0.05) as studio, pytest.raises(StudioError):
        studio.project(3)
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 413])
def test_what_is_refused_is_not_tried_again(server, status):
    server.answers = [(status, {"detail": "No."})]
    with connect(server) as studio, pytest.raises(StudioRefusedError, match=rf"HTTP {status}: No\."):
        studio.project(3)


@pytest.mark.parametrize("failure", [*PASSING[:3], (500, ""), (502, ""), (503, ""), (504, "")], ids=str)
def test_a_push_whose_answer_is_lost_may_have_been_stored_and_is_not_repeated(server, failure):
    server.answers = [failure]
    with connect(server, timeout=0.05) as studio, pytest.raises(StudioAmbiguousError):
        studio.push(3, [{"task": 1}])
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [408, 429])
def test_a_push_that_was_put_off_was_not_stored(server, status):
    server.answers = [(status, "")]
    with connect(server) as studio, pytest.raises(StudioError) as caught:
        studio.push(3, [{"task": 1}])
    assert type(caught.value) is StudioError


def test_a_push_that_nobody_took_was_not_stored():
    with running() as gone:
        pass
    with connect(gone) as studio, pytest.raises(StudioError, match="Connection refused") as caught:
        studio.push(3, [{"task": 1}])
    assert type(caught.value) is StudioError


def test_a_refused_push_says_label_studios_reason(server):
    reasons = {"non_field_errors": ["Prediction 0: Invalid task ID 9"]}
    server.answers = [(400, {"detail": "Validation error", "validation_errors": reasons})]
    with (
        connect(server) as studio,
        pytest.raises(StudioRefusedError, match="Prediction 0: Invalid task ID 9"),
    ):
        studio.push(3, [{"task": 9}])


@pytest.mark.parametrize("send", [lambda studio: studio.project(3), lambda studio: studio.push(3, [])])
def test_a_redirect_is_told_and_not_followed(server, send):
    with running() as other:
        server.answers = [(302, "")]
        target = f"{other.url}/api/?next=secret"
        server.RequestHandlerClass = type(
            "Redirecting",
            (Handler,),
            {"reply": lambda self, *told: Handler.reply(self, *told, Location=target)},
        )
        with (
            connect(server) as studio,
            pytest.raises(StudioRefusedError, match=f"to {other.url}/api/") as caught,
        ):
            send(studio)
        assert "secret" not in str(caught.value)
        assert (len(server.seen), other.seen) == (1, [])


@pytest.mark.parametrize("content", [[], {"status": "UP"}, '"text"', 3, None], ids=str)
def test_what_does_not_speak_as_label_studio_is_told(server, content):
    server.answers = [(200, content)] * 3
    with connect(server) as studio:
        with pytest.raises(StudioError, match="does not speak as Label Studio"):
            studio.project(3)
        with pytest.raises(StudioError, match="does not speak as Label Studio"):
            studio.tasks(3)
        with pytest.raises(StudioAmbiguousError, match="does not speak as Label Studio"):
            studio.push(3, [])


@pytest.mark.parametrize("key", [LEGACY, PERSONAL])
@pytest.mark.parametrize("failure", [CUT, (500, {}), (400, {}), (302, ""), (200, "<")], ids=str)
def test_no_token_is_in_any_message(server, caplog, key, failure):
    echo = {"detail": f"Your token {LEGACY} {PERSONAL} access-1"}
    server.answers = [failure if failure[1] != {} else (failure[0], echo)] * 4
    caplog.set_level(logging.DEBUG)
    with connect(server, key) as studio:
        shown = repr(studio)
        for send in (studio.project, lambda number: studio.push(number, [])):
            with pytest.raises(HeatboxError) as caught:
                send(3)
            shown += str(caught.value) + repr(caught.value)
    own = [LEGACY] if key == LEGACY else [PERSONAL, "access-1"]
    assert not [secret for secret in own if secret in shown + caplog.text]


def test_what_is_gone_already_counts_as_deleted(server):
    server.answers = [CUT, (503, ""), (404, {"detail": "No Prediction matches the given query."})]
    with connect(server) as studio:
        studio.delete_prediction(7)
    assert [(method, path) for method, path, _ in server.seen] == [("DELETE", "/api/predictions/7/")] * 3


@pytest.mark.parametrize(
    "url",
    ["", "studio.example", "ftp://studio.example", "http://", "http://a:b@h", "http://h/?x=1", "http://[::"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(SettingsError, match="The address of Label Studio"):
        Studio(url, LEGACY)


@pytest.mark.parametrize("key", ["", " \n", "se cret", "s\u00e9cret", "se\ncret"])
def test_what_is_no_token_is_refused_and_not_shown(key):
    with pytest.raises(SettingsError) as caught:
        Studio("http://studio.example", key)
    assert "cret" not in str(caught.value).replace("secret", "")
    assert "HEATBOX_STUDIO_API_KEY" in caught.value.remedy


def test_pages_that_the_server_makes_smaller_are_put_together(server):
    pages = [([1, 2], 4), ([3, 4], 2), ([2], 2), ([4], 1)]
    server.answers = [(200, {"tasks": [{"id": one} for one in ids], "total": total}) for ids, total in pages]
    server.answers += [
        (200, {"tasks": [{"id": 2, "predictions": []}, {"id": 4, "predictions": []}], "total": 2})
    ]
    with connect(server) as studio:
        stored = studio.stored(3, "heatbox-cam-a-0123456789", [4, 3, 2, 1])
    assert (stored.existing, set(stored.duplicates)) == ({1, 2, 3, 4}, {2, 4})


def test_annotations_come_with_the_tasks_where_they_were_asked_for(server):
    row = {"data": {}, "is_labeled": True, VERSIONS: ""}
    page = {"tasks": [{**row, "id": 1}, {**row, "id": 2}], "total": 2}
    answers = {"tasks": [{"id": 2, "annotations": [{"id": 9}]}], "total": 1}
    server.answers = [(200, page), (200, answers), (200, page)]
    with connect(server) as studio:
        assert [task.annotations for task in studio.tasks(3, annotations=True)] == [(), [{"id": 9}]]
        assert [task.annotations for task in studio.tasks(3)] == [(), ()]
    assert len(server.seen) == 3


def test_one_task_is_read_with_its_annotations_as_predict_gets_it(server):
    task = {
        "id": 7,
        "data": {"image": "s3://b/a.jpg"},
        "is_labeled": False,
        "annotations": [{"id": 9}],
    }
    server.answers = [(200, {"tasks": [task], "total": 1})]
    with connect(server) as studio:
        found = studio.task(3, 7)
    assert found.as_dict() == {"id": 7, "data": {"image": "s3://b/a.jpg"}, "annotations": [{"id": 9}]}
    assert not [path for _, path, _ in server.seen if "/api/tasks/7" in path]  # it would be predicted


def test_a_task_that_the_project_does_not_have_is_told_as_such(server):
    server.answers = [(200, NOTHING)]
    with connect(server) as studio, pytest.raises(StudioRefusedError, match="no task 7") as caught:
        studio.task(3, 7)
    assert caught.value.status == 404


def test_requests_for_tasks_by_number_have_addresses_of_less_than_four_kibibytes(server):
    server.answers = [(200, NOTHING)] * 6
    with connect(server) as studio:
        studio.stored(3, "heatbox-fused_cam-a_rather_long_name-0123456789", range(999_999_000, 999_999_999))
    assert len(server.seen) == 5
    assert max(len(path) for _, path, _ in server.seen) < 4000


def test_a_filter_without_a_number_left_asks_nothing_more(server):
    with connect(server) as studio:
        assert studio.tasks(3, TaskFilter(ids=((3, 5),)), after_id=5) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (None, []),
        ("b,a", ["b", "a"]),
        ("b, a", ["b", "a"]),
        ("a" * 349, ["a" * 349]),
        ("a" * 350, None),
    ],
)
def test_the_versions_of_a_listed_task_are_known_unless_they_may_be_cut(text, expected):
    assert versions({"predictions_model_versions": text}) == expected


@pytest.mark.parametrize("explainer", ["cam", "grad_cam_pp", "my-own.thing"])
@pytest.mark.parametrize("model", ["tiny@0123", "timm/resnet50.a1_in1k@ab", "käfer und wespen@0"])
def test_every_version_of_heatbox_is_its_own(model, explainer):
    assert is_own(Pipeline(model=model, explainer=explainer).version)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "undefined",
        "heatbox",
        "heatbox-ish",
        "heatbox-grad_cam-tiny",
        "heatbox-tiny-0123456789",
        "heatbox-grad_cam-tiny-012345678",
        "heatbox-grad_cam-tiny-0123456789a",
        "heatbox-grad_cam-tiny-012345678G",
        "heatbox-grad_cam-tiny-0123456789\n",
        "my-heatbox-grad_cam-tiny-0123456789",
        "heatbox-grad_cam-ti ny-0123456789",
    ],
)
def test_versions_of_others_are_not(version):
    assert not is_own(version)
