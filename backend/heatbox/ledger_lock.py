"""Who conducts: a lock beside the ledger that the system takes back when its owner dies, however it dies.

For SQLite it is a lock on a file (flock), for PostgreSQL an advisory lock of a session. Neither can be forgotten by a
killed process, and a process that merely hangs keeps it, so there are never two owners.
"""

import fcntl
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from sqlalchemy.exc import SQLAlchemyError

from heatbox.ledger import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["LedgerLock"]

_NUMBER = 7_238_002  # of PostgreSQL's advisory lock


class LedgerLock:
    """The right to conduct the runs of a ledger, or the sign that a service does so for good.

    Args:
        ledger: whose runs.
        folder: for the file of a ledger that has no place of its own.
        of_services: the sign; a command that conducts one run takes the right only.
    """

    def __init__(self, ledger: Ledger, folder: Path, *, of_services: bool = False) -> None:
        self._ledger = ledger
        path = ledger.lock_path or folder / "conductor.lock"
        self._path = path.with_name(f"{path.name}.services") if of_services else path
        self._number = _NUMBER + of_services
        self._file: IO[bytes] | None = None
        self._session: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self) -> bool:
        """Return whether we have it, after a try where we did not."""
        return self._take_file() if self._ledger.is_sqlite else self._take_session()

    def release(self) -> None:
        """Let somebody else have it."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._session is not None:
            self._session.invalidate()  # a connection that goes back to the pool would keep the lock
            self._session.close()
            self._session = None

    def _take_file(self) -> bool:
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def _take_session(self) -> bool:
        """Ask for the lock, or whether the session that holds it still lives."""
        try:
            if self._session is not None:
                self._session.exec_driver_sql("SELECT 1")
                return True
            session = self._ledger.connect()
            if session.exec_driver_sql(f"SELECT pg_try_advisory_lock({self._number})").scalar():
                self._session = session
                return True
            session.close()
        except SQLAlchemyError:
            self.release()
        return False
