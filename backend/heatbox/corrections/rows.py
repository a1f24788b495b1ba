"""Rows of the tables of corrections: written task by task, and the values that they become."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from heatbox.corrections.comparing import Verdict
from heatbox.corrections.reading import boxes_from, correction_row
from heatbox.corrections.tables import corrections, tasks
from heatbox.labelling.tags import LabelConfig
from heatbox.studio.corrections import AnsweredTask, Mark
from heatbox.studio.regions import BoxRegion

__all__ = [
    "Correction",
    "Written",
    "correction_from",
    "known_rows",
    "later_states",
    "write_marks",
    "write_task",
]


@dataclass(frozen=True)
class Correction:
    """One annotation as the ledger has it, deleted or not.

    Attributes:
        task: number in Label Studio.
        annotation: number in Label Studio.
        addresses: of the task's pictures.
        created_at: when the person submitted it; ISO 8601.
        updated_at: when it was changed last.
        who: number of the person; None: not known.
        seconds: that the person took; None: not known.
        skipped: whether the person skipped the task.
        ground_truth: whether it is marked so.
        version: of the prediction that the person was shown; empty: there was none.
        explainer: that the version names.
        source: how it is known what was shown: parent, older, regions or none.
        predicted: boxes that the person was shown.
        boxes: that are there now.
        labels: choices, for each picture.
        looked: whether the person looked for boxes.
        verdicts: what became of each box.
        problems: what was not understood, and how often.
        deleted_at: when its end was noticed, in seconds since 1970; None: it is there.
    """

    task: int
    annotation: int
    addresses: tuple[str, ...]
    created_at: str
    updated_at: str
    who: int | None
    seconds: float | None
    skipped: bool
    ground_truth: bool
    version: str
    explainer: str
    source: str
    predicted: tuple[BoxRegion, ...]
    boxes: tuple[BoxRegion, ...]
    labels: tuple[tuple[str, ...], ...]
    looked: bool
    verdicts: tuple[Verdict, ...]
    problems: Mapping[str, int]
    deleted_at: float | None

    @property
    def counts(self) -> bool:
        """Whether it is there and no skip."""
        return not self.skipped and self.deleted_at is None


@dataclass(frozen=True)
class Written:
    """How many annotations a page of tasks brought: new ones, changed ones, and ones that are gone."""

    new: int = 0
    changed: int = 0
    deleted: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(self.new + other.new, self.changed + other.changed, self.deleted + other.deleted)


def correction_from(row: Row[Any]) -> Correction:
    """Return an annotation from its row."""
    values = {name: value for name, value in row._asdict().items() if name not in {"id", "place"}}
    return Correction(
        **{
            **values,
            "addresses": tuple(json.loads(row.addresses)),
            "predicted": boxes_from(row.predicted),
            "boxes": boxes_from(row.boxes),
            "labels": tuple(tuple(some) for some in json.loads(row.labels)),
            "verdicts": tuple(Verdict.from_dict(one) for one in json.loads(row.verdicts)),
            "problems": json.loads(row.problems),
        }
    )


def later_states(connection: Connection, place: int, marks: Sequence[Mark]) -> set[int]:
    """Return the tasks of which another pull has written a later state meanwhile."""
    wanted = {mark.id: mark for mark in marks}
    rows = connection.execute(
        select(tasks.c.task, tasks.c.updated_at).where(tasks.c.place == place, tasks.c.task.in_(wanted))
    )
    return {row.task for row in rows if row.updated_at > wanted[row.task].updated_at}


def known_rows(
    connection: Connection, place: int, numbers: Sequence[int]
) -> dict[int, dict[int, dict[str, Any]]]:
    """Return the rows that are there by task and annotation."""
    mine = (corrections.c.place == place, corrections.c.task.in_(numbers))
    known: dict[int, dict[int, dict[str, Any]]] = {}
    for row in connection.execute(select(corrections).where(*mine)):
        known.setdefault(row.task, {})[row.annotation] = row._asdict()
    return known


def write_task(
    connection: Connection,
    place: int,
    task: AnsweredTask,
    config: LabelConfig,
    known: Mapping[int, Mapping[int, dict[str, Any]]],
) -> Written:
    """Write what a task holds now, and return what that changed."""
    before = known.get(task.id, {})
    listed = [one for one in task.annotations if isinstance(one, Mapping) and type(one.get("id")) is int]
    rows = {one["id"]: correction_row(task, one, config, before.get(one["id"])) for one in listed}
    new = [{"place": place, **row} for number, row in rows.items() if number not in before]
    changed = {
        number: row
        for number, row in rows.items()
        if number in before and any(before[number][name] != value for name, value in row.items())
    }
    gone = [number for number, row in before.items() if number not in rows and row["deleted_at"] is None]
    if new:
        connection.execute(insert(corrections), new)
    for number, row in changed.items():
        mine = (corrections.c.place == place, corrections.c.annotation == number)
        connection.execute(update(corrections).where(*mine).values(**row))
    if gone:
        mine = (corrections.c.place == place, corrections.c.annotation.in_(gone))
        connection.execute(update(corrections).where(*mine).values(deleted_at=time.time()))
    return Written(len(new), len(changed), len(gone))


def write_marks(connection: Connection, place: int, marks: Sequence[Mark]) -> None:
    """Write the marks of tasks whose annotations were written."""
    if marks:
        numbers = [mark.id for mark in marks]
        connection.execute(delete(tasks).where(tasks.c.place == place, tasks.c.task.in_(numbers)))
        rows = [
            {"place": place, "task": one.id, "updated_at": one.updated_at, "annotations": one.annotations}
            for one in marks
        ]
        connection.execute(insert(tasks), rows)
