"""What the web service does with people it does not know, odd requests, slow ones, and secrets in them."""

import base64
import json
import logging
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress

import httpx
import pytest
from fixtures_redis import served, wait_until
from starlette.responses import StreamingResponse

from heatbox.errors import SettingsError
from heatbox.labelling.config import MAX_CONFIG_BYTES, make_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.runs.records import Runs
from heatbox.runs.tables import NewItem, NewRun
from heatbox.service import body_limit, connections, metrics
from heatbox.service.app import create_app
from heatbox.service.auth import LABEL_STUDIO_PATHS, OPEN_PATHS, Authentication
from heatbox.service.routes import router
from heatbox.service.server import Server
from heatbox.settings import Settings, read_settings
from heatbox.supervisor import exposure, listen

CONFIG = make_label_config(["cat", "dog"])
USER, PASSWORD, TOKEN = "ann", "p:ä:ss 🔑", "to-ken"
LOGIN = {"basic_auth_user": USER, "basic_auth_password": PASSWORD}
REST = [
    "/v1/models",
    "/v1/runs",
    "/runs",
    "/metrics",
    "/openapi.json",
    "/nothing",
    "/metrics%0A",
    "/v1",
    "//setup",
]


@pytest.fixture
def idle(tmp_path, tiny_store):
    """Settings of a service whose Redis is not needed."""
    return Settings(home=tmp_path, store=tiny_store, model="tiny", redis_url="redis://127.0.0.1:1")


def rest(runs):
    """Make a run that rests, and return its number."""
    number = runs.create(NewRun("a", Pipeline("tiny@1"), CONFIG, project=1), [NewItem("a", ("/a",), task=1)])
    runs.trouble(number, "rests", pause=True)
    return number


@pytest.fixture(scope="module")
def client(tmp_path_factory, tiny_store):
    """A service without a login, whose Redis is not needed."""
    home = tmp_path_factory.mktemp("open")
    settings = Settings(home=home, store=tiny_store, model="tiny", redis_url="redis://127.0.0.1:1")
    with closing(Ledger(settings.ledger_url)) as ledger:
        rest(Runs(ledger))
    with served(settings) as client:
        yield client


@pytest.fixture(scope="module")
def closed(tmp_path_factory, tiny_store):
    """A service with a password and a token."""
    choices = {"store": tiny_store, "model": "tiny", "redis_url": "redis://127.0.0.1:1"}
    with served(
        Settings(home=tmp_path_factory.mktemp("closed"), **choices, **LOGIN, api_token=TOKEN)
    ) as client:
        yield client


def with_login(settings, **login):
    return Settings.model_validate({**settings.model_dump(), **login})


def basic(text, encoding="utf-8"):
    return "Basic " + base64.b64encode(text.encode(encoding)).decode()


def passed(headers, path="/setup", **login):
    """Return whether a request with these Authorization headers (bytes) goes through."""
    through = []

    async def app(*_):
        through.append(True)

    async def send(_message):
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(b"authorization", one) for one in headers],
    }
    checked = Authentication(app, Settings(**(login or LOGIN)))
    with suppress(StopIteration):
        checked(scope, None, send).send(None)
    return bool(through)


@pytest.mark.parametrize("path", sorted(LABEL_STUDIO_PATHS))
def test_what_label_studio_calls_wants_the_password_and_no_token(closed, path):
    method = "GET" if path in {"/", "/health", "/versions"} else "POST"

    def ask(**headers):
        body = {"schema": CONFIG, "tasks": []}
        return closed.request(method, path, json=body, headers=headers).status_code

    assert ask() == ask(Authorization=f"Bearer {TOKEN}") == 401
    assert ask(Authorization=basic(f"{USER}:{PASSWORD}")) == 200


def test_container_platforms_need_no_password(closed):
    assert closed.get("/healthz").status_code == 200
    assert closed.get("/readyz").status_code == 503


def test_the_paths_that_are_told_apart_exist():
    paths = {route.path for some in (router, metrics.router) for route in some.routes}
    assert paths >= LABEL_STUDIO_PATHS | OPEN_PATHS


