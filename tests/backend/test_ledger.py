"""The ledger: what was activated stays, for every process, and what goes wrong is a sentence."""

import subprocess
import sys
from contextlib import closing

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.pool import NullPool

from heatbox.errors import SettingsError
from heatbox.ledger import Ledger, activations

ACTIVATE = """
import sys
from heatbox.ledger import Ledger
for model in sys.argv[2:]:
    Ledger(sys.argv[1]).activate(model)
"""

FULL_DISK = """
import resource, signal, sys
from heatbox.errors import SettingsError
from heatbox.ledger import Ledger

ledger = Ledger(sys.argv[1])
ledger.activate("tiny@1")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    ledger.activate("tiny@2")
except SettingsError as error:
    print(error)
"""


@pytest.fixture
def url(tmp_path):
    """The URL of a ledger that nobody has opened yet, in a folder that is not there yet."""
    return f"sqlite:///{tmp_path / 'home' / 'ledger.sqlite'}"


def start(url, *models):
    return subprocess.Popen([sys.executable, "-c", ACTIVATE, url, *models])


def test_before_the_first_activation_no_model_is_active(url):
    with closing(Ledger(url)) as ledger:
        assert ledger.active_model() is None


def test_the_last_activated_model_is_active_also_after_reopening(url):
    with closing(Ledger(url)) as ledger:
        ledger.activate("tiny@1")
        ledger.activate("tiny@2")
        assert ledger.active_model() == "tiny@2"
    with closing(Ledger(url)) as reopened:
        assert reopened.active_model() == "tiny@2"
        reopened.activate("tiny@1")
        assert reopened.active_model() == "tiny@1"


def test_an_open_ledger_sees_what_another_process_activates(url):
    with closing(Ledger(url)) as ledger:
        ledger.activate("ours@1")
        assert start(url, "theirs@1").wait() == 0
        assert ledger.active_model() == "theirs@1"


def test_processes_that_write_at_once_wait_for_each_other(url):
    Ledger(url).close()
    models = [[f"m{process}@{number}" for number in range(20)] for process in range(3)]
    assert [process.wait() for process in [start(url, *some) for some in models]] == [0, 0, 0]
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(activations)) == 60


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "URL"),
        ("nonsense:secret@host", "URL"),
        ("nosuchdatabase://u:secret@host/db", "nosuchdatabase"),
        ("oracle+nosuchdriver://u:secret@host/db", "nosuchdriver"),
        ("sqlite:////proc/heatbox/ledger.sqlite", "No such file or directory"),
        ("sqlite:////dev/null/ledger.sqlite", "File exists|Not a directory"),
    ],
)
def test_an_unusable_url_is_told_without_its_password(url, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        Ledger(url)
    assert caught.value.sentence.startswith("The ledger cannot be opened: ")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("not a database" * 100)
    with pytest.raises(SettingsError, match="The ledger cannot be opened: file is not a database"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_a_full_disk_is_told_and_the_old_activation_stays(url):
    script = [sys.executable, "-c", FULL_DISK, url]
    answer = subprocess.run(script, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("settings: The ledger cannot be written: ")
    with closing(Ledger(url)) as ledger:
        assert ledger.active_model() == "tiny@1"


def test_a_table_that_is_gone_is_told(url):
    with closing(Ledger(url)) as ledger:
        engine = create_engine(url, poolclass=NullPool)
        activations.drop(engine)
        with pytest.raises(SettingsError, match="The ledger cannot be read: no such table"):
            ledger.active_model()
