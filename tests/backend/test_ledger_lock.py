"""The right to conduct: one owner at a time, in each database, and free again when the owner is gone."""

import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest
from fixtures_redis import wait_until

from heatbox.errors import LedgerError
from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock

OWN = """
import sys, time
from pathlib import Path
from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock
lock = LedgerLock(Ledger(sys.argv[1]), Path(sys.argv[2]))
print(lock.take(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def lock(ledger_url, tmp_path):
    with closing(Ledger(ledger_url)) as ledger, LedgerLock(ledger, tmp_path) as lock:
        yield lock


@contextmanager
def an_owner(url, folder):
    """Another process that has the lock."""
    command = [sys.executable, "-c", OWN, url, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_one_process_owns_it_until_it_is_killed(lock, ledger_url, tmp_path):
    with an_owner(ledger_url, tmp_path) as owner:
        assert not lock.take()
        owner.kill()
        killed = time.monotonic()
        wait_until(lock.take, "the lock is free", 5)
        assert time.monotonic() - killed < 1


def test_a_process_that_hangs_keeps_it(lock, ledger_url, tmp_path):
    with an_owner(ledger_url, tmp_path) as owner:
        owner.send_signal(signal.SIGSTOP)
        assert not lock.take()


def test_it_stays_with_its_owner_and_is_free_after_the_release(lock, ledger_url, tmp_path):
    with closing(Ledger(ledger_url)) as ledger, LedgerLock(ledger, tmp_path) as other:
        assert lock.take()
        assert lock.take()
        assert not other.take()
        lock.release()
        wait_until(other.take, "the lock is free", 5)
        assert not lock.take()


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_owner_whose_server_is_started_again_is_no_owner_any_more(
    lock, ledger_url, tmp_path, postgres_server
):
    assert lock.take()
    postgres_server.stop()
    postgres_server.start()
    with closing(Ledger(ledger_url)) as ledger, LedgerLock(ledger, tmp_path) as other:
        assert other.take()
        assert not lock.take()
        assert not lock.take()


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_without_a_server_nobody_owns_it(lock, postgres_server):
    assert lock.take()
    postgres_server.stop()
    try:
        assert not lock.take()
        with pytest.raises(LedgerError, match="The ledger cannot be opened: "):
            lock.take()
    finally:
        postgres_server.start()
    assert lock.take()
