"""What `heatbox studio up` keeps and decides; the running thing is in tests/e2e/test_make_studio.py."""

import signal
import sys
import weakref

import pytest

from heatbox.errors import ServiceError
from heatbox.local_parts import Session, data_folder, free_port, new_session
from heatbox.local_studio import demo_settings, interruptible
from heatbox.settings import Settings
from heatbox.supervisor import listen


def test_a_session_is_read_as_it_was_written_and_only_its_owner_may(tmp_path):
    session = new_session()
    session.write(tmp_path)
    assert Session.read(tmp_path) == session
    assert (tmp_path / "session.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["session.json"]


def test_each_session_has_its_own_password_and_token():
    first, second = new_session(), new_session()
    assert len({first.password, second.password, first.token, second.token}) == 4


def test_an_empty_folder_has_no_session(tmp_path):
    assert Session.read(tmp_path) is None


def test_data_whose_login_is_lost_are_told_as_such(tmp_path):
    data_folder(tmp_path).mkdir(parents=True)
    with pytest.raises(ServiceError, match="is lost"):
        Session.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"username": "x"}'])
def test_a_damaged_session_is_told_as_such(tmp_path, text):
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(ServiceError, match="is damaged"):
        Session.read(tmp_path)


def test_a_taken_port_is_replaced_by_a_free_one():
    with listen("127.0.0.1", 0) as listener:
        taken = listener.getsockname()[1]
        assert free_port(taken) not in {0, taken}
    assert free_port(taken) == taken


@pytest.mark.parametrize(
    ("given", "model", "probability"),
    [({}, "demo", 0.5), ({"model": "mine", "min_probability": 0.25}, "mine", 0.25)],
)
def test_the_demo_is_shown_as_it_was_measured_unless_somebody_says_otherwise(
    tmp_path, given, model, probability
):
    settings = demo_settings(Settings(**given, local_roots=("/srv",)), tmp_path)
    assert (settings.model, settings.min_probability) == (model, probability)
    assert settings.local_roots == (tmp_path,)


def test_an_interrupt_that_python_loses_is_raised_at_the_next_check(monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_type))
    collected = Settings()
    reference = weakref.ref(collected, lambda _: signal.raise_signal(signal.SIGTERM))
    with interruptible() as check:
        check()
        del collected
        assert lost == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            check()
        signal.raise_signal(signal.SIGTERM)  # once is enough: everything is being stopped
    assert reference() is None
