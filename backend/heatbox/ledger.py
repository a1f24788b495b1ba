"""The ledger: what must survive every restart, in SQLite (WAL) or, for several machines, PostgreSQL.

This is the one door to the database. It holds the activations of models; `heatbox.runs` keeps runs and items in it.
In both databases one transaction writes at a time, so whoever writes may rely on what it has read in the same block.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from heatbox.errors import LedgerError

__all__ = ["Ledger", "activations", "metadata"]

metadata = MetaData()

activations = Table(
    "activations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("activated_at", DateTime(timezone=True), nullable=False),
)

_BEGIN_ALONE = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7238001)"}
_DRIVER = "postgresql+psycopg"
# A server that does not answer is given up after about 20 s, and so is, by the server, a machine that does not: what it
# has locked is free again. Of libpq and of the session: https://www.postgresql.org/docs/current/libpq-connect.html
_LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"
    " -c lock_timeout=30s -c idle_in_transaction_session_timeout=60s",
}


class Ledger:
    """An open ledger; its tables are made on first use."""

    def __init__(self, url: str) -> None:
        with _translated("opened"):
            self._engine = _engine(_parsed(url))
            with self._engine.connect() as connection:
                inspect(connection).get_table_names()  # the first question: a file may be no database
        self.make_tables(*metadata.sorted_tables)
        with self.reading() as connection:
            _require_own_tables(connection)

    def make_tables(self, *tables: Table) -> None:
        """Make those of the tables that are not there yet: of a room that was entered after the ledger was opened."""
        with self.reading() as connection:
            there = set(inspect(connection).get_table_names())
        if not there.issuperset(table.name for table in tables):
            with self.writing() as connection:
                metadata.create_all(connection, tables=tables)

    @property
    def is_sqlite(self) -> bool:
        """Whether the ledger is a file of this machine."""
        return self._engine.dialect.name == "sqlite"

    @property
    def lock_path(self) -> Path | None:
        """File beside a SQLite ledger that its conductor locks; None for other databases and in memory."""
        file = self._engine.url.database
        return Path(f"{file}.conductor") if self.is_sqlite and file and file != ":memory:" else None

    def connect(self) -> Connection:
        """Return a connection outside every transaction, which the caller closes.

        Raises:
            LedgerError: the database does not answer.
        """
        with _translated("opened"):
            return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run the block in one transaction: all of it is written, or nothing; other writers wait.

        Raises:
            LedgerError: the database refuses, the disk is full.
        """
        with _translated("written"), self._engine.begin() as connection:
            connection.exec_driver_sql(_BEGIN_ALONE[self._engine.dialect.name])
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Hand out a connection that reads.

        Raises:
            LedgerError: the database does not answer.
        """
        with _translated("read"), self._engine.connect() as connection:
            yield connection

    def activate(self, model: str) -> None:
        """Make `name@version` the model that the service uses from its next request on."""
        with self.writing() as connection:
            connection.execute(activations.insert().values(model=model, activated_at=datetime.now(UTC)))

    def active_model(self) -> str | None:
        """Return `name@version` of the active model, or None before the first activation."""
        with self.reading() as connection:
            return connection.scalar(select(activations.c.model).order_by(activations.c.id.desc()).limit(1))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _require_own_tables(connection: Connection) -> None:
    """Raise where the tables are those of another version: nothing could be written, and no sentence would say why."""
    found = inspect(connection)
    for table in metadata.sorted_tables:
        if {column["name"] for column in found.get_columns(table.name)} != set(table.columns.keys()):
            raise LedgerError(
                f"The ledger was made by another version of heatbox (its table {table.name!r} is another one).",
                "Use that version, or move the ledger away: a new one is made.",
            )


@contextmanager
def _translated(done: str) -> Iterator[None]:
    """Turn a failure of the database into a sentence; SQLAlchemy's own text is kept out, it holds the whole query."""
    try:
        yield
    except ImportError as error:
        raise LedgerError(
            f"The ledger cannot be {done}: {error}.", "For PostgreSQL: pip install 'heatbox[postgresql]'."
        ) from error
    except (DBAPIError, ArgumentError, PoolTimeoutError, OSError) as error:
        raise LedgerError(
            f"The ledger cannot be {done}: {_reason(error)}.",
            "Check that HEATBOX_HOME can be written and has space, and that HEATBOX_DATABASE_URL is right.",
        ) from error


def _reason(error: Exception) -> str:
    """Return what the database said, in one line."""
    said = error.orig if isinstance(error, DBAPIError) else error
    primary = getattr(
        getattr(said, "diag", None), "message_primary", None
    )  # of PostgreSQL, without the query
    return " ".join((primary or str(said)).split()).rstrip(".")


def _parsed(text: str) -> URL:
    """Return the URL, of PostgreSQL always with the driver that we have.

    Raises:
        LedgerError: it names another database, or cannot be read; a password is often the reason, and is not shown.
    """
    try:
        url = make_url(text)
    except ValueError as error:
        raise _unreadable("the port is no number") from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url
    if backend not in {"postgres", "postgresql"}:
        raise LedgerError(
            f"The ledger cannot be opened: it is kept in SQLite or PostgreSQL, not in {backend}.",
            "Write HEATBOX_DATABASE_URL as postgresql://USER:PASSWORD@HOST/DATABASE.",
        )
    if "@" in f"{url.host}{url.database}":
        raise _unreadable("there is more than one @")
    return url.set(drivername=_DRIVER)


def _unreadable(why: str) -> LedgerError:
    return LedgerError(
        f"The ledger cannot be opened: HEATBOX_DATABASE_URL cannot be read, {why}.",
        "In a password write %40 for @, %3A for :, %2F for /, %25 for %.",
    )


def _engine(url: URL) -> Engine:
    if url.drivername == _DRIVER:
        limits = {name: value for name, value in _LIMITS.items() if name not in url.query}
        return create_engine(url, pool_pre_ping=True, connect_args=limits)
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    event.listen(engine, "connect", _set_sqlite_pragmas)
    return engine


def _set_sqlite_pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 - the DBAPI has no types
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
