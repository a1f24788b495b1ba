"""Rows of the ledger's tables of runs, and the values that they become."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Row, bindparam, or_, select, update

from heatbox.pipeline import Pipeline
from heatbox.runs.tables import Computed, Failed, Item, ItemState, NewItem, Run, RunState, items, runs

__all__ = [
    "OPEN",
    "ROWS",
    "computed_row",
    "failed_row",
    "inserted_key",
    "item_from",
    "item_row",
    "known_predictions",
    "run_from",
    "slices",
    "write_over",
]

ROWS = 500  # of one statement
OPEN = (ItemState.WAITING, ItemState.COMPUTED)


def inserted_key(made: CursorResult[Any]) -> int:
    """Return the number of the row that was inserted."""
    keys = made.inserted_primary_key
    return int(keys[0]) if keys else 0


def slices(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the numbers in as many as one statement takes."""
    return (numbers[start : start + ROWS] for start in range(0, len(numbers), ROWS))


def known_predictions(
    connection: Connection, version: str, new: Sequence[NewItem]
) -> dict[str, tuple[str, int]]:
    """Return predictions and box counts by fingerprint that earlier runs made with this version."""
    rows = connection.execute(
        select(items.c.fingerprint, items.c.prediction, items.c.boxes)
        .join(runs, runs.c.id == items.c.run)
        .where(
            items.c.fingerprint.in_([one.fingerprint for one in new if one.fingerprint]),
            items.c.state.in_((ItemState.DONE, ItemState.KEPT)),
            items.c.prediction.is_not(None),
            runs.c.version == version,
        )
    )
    return {row.fingerprint: (row.prediction, row.boxes) for row in rows}


def item_row(run: int, new: NewItem, known: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Return the row of a new item; a prediction that is known makes it kept."""
    prediction, boxes = known.get(new.fingerprint or "", (None, None))
    state = ItemState.FAILED if new.code else ItemState.WAITING
    return {
        "run": run,
        "state": ItemState.KEPT if new.kept or prediction else state,
        "name": _storable(new.name),
        "task": new.task,
        "addresses": json.dumps(new.addresses),
        "content": None if new.content is None else json.dumps(new.content),
        "fingerprint": new.fingerprint,
        "prediction": prediction,
        "boxes": boxes,
        "code": new.code,
        "reason": None if new.reason is None else _storable(new.reason),
        "changed_at": time.time(),
    }


def computed_row(one: Computed, state: ItemState, now: float) -> dict[str, Any]:
    """Return what an annotated item's row becomes."""
    return {
        "b_id": one.item,
        "state": state,
        "prediction": json.dumps(one.prediction),
        "boxes": len(one.prediction["result"]),
        "seconds": one.seconds,
        "code": None,
        "reason": None,
        "changed_at": now,
    }


def failed_row(one: Failed, now: float) -> dict[str, Any]:
    """Return what a failed item's row becomes."""
    return {
        "b_id": one.item,
        "state": ItemState.FAILED,
        "prediction": None,
        "code": one.code,
        "reason": _storable(one.reason),
        "changed_at": now,
    }


def _storable(text: str) -> str:
    """Return a text as every database takes it: a file name may be no Unicode, a plugin's message may hold anything."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def write_over(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write each row over the open item of its id; one that has come to an end stays as it is."""
    if rows:
        is_open = or_(*(items.c.state == state for state in OPEN))  # IN cannot be executed for many rows
        where = (items.c.id == bindparam("b_id"), is_open)
        connection.execute(update(items).where(*where), rows)


def run_from(row: Row[Any]) -> Run:
    """Return the run of a row."""
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    del values["version"]
    values["pipeline"] = Pipeline.from_dict(json.loads(row.pipeline))
    values["filter"] = json.loads(row.filter)
    values["state"] = RunState(row.state)
    return Run(**values)


def item_from(row: Row[Any]) -> Item:
    """Return the item of a row."""
    return Item(
        row.id,
        row.run,
        ItemState(row.state),
        row.name,
        row.task,
        tuple(json.loads(row.addresses)),
        None if row.content is None else json.loads(row.content),
        row.strikes,
        row.alone,
        None if row.prediction is None else json.loads(row.prediction),
        row.code,
        row.reason,
    )
