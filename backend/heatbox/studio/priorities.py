"""What to label next, as Label Studio's data manager can sort by it: a key of its own in the data of a task.

`data["heatbox_next"]` is a place, 1 first, as text of five digits: Label Studio compares data as text, unless a person
tells it that the column holds numbers, and five digits are in the right order either way. Tasks without a place come
last. Why a key of the data: docs/adr/0014-places-in-task-data.md.

A task is written as a whole, so it is read again right before; the rest of its data stays as it is.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from heatbox.errors import StudioRefusedError
from heatbox.studio.client import Studio
from heatbox.studio.query import as_query, condition

__all__ = ["KEY", "MOST_PLACES", "ListedTask", "Written", "list_tasks", "place_text", "write_places"]

KEY = "heatbox_next"
MOST_PLACES = 99_999

_PATH = "/api/tasks/"
_PAGE = 500
_READ_BEFORE = 50  # tasks that are read at once before they are written one by one
_FIELDS = "id,data,total_annotations,cancelled_annotations"


@dataclass(frozen=True)
class ListedTask:
    """A task as far as its place matters.

    Attributes:
        id: its number.
        data: what it shows; addresses of storages are not resolved.
        is_open: whether nobody has annotated or skipped it.
    """

    id: int
    data: Mapping[str, Any]
    is_open: bool


@dataclass
class Written:
    """What writing places came to: tasks that got or lost one, that had it already, and that could not be written."""

    given: int = 0
    taken: int = 0
    unchanged: int = 0
    refused: int = 0


def place_text(place: int) -> str:
    """Return what is written for a place, from 1."""
    return f"{place:05}"


def list_tasks(studio: Studio, project: int, page_size: int = _PAGE) -> Iterator[ListedTask]:
    """Yield the tasks of a project in ascending order, a page in memory at a time; no prediction is asked for.

    Raises:
        StudioError: Label Studio gives no good answer.
        StudioRefusedError: it refuses, for example because it has no such project.
    """
    last = 0
    while True:
        after = condition("id", "greater", "Number", last)
        page = _listed(studio, project, after, page_size)
        yield from page
        if len(page) < page_size:
            return
        last = page[-1].id


def write_places(
    studio: Studio,
    project: int,
    places: Mapping[int, int | None],
    told: Callable[[], object] = lambda: None,
) -> Written:
    """Give tasks their places; what has its place already is not written, so a second time changes nothing.

    Args:
        studio: where they are.
        project: their number.
        places: by task, from 1; None: it shall have none.
        told: called after each task.

    Raises:
        StudioError: Label Studio gives no good answer; what was written stays, and the rest is written next time.
        StudioRefusedError: it refuses for another reason than one task.
    """
    written = Written()
    ordered = sorted(places)
    for start in range(0, len(ordered), _READ_BEFORE):
        numbers = ordered[start : start + _READ_BEFORE]
        among = condition("id", "in_list", "List", numbers)
        for task in _listed(studio, project, among, len(numbers)):
            _write(studio, task, places[task.id], written)
            told()
    return written


def _write(studio: Studio, task: ListedTask, place: int | None, written: Written) -> None:
    wanted = {} if place is None else {KEY: place_text(place)}
    if {name: value for name, value in task.data.items() if name == KEY} == wanted:
        written.unchanged += 1
        return
    data = {**{name: value for name, value in task.data.items() if name != KEY}, **wanted}
    try:
        studio.http.patch(f"{_PATH}{task.id}/", {"data": data})
    except StudioRefusedError as error:  # it is gone meanwhile, or its data does not suit the label config
        if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
            raise
        written.refused += 1
        return
    written.given += place is not None
    written.taken += place is None


def _listed(studio: Studio, project: int, wanted: Mapping[str, Any], size: int) -> list[ListedTask]:
    query = json.dumps(as_query([wanted]), separators=(",", ":"))
    # Without `review` a project may be set up to ask for predictions whenever tasks are listed.
    how: dict[str, str | int] = {
        "include": _FIELDS,
        "resolve_uri": "false",
        "review": "true",
        "page_size": size,
    }
    answer = studio.http.get(_PATH, {**how, "project": project, "query": query})
    match answer:
        case {"tasks": list(rows)}:
            return list(_tasks(rows))
    raise studio.http.not_understood(_PATH)


def _tasks(rows: Iterable[Mapping[str, Any]]) -> Iterator[ListedTask]:
    for row in rows:
        touched = row["total_annotations"] or row["cancelled_annotations"]
        yield ListedTask(row["id"], row["data"], not touched)