@pytest.mark.parametrize("path", REST)
@pytest.mark.parametrize(
    ("login", "wanted"),
    [
        ({"api_token": TOKEN}, ["Bearer"]),
        (LOGIN, ["Basic"]),
        ({**LOGIN, "api_token": TOKEN}, ["Basic", "Bearer"]),
    ],
)
def test_everything_else_wants_the_token_or_the_password(path, login, wanted):
    right = {"Bearer": f"Bearer {TOKEN}".encode(), "Basic": basic(f"{USER}:{PASSWORD}").encode()}
    assert {scheme for scheme in right if passed([right[scheme]], path, **login)} == set(wanted)
    assert not passed([], path, **login)


def test_a_token_alone_leaves_label_studios_routes_open(idle):
    with served(with_login(idle, api_token=TOKEN)) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_without_password_and_token_everything_is_open(client):
    assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        basic(f"{USER}:{PASSWORD}"),
        basic(f"{USER}:{PASSWORD}").replace("Basic", "basic"),
        basic(f"{USER}:{PASSWORD}").replace("Basic ", "BASIC   "),
        basic(f"{USER}:{PASSWORD}") + "  ",
    ],
)
def test_the_password_is_taken_however_the_scheme_is_written(header):
    assert passed([header.encode()])


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_password_with_umlauts_is_taken_as_browsers_and_as_label_studio_send_it(encoding):
    login = {"basic_auth_user": "jörg", "basic_auth_password": "grün:"}
    assert passed([basic("jörg:grün:", encoding).encode()], **login)


@pytest.mark.parametrize(
    "headers",
    [
        [b""],
        [b"Basic"],
        [b"Basic "],
        [b"Basic ===="],
        [b"Basic \xff\xfe\x00"],
        [b"\xc3\xa4 \xf0\x9f\x94\x91"],
        [b"Basic not*base64"],
        [basic(USER + PASSWORD).encode()],
        [basic(f"{USER}:").encode()],
        [basic(f":{PASSWORD}").encode()],
        [basic(f"{USER}:{PASSWORD}\n").encode()],
        [basic(f"{USER.upper()}:{PASSWORD}").encode()],
        [basic(f"{USER}:{PASSWORD[:-1]}").encode()],
        [basic(f"{USER}:{PASSWORD}").encode().replace(b"Basic", b"Bearer")],
        [basic(f"{USER}:{PASSWORD}").encode()] * 2,
        [b"Basic x", basic(f"{USER}:{PASSWORD}").encode()],
        [b"Basic " + b"A" * 2**20],
        [b"A" * 2**20],
        [base64.b64encode(f"{USER}:{PASSWORD}".encode())],
    ],
)
def test_odd_credentials_are_wrong_and_no_error(headers):
    assert not passed(headers)


@pytest.mark.parametrize("header", ["Basic äöü", "Basic " + "A" * 60_000, "", "Bearer"])
def test_the_refusal_says_what_is_wanted_and_repeats_nothing(closed, header, caplog):
    answer = closed.get("/v1/runs", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert set(answer.json()) == {"code", "message", "remedy"}
    assert answer.json()["code"] == "authentication"
    assert answer.headers.get_list("www-authenticate") == [
        'Basic realm="heatbox", charset="UTF-8"',
        'Bearer realm="heatbox"',
    ]
    assert not [text for text in (PASSWORD, TOKEN, "AAAA") if text in answer.text + caplog.text]


def test_a_refused_request_leaves_the_connection_to_the_next(closed):
    assert closed.post("/predict", content=b"x" * 100_000).status_code == 401
    assert closed.get("/health", auth=(USER, PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HEATBOX_BASIC_AUTH_USER": "a"}, "a user for the web service and no password"),
        ({"BASIC_AUTH_PASS": "s3cret"}, "a password for the web service and no user"),
        ({"HEATBOX_BASIC_AUTH_USER": "a:b", "HEATBOX_BASIC_AUTH_PASSWORD": "s3cret"}, "has a colon"),
    ],
)
def test_a_login_that_nobody_could_use_is_an_error(environment, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        read_settings(environment)
    assert "s3cret" not in str(caught.value)


def test_the_names_that_users_of_label_studio_ml_know_are_understood():
    settings = read_settings({"BASIC_AUTH_USER": "a", "BASIC_AUTH_PASS": "b"})
    assert (settings.basic_auth_user, settings.basic_auth_password.get_secret_value()) == ("a", "b")
    assert "b'" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "login", "warned"),
    [
        ("127.0.0.1", {}, False),
        ("localhost", {}, False),
        ("::1", {}, False),
        ("0.0.0.0", {}, True),  # noqa: S104 - not bound
        ("::", {}, True),
        ("192.0.2.1", {}, True),
        ("192.0.2.1", {"api_token": TOKEN}, True),
        ("0.0.0.0", LOGIN, False),  # noqa: S104 - not bound
        ("no.such.host.invalid", {}, True),
    ],
)
def test_a_service_that_others_reach_without_a_password_is_warned_about(host, login, warned):
    told = exposure(Settings(host=host, **login))
    assert bool(told) == warned
    assert not warned or (host in told and "HEATBOX_BASIC_AUTH_PASSWORD" in told)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/runs", "/nothing", "/metrics", "/openapi.json"])
