"""Under which hosts the web service answers where no password keeps a web page of somebody else out."""

from contextlib import suppress

import pytest
from fixtures_redis import served

from heatbox.service.hosts import HostCheck
from heatbox.settings import Settings, own_url

EVIL = "evil.example:9090"


def passes(named, path="/setup", **settings):
    """Return whether a request with this Host header, None for none, goes through."""
    through = []

    async def app(*_):
        through.append(True)

    async def send(_message):
        pass

    headers = [] if named is None else [(b"host", named.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    with suppress(StopIteration):
        HostCheck(app, Settings(**settings))(scope, None, send).send(None)
    return bool(through)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090",
        "localhost",
        "LOCALHOST:9090",
        "[::1]:9090",
        "host.docker.internal:9090",
        "heatbox:9090",
        "192.0.2.7",
        "box.localhost",
        "boxes.example.org",
        None,
    ],
)
@pytest.mark.parametrize("own", ["127.0.0.1", "::1", "localhost"])
def test_what_no_web_page_can_be_called_passes(host, own):
    assert passes(host, host=own, public_url="https://boxes.example.org/heatbox/")


@pytest.mark.parametrize(
    "host", [EVIL, "evil.example.", "127.0.0.1.evil.example", "a@evil.example", "localhost.evil.example:80"]
)
@pytest.mark.parametrize("own", ["127.0.0.1", "::1", "localhost"])
def test_a_name_of_somebody_else_is_refused_on_a_loopback_address(host, own):
    assert not passes(host, host=own, public_url="https://boxes.example.org")


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - a name here
        {"host": "192.0.2.7"},
        {"basic_auth_user": "ann", "basic_auth_password": "p"},
        {"public_url": f"http://{EVIL}"},
    ],
)
def test_where_others_are_meant_to_reach_it_or_a_password_is_set_every_name_passes(settings):
    assert passes(EVIL, **settings)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_container_platforms_may_name_any_host(path):
    assert passes(EVIL, path)


def test_the_refusal_says_what_to_do_and_names_no_host(tmp_path, tiny_store):
    settings = Settings(home=tmp_path, store=tiny_store, model="tiny", redis_url="redis://127.0.0.1:1")
    with served(settings) as client:
        answer = client.post("/predict", json={"tasks": []}, headers={"Host": EVIL})
        assert client.get("/healthz", headers={"Host": EVIL}).status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (421, "request")
    assert "HEATBOX_PUBLIC_URL" in answer.json()["remedy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("host", "url"), [("::1", "http://[::1]:9090"), ("localhost", "http://localhost:9090"), ("::", "")]
)
def test_people_reach_an_ipv6_address_in_brackets(host, url):
    assert Settings(host=host).people_url == url
    assert not url or own_url(host, 9090) == url
