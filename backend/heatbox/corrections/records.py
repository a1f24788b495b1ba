"""Corrections in the ledger: written as they are pulled, read as corrected pictures and for the report."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import func, insert, select, update

from heatbox.corrections.corrected import Corrected, Placed
from heatbox.corrections.rows import (
    Correction,
    Written,
    correction_from,
    known_rows,
    later_states,
    write_marks,
    write_task,
)
from heatbox.corrections.tables import TABLES, corrections, projects, tasks
from heatbox.hosts import address_key
from heatbox.labelling.tags import LabelConfig
from heatbox.ledger import Ledger
from heatbox.studio.annotations import counting_annotation
from heatbox.studio.corrections import AnsweredTask, Mark

__all__ = ["Correction", "Corrections", "Written"]

_ROWS = 500  # of one statement


class Corrections:
    """The corrections of every project that a ledger knows.

    Args:
        ledger: keeps them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        ledger.make_tables(*TABLES)

    def pictures(self, studio_url: str, project: int) -> list[Corrected]:
        """Return the corrected pictures of a project, in ascending order of their tasks.

        There is one for each picture of each task that somebody has annotated and not only skipped; of several
        annotations the one counts that `heatbox.studio.annotations.counting_annotation` chooses.
        """
        counting = self.counting(studio_url, project)
        return [_corrected(project, one, item) for one in counting for item in range(len(one.addresses))]

    def counting(self, studio_url: str, project: int) -> list[Correction]:
        """Return the annotation that counts of each task, in ascending order of the tasks."""
        by_task: dict[int, list[Correction]] = {}
        for one in self.annotations(studio_url, project):
            if one.counts:
                by_task.setdefault(one.task, []).append(one)
        return [_counting(some) for _, some in sorted(by_task.items())]

    def annotations(self, studio_url: str, project: int) -> list[Correction]:
        """Return every annotation of a project, deleted ones too, in ascending order of their numbers."""
        with self._ledger.reading() as connection:
            found = connection.execute(
                select(corrections)
                .join(projects, projects.c.id == corrections.c.place)
                .where(projects.c.studio == address_key(studio_url), projects.c.project == project)
                .order_by(corrections.c.annotation)
            )
            return [correction_from(row) for row in found]

    # what a pull does

    def place(self, studio_url: str, project: int) -> int:
        """Return the number under which the ledger has a project of a Label Studio; a new one is made."""
        mine = (projects.c.studio == address_key(studio_url), projects.c.project == project)
        with self._ledger.writing() as connection:
            found = connection.scalar(select(projects.c.id).where(*mine))
            if found is None:
                row = {"studio": address_key(studio_url), "project": project}
                connection.execute(insert(projects).values(**row))
                found = connection.scalar(select(projects.c.id).where(*mine))
        return int(found or 0)

    def cursor(self, place: int) -> str:
        """Return up to which time of Label Studio's clock everything was pulled; empty before the first time."""
        with self._ledger.reading() as connection:
            return connection.scalar(select(projects.c.cursor).where(projects.c.id == place)) or ""

    def move_cursor(self, place: int, cursor: str) -> None:
        """Note that everything was pulled that was changed before a time of Label Studio's clock."""
        with self._ledger.writing() as connection:
            moved = {"cursor": cursor, "pulled_at": time.time()}
            connection.execute(update(projects).where(projects.c.id == place).values(**moved))

    def known_marks(self, place: int, numbers: Sequence[int]) -> dict[int, Mark]:
        """Return the marks of those of the tasks that are known and were not gone."""
        known: dict[int, Mark] = {}
        with self._ledger.reading() as connection:
            for some in _slices(numbers):
                mine = (tasks.c.place == place, tasks.c.task.in_(some), ~tasks.c.gone)
                rows = connection.execute(select(tasks).where(*mine))
                known |= {row.task: Mark(row.task, row.updated_at, row.annotations) for row in rows}
        return known

    def known_tasks(self, place: int, first: int, last: int | None) -> set[int]:
        """Return the tasks from one number to another that are known and were not gone."""
        mine = [tasks.c.place == place, tasks.c.task >= first, ~tasks.c.gone]
        until = [] if last is None else [tasks.c.task <= last]
        with self._ledger.reading() as connection:
            return set(connection.scalars(select(tasks.c.task).where(*mine, *until)))

    def write(self, place: int, read: Sequence[tuple[Mark, AnsweredTask]], config: LabelConfig) -> Written:
        """Write what tasks hold now, all of it or nothing; one of which a later state is known is left as it is.

        Args:
            place: of the project.
            read: tasks, each with the mark that it had before its content was read.
            config: of the project.
        """
        written = Written()
        with self._ledger.writing() as connection:
            later = later_states(connection, place, [mark for mark, _ in read])
            fresh = [(mark, task) for mark, task in read if mark.id not in later]
            known = known_rows(connection, place, [mark.id for mark, _ in fresh])
            for _, task in fresh:
                written += write_task(connection, place, task, config, known)
            write_marks(connection, place, [mark for mark, _ in fresh])
        return written

    def forget_tasks(self, place: int, gone: Iterable[int]) -> Written:
        """Note that tasks are not there any more, with their annotations."""
        numbers, deleted = sorted(gone), 0
        if not numbers:
            return Written()
        with self._ledger.writing() as connection:
            for some in _slices(numbers):
                there = (corrections.c.place == place, corrections.c.task.in_(some))
                ended = update(corrections).where(*there, corrections.c.deleted_at.is_(None))
                deleted += connection.execute(ended.values(deleted_at=time.time())).rowcount
                mine = (tasks.c.place == place, tasks.c.task.in_(some))
                connection.execute(update(tasks).where(*mine).values(gone=True))
        return Written(deleted=deleted)

    def problems(self, place: int) -> dict[str, int]:
        """Return what was not understood of the annotations that are there, and how often."""
        there = (corrections.c.place == place, corrections.c.deleted_at.is_(None))
        counts: dict[str, int] = {}
        with self._ledger.reading() as connection:
            texts = connection.scalars(
                select(corrections.c.problems).where(*there, corrections.c.problems != "{}")
            )
            for text in texts:
                for reason, count in json.loads(text).items():
                    counts[reason] = counts.get(reason, 0) + count
        return counts

    def count(self, place: int) -> int:
        """Return how many annotations are there."""
        there = (corrections.c.place == place, corrections.c.deleted_at.is_(None))
        with self._ledger.reading() as connection:
            return connection.scalar(select(func.count()).select_from(corrections).where(*there)) or 0


def _slices(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _ROWS] for start in range(0, len(numbers), _ROWS))


def _counting(some: Sequence[Correction]) -> Correction:
    ranked = [
        {"one": one, "id": one.annotation, "updated_at": one.updated_at, "ground_truth": one.ground_truth}
        for one in some
    ]
    chosen = counting_annotation(ranked, lambda _: True)
    found: Correction = chosen["one"] if chosen else some[0]
    return found


def _corrected(project: int, one: Correction, item: int) -> Corrected:
    boxes = tuple(Placed(box.label, box.corners) for box in one.boxes if box.item == item)
    chosen = one.labels[item] if item < len(one.labels) else ()
    return Corrected(
        project,
        one.task,
        one.addresses[item],
        tuple(sorted({*chosen, *(box.label for box in boxes)})),
        boxes if one.looked else None,
        tuple(Placed(box.label, box.corners, box.score) for box in one.predicted if box.item == item),
        one.version,
        item,
        one.annotation,
        one.who,
        one.seconds,
        one.updated_at,
    )
