"""A pull: what people made of predictions comes out of Label Studio into the ledger. Nothing is written there.

Tasks are listed by pages with the time of their last change only; content is read of those whose mark the ledger does
not have. The cursor, Label Studio's own time, moves when all pages are written, to the newest change that there was
before the first one. So a pull that is killed loses nothing: the next one lists again and reads what is missing. A pull
of changes lists what was changed since a minute before the cursor, for transactions that end late and clocks that
differ; a whole one lists every task, and so finds deleted tasks, which no cursor sees.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from heatbox.corrections.records import Corrections, Written
from heatbox.labelling.config import parse_label_config
from heatbox.labelling.tags import LabelConfig
from heatbox.studio.client import Studio
from heatbox.studio.corrections import AnsweredTask, Mark, listed_marks, newest_change, whole_tasks

__all__ = ["Pulled", "pull"]

_CONTENTS = 100  # tasks that are read and written together
_OVERLAP = timedelta(seconds=60)


@dataclass(frozen=True)
class Pulled:
    """What a pull brought.

    Attributes:
        new: annotations that were not known.
        changed: annotations that are otherwise than they were.
        deleted: annotations that are not there any more.
        annotations: that are there now.
        listed: tasks whose time of change was looked at.
        read: tasks whose content was read.
        not_understood: reasons, and how often, of the annotations that are there now.
    """

    new: int = 0
    changed: int = 0
    deleted: int = 0
    annotations: int = 0
    listed: int = 0
    read: int = 0
    not_understood: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def pull(  # noqa: PLR0913 - what a pull may be told
    studio: Studio,
    corrections: Corrections,
    project: int,
    *,
    whole: bool = True,
    again: bool = False,
    page_size: int = 1000,
    tell: Callable[[int], None] = lambda _: None,
) -> Pulled:
    """Bring the ledger up to what Label Studio holds of a project.

    Args:
        studio: is read only.
        corrections: of the ledger.
        project: number in Label Studio.
        whole: list every task, so that deleted tasks are noticed; else only what changed since the last pull.
        again: read every annotated task, also where nothing has changed.
        page_size: tasks that are listed at once.
        tell: is told how many tasks have been listed so far.

    Raises:
        StudioError: Label Studio gives no good answer; what was read until then is in the ledger.
        StudioRefusedError: it refuses, for example because it has no such project.
        LabelConfigError: the project has no label config that heatbox understands.
        LedgerError: the ledger cannot be written.
    """
    config = parse_label_config(studio.project(project).label_config)
    place = corrections.place(studio.http.url, project)
    cursor = corrections.cursor(place)
    newest = newest_change(
        studio, project
    )  # before the first page: what changes meanwhile is for the next time
    since = "" if whole or again or not cursor else _earlier(cursor)
    one = _Pull(studio, corrections, project, place, config, again=again)
    for page, first, last in _ranges(listed_marks(studio, project, since, page_size)):
        one.take(page, first, last, whole=not since)
        tell(one.listed)
    if newest:
        corrections.move_cursor(place, newest)
    return one.pulled()


@dataclass
class _Pull:
    """One pull on its way."""

    studio: Studio
    corrections: Corrections
    project: int
    place: int
    config: LabelConfig
    again: bool
    written: Written = field(default_factory=Written)
    listed: int = 0
    read: int = 0

    def take(self, page: Sequence[Mark], first: int, last: int | None, *, whole: bool) -> None:
        """Write what a page of marks says; where all tasks were listed, those between that are missing are gone."""
        self.listed += len(page)
        known = self.corrections.known_marks(self.place, [mark.id for mark in page])
        if whole:
            missing = self.corrections.known_tasks(self.place, first, last) - {mark.id for mark in page}
            self.written += self.corrections.forget_tasks(self.place, missing)
        wanted = [mark for mark in page if self._is_wanted(mark, known.get(mark.id))]
        for start in range(0, len(wanted), _CONTENTS):
            self._read(wanted[start : start + _CONTENTS])

    def pulled(self) -> Pulled:
        """Return what was brought."""
        problems = self.corrections.problems(self.place)
        there = self.corrections.count(self.place)
        written = self.written
        return Pulled(written.new, written.changed, written.deleted, there, self.listed, self.read, problems)

    def _is_wanted(self, mark: Mark, known: Mark | None) -> bool:
        is_changed = mark != known and bool(mark.annotations or known)
        return is_changed or (self.again and bool(mark.annotations))

    def _read(self, marks: Sequence[Mark]) -> None:
        found: dict[int, AnsweredTask] = {
            task.id: task for task in whole_tasks(self.studio, self.project, [mark.id for mark in marks])
        }
        self.read += len(found)
        read = [(mark, found[mark.id]) for mark in marks if mark.id in found]
        self.written += self.corrections.write(self.place, read, self.config)
        gone = [mark.id for mark in marks if mark.id not in found]
        if gone:
            self.written += self.corrections.forget_tasks(self.place, gone)


def _ranges(
    pages: Iterator[tuple[list[Mark], bool]],
) -> Iterator[tuple[list[Mark], int, int | None]]:
    """Yield pages with the numbers of tasks that they answer for; the last answers for all further ones."""
    first = 0
    for page, is_last in pages:
        last = None if is_last else page[-1].id
        yield page, first, last
        first = (last or 0) + 1


def _earlier(cursor: str) -> str:
    """Return a time of Label Studio's clock, some time before."""
    at = datetime.fromisoformat(cursor).astimezone(UTC) - _OVERLAP
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
