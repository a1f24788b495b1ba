"""What people made of predictions: a project's annotated tasks, each with its annotations and its predictions.

Read from Label Studio 1.23.2, by cursor as in `heatbox.studio.client`; nothing is written. There, every change of an
annotation and every deletion of one moves the task's `updated_at`; bulk imports of predictions do not. A deleted task
is only seen by its absence. No task is read by its own address, because that lets Label Studio ask for predictions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heatbox.studio.client import Studio
from heatbox.studio.query import as_query, condition

__all__ = ["AnsweredTask", "Mark", "answered_tasks", "listed_marks", "newest_change", "whole_tasks"]

_PATH = "/api/tasks/"
_PAGE = 100  # tasks with their whole content
_MARKS = "id,updated_at,total_annotations,cancelled_annotations"


@dataclass(frozen=True)
class AnsweredTask:
    """A task that people have annotated: its number, and what Label Studio stores on it."""

    id: int
    annotations: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """By what a change of a task is seen: its number, when it was changed, how many annotations and skips it has."""

    id: int
    updated_at: str
    annotations: int = 0


def answered_tasks(studio: Studio, project: int, page_size: int = _PAGE) -> Iterator[AnsweredTask]:
    """Yield the tasks with an annotation that is no skip, in ascending order, a page in memory at a time.

    Raises:
        StudioError: Label Studio gives no good answer.
        StudioRefusedError: it refuses, for example because it has no such project.
    """
    answered = condition("total_annotations", "greater", "Number", 0)
    for page in _pages(studio, project, [answered], page_size, fields="all"):
        yield from map(_whole, page)


def listed_marks(
    studio: Studio, project: int, since: str = "", page_size: int = 1000
) -> Iterator[tuple[list[Mark], bool]]:
    """Yield the marks of tasks in ascending order, by pages, each with whether it is the last.

    Args:
        studio: to be asked.
        project: number of the project.
        since: only tasks that were changed then or later; empty: all.
        page_size: at most so many are asked for at once.

    Raises:
        StudioError: Label Studio gives no good answer.
        StudioRefusedError: it refuses.
    """
    changed = [condition("updated_at", "greater_or_equal", "Datetime", since)] if since else []
    last: list[Mark] | None = None
    for page in _pages(studio, project, changed, page_size, include=_MARKS):
        if last is not None:
            yield last, False
        last = [_mark(row) for row in page]
    yield last or [], True


def newest_change(studio: Studio, project: int) -> str:
    """Return when a task of the project was changed last, by Label Studio's clock; empty where it has none."""
    query = {**as_query([]), "ordering": ["-tasks:updated_at"]}
    rows, _ = _page(studio, project, query, 1, include=_MARKS)
    return max((_mark(row).updated_at for row in rows), default="")


def whole_tasks(studio: Studio, project: int, task_ids: Sequence[int]) -> list[AnsweredTask]:
    """Return these tasks with their content, as many as there still are; ask for a hundred at most."""
    chosen = condition("id", "in_list", "List", list(task_ids))
    pages = _pages(studio, project, [chosen], len(task_ids), fields="all")
    return [_whole(row) for page in pages for row in page]


def _pages(
    studio: Studio, project: int, conditions: Sequence[Mapping[str, Any]], size: int, **more: str
) -> Iterator[list[Mapping[str, Any]]]:
    """Yield pages in ascending order of the tasks' numbers; a server may give less at once than it is asked for."""
    last, is_over = 0, False
    while not is_over:
        query = as_query([condition("id", "greater", "Number", last), *conditions])
        rows, total = _page(studio, project, query, size, **more)
        is_over = not rows or total <= len(rows)
        if rows:
            yield rows
            last = max(row["id"] for row in rows)


def _page(
    studio: Studio, project: int, query: Mapping[str, Any], size: int, **more: str
) -> tuple[list[Mapping[str, Any]], int]:
    text = json.dumps(query, separators=(",", ":"))
    # Without `review` a project may be set up to ask for predictions whenever tasks are listed.
    wanted = {"query": text, "resolve_uri": "false", "review": "true", **more}
    match studio.http.get(_PATH, {"project": project, "page_size": size, **wanted}):
        case {"tasks": list(rows), "total": int(total)}:
            return rows, total
    raise studio.http.not_understood(_PATH)


def _whole(row: Mapping[str, Any]) -> AnsweredTask:
    data = row.get("data")
    return AnsweredTask(
        row["id"], row["annotations"], row["predictions"], data if isinstance(data, Mapping) else {}
    )


def _mark(row: Mapping[str, Any]) -> Mark:
    counts = (row.get("total_annotations"), row.get("cancelled_annotations"))
    return Mark(row["id"], str(row["updated_at"]), sum(one for one in counts if type(one) is int))
