"""The Authorization header: one exchange for several threads, renewed when it is refused, and never shown."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures_hostile import LEGACY, PERSONAL, hostile_server

from heatbox.errors import StudioError
from heatbox.runs.conducting import open_studio
from heatbox.settings import Settings
from heatbox.studio.http import StudioHTTP
from heatbox.studio.token import Token


def test_threads_share_one_exchange():
    exchanged, together = [], threading.Barrier(4)

    def exchange(key, _):
        exchanged.append(key)
        return f"access-{len(exchanged)}"

    def header(_):
        together.wait(5)
        return token.header()["Authorization"]

    token = Token(PERSONAL, exchange)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(header, range(4))) == {"Bearer access-1"}
    assert exchanged == [PERSONAL]


def test_threads_whose_header_was_refused_renew_it_once():
    exchanged = []
    token = Token(PERSONAL, lambda key, _: exchanged.append(key) or f"access-{len(exchanged)}")
    refused = token.header()
    for _ in range(2):
        assert token.can_replace(refused)
        assert token.header() == {"Authorization": "Bearer access-2"}


class Down:
    """Stands for a Label Studio that gives no access until it is up."""

    def __init__(self):
        self.is_up, self.asked = False, []

    def __call__(self, _, seconds):
        self.asked.append(seconds)
        if not self.is_up:
            raise StudioError("It is down.", "Start it.")
        return "access-1"


def test_who_has_limited_time_is_told_at_once_what_failed_a_moment_ago():
    down = Down()
    token = Token(PERSONAL, down)
    for _ in range(3):
        with pytest.raises(StudioError, match="down"):
            token.header(5.0)
    (seconds,) = down.asked
    assert 4.0 < seconds <= 5.0


def test_who_has_time_asks_again_and_what_came_is_for_all():
    down = Down()
    token = Token(PERSONAL, down)
    with pytest.raises(StudioError):
        token.header(5.0)
    with pytest.raises(StudioError):
        token.header()
    down.is_up = True
    assert token.header() == token.header(5.0) == {"Authorization": "Bearer access-1"}
    assert len(down.asked) == 3


def test_who_has_limited_time_waits_no_longer_for_somebody_elses_exchange():
    entered, released = threading.Event(), threading.Event()

    def exchange(*_):
        entered.set()
        released.wait(10)
        return "access-1"

    token = Token(PERSONAL, exchange)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(token.header)
        assert entered.wait(10)
        with pytest.raises(TimeoutError):
            token.header(0.05)
        released.set()
        assert slow.result() == token.header(0.05)


def test_an_exchange_takes_no_longer_than_there_is_time_for_it():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        studio = StudioHTTP(url, PERSONAL, 8.0, ())
        began = time.monotonic()
        with pytest.raises(StudioError, match="no answer"):
            studio.token.header(0.2)
        assert time.monotonic() - began < 4
        studio.close()


def test_a_legacy_token_that_was_refused_has_no_replacement():
    token = Token(LEGACY, lambda *_: pytest.fail("exchanged"))
    assert token.header() == {"Authorization": f"Token {LEGACY}"}
    assert not token.can_replace(token.header())


def test_no_repr_and_no_cleaned_text_shows_a_token():
    token = Token(PERSONAL, lambda *_: "access-1")
    token.header()
    shown = repr(token) + token.clean(f"{PERSONAL} access-1")
    assert not [secret for secret in (PERSONAL, "access-1") if secret in shown]


def test_label_studio_with_a_certificate_of_an_own_authority_is_trusted_with_the_setting(certificates):
    with hostile_server(certificates / "server.pem") as server:
        server.routes["/api/current-user/whoami"] = lambda request: request.answer(b'{"username": "ann"}')
        settings = Settings(studio_url=server.url, studio_api_key=PERSONAL, ca_file=certificates / "ca.crt")
        for patient in (True, False):
            with open_studio(settings, patient=patient) as studio:
                assert studio.user() == "ann"
        untrusting = settings.model_copy(update={"ca_file": None})
        with (
            open_studio(untrusting, patient=False) as studio,
            pytest.raises(StudioError, match="certificate"),
        ):
            studio.user()
