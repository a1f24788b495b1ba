"""`heatbox studio connect` and `disconnect` against a real Label Studio that calls a real heatbox back."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_redis import LABELS, served
from pydantic import SecretStr

from heatbox.errors import StudioRefusedError
from heatbox.labelling.config import make_label_config
from heatbox.queueing.redis_server import private_redis
from heatbox.settings import Settings
from heatbox.studio.backend import Backend, ask
from heatbox.studio.client import Studio
from heatbox.studio.connection import connect, disconnect
from heatbox.studio.switches import REFUSED, switches

pytestmark = pytest.mark.studio

LOGIN = {"basic_auth_user": "studio", "basic_auth_password": SecretStr("s3cret")}
BASIC = "Basic c3R1ZGlvOnMzY3JldA=="
GUARDED = {"ML_BLOCK_LOCAL_IP": "true", "SSRF_PROTECTION_ENABLED": "true"}


@pytest.fixture(scope="module")
def own_settings(tmp_path_factory, tiny_store):
    """Settings of a heatbox without workers: nothing is predicted here."""
    home = tmp_path_factory.mktemp("heatbox") / "home"
    with private_redis(home) as redis:
        yield Settings(home=home, store=tiny_store, model="tiny", redis_url=redis.url, min_probability=0)


@pytest.fixture(scope="module")
def heatbox_url(own_settings):
    with served(own_settings) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def client(studio_server):
    with Studio(studio_server.url, studio_server.token) as client:
        yield client


class Room:
    """A project, and what Label Studio has of its connection."""

    def __init__(self, client, labels=LABELS):
        self.client, self.http = client, client.http
        config = {"title": "Connect", "label_config": make_label_config(labels)}
        self.id = self.http.post("/api/projects/", config)["id"]

    @property
    def project(self):
        return self.client.project(self.id)

    @property
    def rows(self):
        return self.http.get("/api/ml", {"project": self.id})

    @property
    def webhooks(self):
        return self.http.get("/api/webhooks/", {"project": self.id})

    def connect(self, backend, *, at=""):
        version = ask([at or backend.url], backend, self.project).version
        return connect(self.client, self.project, backend, version)

    def state(self):
        """Return everything that connecting may change, without times."""
        kept = (
            "id",
            "url",
            "title",
            "state",
            "model_version",
            "is_interactive",
            "basic_auth_user",
            "headers",
        )
        rows = [{name: one.get(name) for name in kept} for one in (*self.rows, *self.webhooks)]
        return self.project.model_version, rows


@pytest.fixture
def room(client):
    return Room(client)


@pytest.fixture
def command(studio_server, heatbox_url):
    """Run a command as a person would, with Label Studio in the environment."""

    def run(*words, code=0, **variables):
        studio = {"LABEL_STUDIO_URL": studio_server.url, "LABEL_STUDIO_API_KEY": studio_server.token}
        ran = subprocess.run(
            [sys.executable, "-m", "heatbox", "studio", *map(str, words), "--backend", heatbox_url],
            env={**os.environ, **studio, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        assert "Traceback" not in ran.stderr
        return " ".join((ran.stdout + ran.stderr).split())

    return run


def test_the_command_connects_and_the_second_time_changes_nothing(command, client, heatbox_url):
    room = Room(client, (*LABELS, "unicorn"))
    told = command("connect", "--project", room.id)
    version = re.search(r"heatbox-fused_cam-tiny-\w{10}", told)[0]
    assert "Connected" in told
    assert f"{heatbox_url}/webhook" in told
    assert "unicorn" in told
    assert "Retrieve Predictions" in told
    state = room.state()
    ((row, webhook),) = state[1:]
    assert state[0] == row["title"] == row["model_version"] == version
    assert (row["state"], row["is_interactive"]) == ("CO", True)
    assert webhook["url"] == f"{heatbox_url}/webhook"
    assert "Nothing: it was connected already." in command("connect", "--project", room.id)
    assert room.state() == state


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        ((), {"LABEL_STUDIO_API_KEY": "f00d" * 10}, "HTTP 401"),
        (("--api-key", "f00d" * 10), {}, "HTTP 401"),
        ((), {"LABEL_STUDIO_API_KEY": ""}, "LABEL_STUDIO_API_KEY is not set"),
        (("--url", "http://127.0.0.1:1"), {}, "gave no answer"),
    ],
    ids=["key", "key on the command line", "no key", "no Label Studio"],
)
def test_what_is_refused_is_told_without_the_key(command, room, words, variables, told):
    said = command("connect", "--project", room.id, *words, code=3, **variables)
    assert told in said
    assert "f00d" not in said
    assert not room.rows


def test_a_project_that_is_not_there_is_told(command):
    assert "HTTP 404" in command("connect", "--project", 987654, code=3)


def test_a_project_without_a_control_for_heatbox_is_told_with_the_remedy(command, room):
    room.http.patch(f"/api/projects/{room.id}/", {"label_config": "<View></View>"})
    said = command("connect", "--project", room.id, code=3)
    assert f"cannot annotate project {room.id}" in said
    assert "what to do:" in said
    assert not room.rows


def test_the_command_takes_it_off_again_with_the_webhook(command, room):
    command("connect", "--project", room.id)
    assert "Webhook" in command("disconnect", "--project", room.id)
    assert not room.rows
    assert not room.webhooks
    assert "nothing was changed" in command("disconnect", "--project", room.id)


def test_a_row_that_somebody_made_by_hand_is_repaired(room, heatbox_url):
    room.http.post("/api/ml", {"project": room.id, "url": f"{heatbox_url}/", "title": "my model"})
    room.http.post("/api/ml", {"project": room.id, "url": heatbox_url, "title": "again"})
    room.http.post(
        "/api/webhooks/", {"project": room.id, "url": f"{heatbox_url}/webhook", "is_active": False}
    )
    connection = room.connect(Backend(heatbox_url))
    assert not connection.problems
    version, (row, webhook) = room.state()
    assert row["title"] == row["model_version"] == version
    assert row["url"] == heatbox_url
    assert webhook["url"] == f"{heatbox_url}/webhook"
    assert not room.connect(Backend(heatbox_url)).changes


def test_another_version_of_heatbox_is_shown_after_connecting_again(room, own_settings, heatbox_url):
    first = room.connect(Backend(heatbox_url)).title
    with served(own_settings.model_copy(update={"threshold": 0.7})) as other:
        url = str(other.base_url).rstrip("/")
        room.http.patch(f"/api/ml/{room.rows[0]['id']}", {"project": room.id, "url": url})
        again = room.connect(Backend(url))
        assert again.title != first
        assert room.project.model_version == again.title
        assert len(room.rows) == 1


def test_a_model_version_that_label_studio_cleared_is_set_again(room, heatbox_url):
    title = room.connect(Backend(heatbox_url)).title
    room.http.patch(f"/api/projects/{room.id}/", {"model_version": ""})
    assert room.connect(Backend(heatbox_url)).changes == ("The project shows this version's predictions.",)
    assert room.project.model_version == title


def test_with_a_password_the_webhook_has_its_own_header(room, own_settings):
    with served(own_settings.model_copy(update=LOGIN)) as client:
        backend = Backend(str(client.base_url).rstrip("/"), "studio", "s3cret")
        connection = room.connect(backend)
        assert not connection.problems
        assert room.webhooks[0]["headers"] == {"Authorization": BASIC}
        room.http.patch(f"/api/webhooks/{room.webhooks[0]['id']}/", {"headers": {"X-Own": "1"}})
        assert len(room.connect(backend).changes) == 1
        assert room.webhooks[0]["headers"] == {"X-Own": "1", "Authorization": BASIC}
        assert not room.connect(backend).changes


def test_a_host_without_a_dot_is_connected_and_its_missing_webhook_explained(room, heatbox_url):
    undotted = heatbox_url.replace("127.0.0.1", "2130706433")  # the same address as one number
    connection = room.connect(Backend(undotted))
    assert connection.webhook == ""
    assert not room.webhooks
    assert connection.state == "Connected"
    (problem,) = connection.problems
    assert "no dot" in problem
    assert "host.docker.internal" in problem
    assert not room.connect(Backend(undotted)).changes


def test_an_address_that_only_we_reach_is_told_as_such(room, heatbox_url):
    with pytest.raises(StudioRefusedError, match="Label Studio cannot reach") as caught:
        room.connect(Backend("http://127.0.0.1:1"), at=heatbox_url)
    assert "--backend" in caught.value.remedy
    assert not room.rows


def test_a_heatbox_that_went_away_is_told_as_such(room, own_settings, heatbox_url):
    with served(own_settings) as client:
        url = str(client.base_url).rstrip("/")
        room.connect(Backend(url))
    with pytest.raises(StudioRefusedError, match="Label Studio cannot reach"):
        room.connect(Backend(url), at=heatbox_url)
    assert disconnect(room.client, room.id, url)
    assert not room.rows


def test_another_backend_in_the_project_and_another_version_are_problems(room, own_settings, heatbox_url):
    room.connect(Backend(heatbox_url))
    with served(own_settings.model_copy(update={"threshold": 0.7})) as client:
        other = str(client.base_url).rstrip("/")
        problems = room.connect(Backend(other), at=heatbox_url).problems
    assert any(heatbox_url in problem and "asks only one" in problem for problem in problems)
    assert any("names the version" in problem for problem in problems)


def test_a_guarded_label_studio_says_which_switches_and_never_keeps_two_rows(own_studio, heatbox_url):
    own_studio.kill()
    own_studio.start(**GUARDED)
    with Studio(own_studio.server.url, own_studio.server.token) as client:
        room, backend = Room(client), Backend(heatbox_url)
        with pytest.raises(StudioRefusedError, match="may not call") as caught:
            room.connect(backend)
        assert "heatbox studio switches" in caught.value.remedy
        assert not room.rows
        own_studio.kill()
        own_studio.start(**{**GUARDED, "ML_BLOCK_LOCAL_IP": "false"})
        for _ in range(2):
            connection = room.connect(backend)
            assert (len(room.rows), connection.state, connection.webhook) == (1, "Connected", "")
            assert "heatbox studio switches" in connection.problems[0]
        own_studio.kill()
        own_studio.start(**GUARDED)
        with pytest.raises(StudioRefusedError, match="may not call"):
            room.connect(backend)
        own_studio.kill()
        own_studio.start(**GUARDED, **switches("127.0.0.1"))
        connection = room.connect(backend)
        assert (len(room.rows), connection.problems) == (1, ())
        assert [one["url"] for one in room.webhooks] == [connection.webhook]


def test_the_refused_networks_are_those_of_this_label_studio():
    (source,) = (
        Path(__file__).parents[2].glob(".venv-studio/lib/*/site-packages/label_studio/core/utils/io.py")
    )
    listed = source.read_text(encoding="utf-8").partition("default_banned_subnets = [")[2].partition("]")[0]
    assert re.findall(r"'([0-9a-f:./]+)',", listed) == list(REFUSED)
