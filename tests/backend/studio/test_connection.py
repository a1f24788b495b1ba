"""heatbox asked about a project as Label Studio would ask, against the real service; addresses and switches."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_network

import pytest
from fixtures_redis import LABELS, served
from pydantic import SecretStr

from heatbox.errors import ServiceError, SettingsError
from heatbox.labelling.config import make_label_config
from heatbox.settings import own_url
from heatbox.studio.backend import Backend, ask, backend_url
from heatbox.studio.client import Project, Studio
from heatbox.studio.connection import connect
from heatbox.studio.switches import REFUSED, switches

NOBODY = "http://127.0.0.1:1"
LOGIN = {"basic_auth_user": "studio", "basic_auth_password": SecretStr("s3cret")}


class Greeter(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_):
        pass


class Connected(BaseHTTPRequestHandler):
    """Answers as a Label Studio in which the backend is connected, and remembers what is changed."""

    def do_GET(self):
        self.reply(self.server.content[self.path.partition("?")[0]])

    def do_PATCH(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.changed.append((self.path, content))
        self.reply(content)

    def reply(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def connected(backend, headers):
    """Serve a Label Studio whose webhook has these headers and which is right otherwise."""
    row = {
        "id": 1,
        "state": "CO",
        "model_version": "v",
        "basic_auth_pass_is_set": True,
        **backend.row(7, "v"),
    }
    hook = {"id": 3, "url": backend.webhook, "is_active": True, "headers": headers}
    with HTTPServer(("127.0.0.1", 0), Connected) as server:
        server.changed = []
        version = {"model_version": "v"}
        server.content = {"/api/ml": [row], "/api/webhooks/": [hook], "/api/projects/7/": version}
        threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
        with Studio(f"http://127.0.0.1:{server.server_port}", "0123456789abcdef") as studio:
            yield studio, server.changed
        server.shutdown()


def project(*labels, config=None):
    return Project(7, "Cats", make_label_config(labels) if config is None else config, "")


def address_of(client):
    return str(client.base_url).rstrip("/")


def test_heatbox_names_its_version_and_the_labels_without_a_class(settings):
    with served(settings) as client:
        setup = ask([address_of(client)], Backend(address_of(client)), project(*LABELS, "unicorn"))
    assert setup.version.startswith("heatbox-fused_cam-tiny-")
    assert any("unicorn" in warning for warning in setup.warnings)


def test_an_address_that_does_not_answer_from_here_is_followed_by_the_next(settings):
    with served(settings) as client:
        setup = ask([NOBODY, address_of(client)], Backend(NOBODY), project(*LABELS))
        assert setup.url == address_of(client)


def test_where_nothing_answers_every_address_is_named():
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1 .* nor at http://127\.0\.0\.1:2") as caught:
        ask([NOBODY, "http://127.0.0.1:2"], Backend(NOBODY), project(*LABELS))
    assert "heatbox up" in caught.value.remedy


@pytest.mark.parametrize("backend", [Backend("x"), Backend("x", "studio", "wrong")])
def test_a_missing_or_wrong_password_is_told_as_such(settings, backend):
    with served(settings.model_copy(update=LOGIN)) as client:
        with pytest.raises(ServiceError, match="asks for a user and a password") as caught:
            ask([address_of(client)], backend, project(*LABELS))
        right = Backend("x", "studio", "s3cret")
        assert ask([address_of(client)], right, project(*LABELS)).version
    assert "s3cret" not in str(caught.value)


def test_what_is_not_heatbox_is_told_as_such():
    with HTTPServer(("127.0.0.1", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ServiceError, match="is not heatbox"):
            ask([url], Backend(url), project(*LABELS))
        server.shutdown()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("<View></View>", "cannot annotate project 7"),
        ("<View>", "cannot annotate project 7"),
        ('<View><Text name="t" value="$t"/></View>', "cannot annotate project 7"),
    ],
)
def test_a_project_that_heatbox_cannot_fill_is_refused_with_its_reason_and_remedy(settings, config, reason):
    with served(settings) as client, pytest.raises(ServiceError, match=reason) as caught:
        ask([address_of(client)], Backend("x"), project(config=config))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (" http://heatbox.local:9090/ ", "http://heatbox.local:9090"),
        ("https://heatbox.example/below/", "https://heatbox.example/below"),
    ],
)
def test_an_address_loses_the_slash_at_its_end(given, url):
    assert backend_url(given) == url


@pytest.mark.parametrize(
    "url", ["heatbox:9090", "ftp://x", "http://u:p@x", "http://x?a=1", "http://", "http://x:port"]
)
def test_what_is_no_plain_address_is_refused_without_being_quoted(url):
    with pytest.raises(SettingsError) as caught:
        backend_url(url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9090"),
        ("0.0.0.0", "http://127.0.0.1:9090"),  # noqa: S104 - a name here
        ("::", "http://[::1]:9090"),
        ("heatbox.local", "http://heatbox.local:9090"),
    ],
)
def test_the_own_address_is_one_that_reaches_the_socket(host, url):
    assert own_url(host, 9090) == url


def test_a_free_port_is_nobodys_address():
    with pytest.raises(SettingsError, match="free port"):
        own_url("127.0.0.1", 0)


def test_a_backend_shows_no_password_and_gives_its_webhook_the_header():
    backend = Backend("http://x", "Aladdin", "open sesame")
    assert backend.headers == {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}  # of RFC 7617
    assert "sesame" not in repr(backend)
    assert Backend("http://x").headers == {}


BASIC = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize(
    ("user", "headers", "repaired"),
    [
        ("", {"Authorization": BASIC, "X-Mine": "1"}, {"X-Mine": "1"}),
        ("", {"authorization": BASIC.lower()}, {}),
        ("", {"Authorization": "Bearer of-a-proxy"}, None),
        ("", {"X-Mine": "1"}, None),
        ("", None, {}),
        ("Aladdin", {"Authorization": "Basic b2xk", "X-Mine": "1"}, {"Authorization": BASIC, "X-Mine": "1"}),
        ("Aladdin", {"authorization": "Basic b2xk"}, {"Authorization": BASIC}),
        ("Aladdin", {"Authorization": BASIC}, None),
    ],
)
def test_the_webhook_has_the_password_as_long_as_heatbox_has_one(user, headers, repaired):
    backend = Backend("http://heatbox.local:9090", user, "open sesame" if user else "")
    with connected(backend, headers) as (studio, changed):
        connect(studio, project("cat"), backend, "v")
    wanted = {"url": backend.webhook, "is_active": True, "headers": repaired}
    assert changed == ([] if repaired is None else [("/api/webhooks/3/", wanted)])


@pytest.mark.parametrize(
    ("allowed", "reached", "refused"),
    [
        ("127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "127.255.255.255", "10.0.0.1", "169.254.169.254", "::1"]),
        ("172.18.0.0/16", ["172.18.0.2", "172.18.255.255"], ["172.17.0.1", "172.19.0.1", "127.0.0.1"]),
        ("::1", ["::1"], ["::", "fe80::1", "127.0.0.1"]),
        ("8.8.8.8", ["8.8.8.8"], ["127.0.0.1", "10.0.0.1"]),
        ("10.0.0.0/7", ["10.0.0.1", "11.0.0.1"], ["127.0.0.1"]),
    ],
)
def test_switches_open_what_is_named_and_nothing_else(allowed, reached, refused):
    variables = switches(allowed)
    left = [ip_network(one) for one in variables["USER_ADDITIONAL_BANNED_SUBNETS"].split(",")]
    assert not [one for one in reached if any(ip_address(one) in network for network in left)]
    assert all(any(ip_address(one) in network for network in left) for one in refused)


def test_opening_one_address_keeps_every_other_one_refused():
    left = switches("127.0.0.1")["USER_ADDITIONAL_BANNED_SUBNETS"].split(",")
    count = sum(ip_network(one).num_addresses for one in left)
    assert count == sum(ip_network(one).num_addresses for one in REFUSED) - 1


def test_what_is_no_address_cannot_be_opened():
    with pytest.raises(SettingsError, match="heatbox"):
        switches("heatbox.local")