def test_every_answer_says_that_nothing_else_may_be_done_with_it(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none';")


@pytest.mark.parametrize("path", ["/v1/models/", "/runs/", "/setup/", "//host.invalid/runs/", "/runs/1/"])
def test_no_answer_sends_people_to_the_host_that_a_request_names(client, closed, path):
    odd = {"Host": "host.invalid", "X-Forwarded-Host": "host.invalid"}
    assert client.get(path, headers=odd).status_code == 421
    answer = closed.get(path, headers={**odd, "Authorization": basic(f"{USER}:{PASSWORD}")})
    assert answer.status_code in {404, 400}
    assert "host.invalid" not in str(answer.headers) + answer.text


def post(client, path, body):
    return client.post(path, content=body, headers={"Content-Type": "application/json"})


def setup_with(config):
    return json.dumps({"schema": config}).encode()


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>'
OUTSIDE = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><View/>'


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        pytest.param(b"[" * 100_000, {400}, id="brackets"),
        pytest.param(b'{"schema":' * 50_000 + b"1" + b"}" * 50_000, {400}, id="objects"),
        pytest.param(b'{"extra_params":' + b"[" * 900 + b"]" * 900 + b"}", {200}, id="nested"),
        pytest.param(b'{"extra_params": ' + b"9" * 100_000 + b"}", {200, 400}, id="digits"),
        pytest.param(b'{"extra_params": 1e999999}', {200}, id="infinite"),
        pytest.param(b'{"extra_params": [NaN, Infinity, -Infinity]}', {200}, id="nan"),
        pytest.param(b"[" + b"[]," * body_limit.MAX_PARTS + b"0]", {413}, id="lists"),
        pytest.param(b'{"schema": NaN}', {400}, id="nan-config"),
        pytest.param(b'{"schema": "\xff\xfe"}', {400}, id="no-utf-8"),
        pytest.param(b'{"schema": "\\ud800"}', {422}, id="surrogate"),
        pytest.param(b'{"schema": "\\u0000"}', {422}, id="nul"),
        pytest.param(b'{"schema": "<View/>", "schema": null}', {200}, id="twice"),
        pytest.param(b"\xef\xbb\xbf{}", {200, 400}, id="bom"),
        pytest.param(b'"text"', {400}, id="text"),
        pytest.param(b"null", {400}, id="null"),
        pytest.param(setup_with(BOMB), {422}, id="entities"),
        pytest.param(setup_with(OUTSIDE), {422}, id="dtd"),
        pytest.param(setup_with("<View>" * 100_000), {422}, id="open-tags"),
        pytest.param(setup_with("<View>" * 70_000 + "</View>" * 70_000), {422}, id="deep-tags"),
        pytest.param(setup_with(f"<View>{' ' * MAX_CONFIG_BYTES}</View>"), {422}, id="large"),
        pytest.param(
            setup_with("<View " + " ".join(f'a{n}="1"' for n in range(50_000)) + "/>"), {422}, id="attributes"
        ),
    ],
)
def test_odd_json_is_refused_with_a_remedy_or_understood(client, body, statuses):
    answer = post(client, "/setup", body)
    assert answer.status_code in statuses
    assert answer.status_code == 200 or answer.json()["remedy"]
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/v1/runs/{}", "/v1/runs/{}/failed", "/v1/runs/{}/events", "/runs/{}"])
@pytest.mark.parametrize(
    "number", ["-1", "0", "9" * 18, "9" * 19, "9" * 400, "9" * 5000, "1e3", "%00", "\u0661"]
)
def test_no_number_of_a_run_is_too_odd(client, path, number):
    assert client.get(path.format(number)).status_code in {400, 404}


