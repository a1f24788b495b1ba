"""The ledger: what must survive every restart, in SQLite (WAL) or any database that SQLAlchemy reaches.

In this storey it holds the activations of models; runs, items and corrections will stand beside them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from heatbox.errors import SettingsError

__all__ = ["Ledger"]

metadata = MetaData()

activations = Table(
    "activations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("activated_at", DateTime(timezone=True), nullable=False),
)


class Ledger:
    """An open ledger; its tables are made on first use."""

    def __init__(self, url: str) -> None:
        with _translated("opened"):
            self._engine = _engine(url)
            metadata.create_all(self._engine)

    def activate(self, model: str) -> None:
        """Make `name@version` the model that the service uses from its next request on."""
        with _translated("written"), self._engine.begin() as connection:
            connection.execute(activations.insert().values(model=model, activated_at=datetime.now(UTC)))

    def active_model(self) -> str | None:
        """Return `name@version` of the active model, or None before the first activation."""
        with _translated("read"), self._engine.connect() as connection:
            return connection.scalar(select(activations.c.model).order_by(activations.c.id.desc()).limit(1))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


@contextmanager
def _translated(done: str) -> Iterator[None]:
    """Turn a failure of the database into a sentence; SQLAlchemy's own text is kept out, it holds the whole query."""
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise SettingsError(
            f"The ledger cannot be {done}: {reason}.",
            "Check that HEATBOX_HOME can be written and that HEATBOX_DATABASE_URL is right.",
        ) from error


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed)
    event.listen(engine, "connect", _set_sqlite_pragmas)
    return engine


def _set_sqlite_pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 - the DBAPI has no types
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
