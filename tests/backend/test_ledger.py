"""The ledger: what was activated stays, for every process, and what goes wrong is a sentence."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from threading import Barrier, BrokenBarrierError

import pytest
from fixtures_postgres import POSTGRES_PASSWORD
from sqlalchemy import create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from heatbox.errors import LedgerError
from heatbox.ledger import Ledger, activations

ACTIVATE = """
import sys
from heatbox.ledger import Ledger
for model in sys.argv[2:]:
    Ledger(sys.argv[1]).activate(model)
"""

WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None
from heatbox.errors import LedgerError
from heatbox.ledger import Ledger
try:
    Ledger(sys.argv[1])
except LedgerError as error:
    print(error)
"""

FULL_DISK = """
import resource, signal, sys
from heatbox.errors import LedgerError
from heatbox.ledger import Ledger

ledger = Ledger(sys.argv[1])
ledger.activate("tiny@1")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    ledger.activate("tiny@2")
except LedgerError as error:
    print(error)
"""


@pytest.fixture
def url(ledger_url):
    return ledger_url


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
        ("oracle://u:secret@host/db", "in SQLite or PostgreSQL, not in oracle"),
        ("postgresql://u:secret@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://u:secret@nobody.invalid/db", "resolve host"),
        ("postgresql://u:half@secret@127.0.0.1:1/db", "more than one @"),
        ("postgresql://u:half@secret:x@127.0.0.1:1/db", "the port is no number"),
        ("postgresql://u:secret@127.0.0.1:1/db?sslmode=secrecy", "invalid sslmode"),
        ("sqlite:////proc/heatbox/ledger.sqlite", "No such file or directory"),
        ("sqlite:////dev/null/ledger.sqlite", "File exists|Not a directory"),
    ],
)
def test_an_unusable_url_is_told_without_its_password(url, reason):
    with pytest.raises(LedgerError, match=reason) as caught:
        Ledger(url)
    assert caught.value.sentence.startswith("The ledger cannot be opened: ")
    assert "secret@" not in str(caught.value)
    assert "half" not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("not a database" * 100)
    with pytest.raises(LedgerError, match="The ledger cannot be opened: file is not a database"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_a_full_disk_is_told_and_the_old_activation_stays(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    script = [sys.executable, "-c", FULL_DISK, url]
    answer = subprocess.run(script, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("ledger: The ledger cannot be written: ")
    with closing(Ledger(url)) as ledger:
        assert ledger.active_model() == "tiny@1"


def test_a_table_that_is_gone_is_told(url):
    with closing(Ledger(url)) as ledger:
        engine = create_engine(url, poolclass=NullPool)
        others = " CASCADE" if engine.dialect.name == "postgresql" else ""  # other tables may refer to it
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {activations.name}{others}")
        with pytest.raises(LedgerError, match=r"The ledger cannot be read: [a-z\" :]+activations[a-z\" ]*\."):
            ledger.active_model()


def test_processes_that_make_the_tables_at_once_all_succeed(url):
    assert [process.wait() for process in [start(url, "tiny@1") for _ in range(4)]] == [0] * 4


def test_a_wrong_password_is_told_without_it(postgres_url):
    wrong = make_url(postgres_url).set(password="wr@ng").render_as_string(hide_password=False)  # noqa: S106
    with pytest.raises(LedgerError, match="password authentication failed") as caught:
        Ledger(wrong)
    assert not any(secret in str(caught.value) for secret in ("wr@ng", "wr%40ng", POSTGRES_PASSWORD))


def test_what_the_database_refuses_is_told_without_the_query_and_the_password(postgres_url):
    with closing(Ledger(postgres_url)) as ledger:
        with pytest.raises(LedgerError) as caught:
            ledger.activate("x" * 201)
        assert caught.value.sentence == (
            "The ledger cannot be written: value too long for type character varying(200)."
        )
        assert ledger.active_model() is None


def test_without_the_driver_the_remedy_says_what_to_install(postgres_url):
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_DRIVER, postgres_url], capture_output=True, text=True, check=True
    )
    assert "pip install 'heatbox[postgresql]'" in answer.stdout
    assert answer.stdout.startswith("ledger: The ledger cannot be opened: ")


def test_a_server_that_is_started_again_is_used_again(postgres_server, postgres_url):
    with closing(Ledger(postgres_url)) as ledger:
        ledger.activate("tiny@1")
        postgres_server.stop()
        with pytest.raises(LedgerError, match="The ledger cannot be read: "):
            ledger.active_model()
        postgres_server.start()
        assert ledger.active_model() == "tiny@1"


def test_one_block_writes_at_a_time(url):
    """What a block has read is still so when it writes."""

    both_have_read = Barrier(2)

    def write_once(_):
        with ledger.writing() as connection:
            count = connection.scalar(select(func.count()).select_from(activations))
            with suppress(BrokenBarrierError):
                both_have_read.wait(0.3)
            if count == 0:
                connection.execute(
                    activations.insert().values(model="once@1", activated_at=datetime.now(UTC))
                )

    with closing(Ledger(url)) as ledger, ThreadPoolExecutor(2) as threads:
        list(threads.map(write_once, range(2)))
        with ledger.reading() as connection:
            assert connection.scalar(select(func.count()).select_from(activations)) == 1


def test_a_ledger_of_another_version_is_refused_with_a_sentence(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with closing(Ledger(url)) as ledger, ledger.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE items ADD COLUMN colour TEXT NOT NULL DEFAULT ''")
    with pytest.raises(LedgerError, match=r"made by another version of heatbox .* 'items'"):
        Ledger(url)