@pytest.mark.parametrize("path", ["/v1/runs/1/failed", "/runs/1"])
@pytest.mark.parametrize("after", ["9" * 9, "9" * 10, "9" * 19, "9" * 400])
def test_no_page_is_too_far(client, path, after):
    assert client.get(path, params={"after": after}).status_code in {200, 400}


@contextmanager
def serving(app):
    """Serve with the server of `heatbox serve` from a thread, and yield its address."""
    server = Server(app)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def raw(address, *parts):
    """Return what the server answers to bytes, until it closes or a quarter of a minute has passed."""
    with socket.create_connection(address, timeout=15) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer


HEAD = b"POST /setup HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([HEAD, b"Content-Length: -1\r\n\r\n{}"], 400),
        ([HEAD, b"Content-Length: 1e3\r\n\r\n{}"], 400),
        ([HEAD, b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"], 400),
        ([HEAD, b"Content-Length: " + b"9" * 18 + b"\r\n\r\n{}"], 413),
        ([HEAD, b"Content-Length: " + b"9" * 60 + b"\r\n\r\n{}"], 400),
        ([HEAD, b"Content-Length: 1\r\n\r\n{}"], 400),
        ([HEAD, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], 200),
        ([HEAD, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"], 400),
        ([HEAD, b"X: " + b"a" * 100_000 + b"\r\n\r\n"], 400),
        ([b"GET / HTTP/1.1\r\n\r\n"], 400),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"], 400),
    ],
)
def test_odd_http_is_refused_and_the_service_lives(idle, parts, status):
    with serving(create_app(idle)) as address:
        first = raw(address, *parts).split(b"\r\n", 1)[0]
        assert (first.split(b" ")[1:2] or [b"closed"])[0] in {str(status).encode(), b"closed"}
        assert raw(address, b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 200"
        )


def test_a_body_that_drips_is_given_up_and_holds_nobody_up(idle, monkeypatch):
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.5)
    with serving(create_app(idle)) as address, socket.create_connection(address, timeout=15) as slow:
        slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        before = time.monotonic()
        assert raw(address, b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 200"
        )
        assert time.monotonic() - before < 0.4
        assert b" 408 " in slow.recv(65536).split(b"\r\n")[0]


def test_bodies_that_are_too_many_together_are_refused_until_room_is_made(idle, monkeypatch):
    monkeypatch.setattr(body_limit, "MAX_BODIES_BYTES", 1000)
    with served(idle) as client:
        large = json.dumps({"extra_params": "a" * 1001}).encode()
        assert post(client, "/setup", large).status_code == 503
        for _ in range(3):
            assert post(client, "/setup", b'{"extra_params": "' + b"a" * 700 + b'"}').status_code == 200


def test_connections_that_ask_nothing_are_closed(idle, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with serving(create_app(idle)) as address:
        silent = socket.create_connection(address, timeout=15)
        dripping = socket.create_connection(address, timeout=15)
        dripping.sendall(b"GET / HTTP/1.1\r\nX: ")
        with closing(silent), closing(dripping):
            assert (silent.recv(1), dripping.recv(1)) == (b"", b"")


def test_silent_connections_make_room_for_new_ones(idle, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    with serving(create_app(idle)) as address:
        many = [socket.create_connection(address, timeout=15) for _ in range(20)]
        for one in many[-4:]:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert all(one.recv(12) == b"HTTP/1.1 200" for one in many[-4:])
        with suppress(ConnectionResetError):
            assert many[0].recv(1) == b""
        for one in many:
            one.close()


def test_a_stream_that_is_open_is_no_idle_connection(idle, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with closing(Ledger(idle.ledger_url)) as ledger, serving(create_app(idle)) as (host, port):
        runs = Runs(ledger)
        number = rest(runs)
        with httpx.stream("GET", f"http://{host}:{port}/v1/runs/{number}/events") as told:
            lines = told.iter_lines()
            next(lines)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 1.5, "the server has looked")  # once a second
            runs.cancel(number)
            assert any("cancelled" in line for line in lines)


SECRETS = ("s3cret-token", "s3cret-password", "s3cret-picture", "s3cret-payload", "s3cret-name")
PROJECT = {
    "id": 1,
    "token": "s3cret-token",
    "task_data_login": "ann",
    "task_data_password": "s3cret-password",
    "title": "s3cret-payload",
}
TASKS = [
    {"id": 1, "data": {"image": "data:image/png;base64,s3cret-picture"}},
    {"id": 2, "data": {"image": "https://ann:s3cret-password@host.invalid/a.png?sig=s3cret-token"}},
    {"id": 3, "data": {"image": {"s3cret-payload": "s3cret-token"}}},
    {"id": 4, "data": {"other": "s3cret-token"}},
    {"id": 5, "data": "s3cret-payload"},
    {"id": {"s3cret-payload": 1}, "data": {"image": "/s3cret-payload/s3cret-token/a.png"}},
    "s3cret-payload",
    ["s3cret-payload"],
]
REQUESTS = [
    (
        "/predict",
        {"tasks": TASKS, "label_config": CONFIG, "params": {"login": "ann", "password": "s3cret-password"}},
    ),
    ("/predict", {"tasks": TASKS, "params": {"context": {"result": [{"id": "s3cret-payload"}]}}}),
    ("/predict", {"tasks": TASKS, "label_config": "<View>s3cret-payload", "project": "s3cret-payload"}),
    ("/predict", {"tasks": TASKS, "project": {"s3cret-payload": 1}}),
    ("/predict", {"tasks": {"s3cret-payload": 1}}),
    ("/predict", {"tasks": 7, "label_config": ["s3cret-payload"]}),
    ("/setup", {"schema": ["s3cret-payload"], "access_token": "s3cret-token"}),
    ("/setup", {"schema": "<View>s3cret-payload", "access_token": "s3cret-token"}),
    ("/setup", {"schema": OUTSIDE.replace("etc/passwd", "s3cret-payload"), "access_token": "s3cret-token"}),
    ("/setup", {"schema": CONFIG, "access_token": "s3cret-token", "extra_params": {"key": "s3cret-payload"}}),
    ("/setup", {"schema": CONFIG, "extra_params": "s3cret-payload"}),
    ("/webhook", {"action": "ANNOTATION_CREATED", "project": PROJECT, "task": TASKS[0], "annotation": 7}),
    ("/webhook", {"action": "s3cret-payload", "project": PROJECT}),
    ("/webhook", {"action": "START_TRAINING", "project": PROJECT}),
    ("/webhook", {"action": {"s3cret-payload": 1}, "project": "s3cret-payload"}),
    ("/webhook", ["s3cret-payload"]),
    ("/nothing", {"s3cret-payload": 1}),
]


def test_no_answer_and_no_log_repeats_what_a_request_held(settings, caplog):
    caplog.set_level(logging.DEBUG, logger="heatbox")
    with served(settings.model_copy(update={"predict_deadline": 0.2})) as client:
        answers = [client.post(path, json=body) for path, body in REQUESTS]
        answers.append(post(client, "/predict", b'{"tasks": ["s3cret-payload", '))
        answers.append(client.get("/v1/runs/s3cret-payload", params={"token": "s3cret-token"}))
        answers.append(client.get("/v1/runs", headers={"Authorization": "Bearer s3cret-token"}))
    told = [
        record.getMessage() for record in caplog.records if record.name.startswith(("heatbox", "uvicorn"))
    ]
    for text in (*told, *(answer.text for answer in answers)):
        assert not [secret for secret in SECRETS if secret in text], text
        assert "Traceback" not in text
    assert not [answer.url for answer in answers if answer.status_code >= 500]


def test_a_defect_is_answered_with_a_code_and_the_log_has_its_place_and_not_its_text(idle, caplog):
    app = create_app(idle)

    @app.get("/v1/broken")
    async def broken():
        raise ValueError("s3cret-payload")

    with serving(app) as (host, port):
        answer = httpx.get(f"http://{host}:{port}/v1/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ValueError in test_service_security.py" in caplog.text
    assert "s3cret-payload" not in answer.text + caplog.text


def test_a_stream_that_breaks_is_cut_and_its_text_stays_inside(idle, caplog):
    app = create_app(idle)

    @app.get("/v1/broken")
    async def broken():
        async def parts():
            yield b"half"
            raise ValueError("s3cret-payload")

        return StreamingResponse(parts())

    with serving(app) as (host, port), pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://{host}:{port}/v1/broken")
    assert "s3cret-payload" not in caplog.text
