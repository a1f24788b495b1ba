"""What people made of predictions: a project's annotated tasks, each with its annotations and its predictions.

Read from Label Studio 1.23.2, by cursor as in `heatbox.studio.client`; nothing is written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heatbox.studio.client import Studio
from heatbox.studio.query import as_query, condition

__all__ = ["AnsweredTask", "answered_tasks"]

_PATH = "/api/tasks/"
_PAGE = 100  # tasks with their whole content


@dataclass(frozen=True)
class AnsweredTask:
    """A task that people have annotated: its number, and what Label Studio stores on it."""

    id: int
    annotations: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, Any]]


def answered_tasks(studio: Studio, project: int, page_size: int = _PAGE) -> Iterator[AnsweredTask]:
    """Yield the tasks with an annotation that is no skip, in ascending order, a page in memory at a time.

    Raises:
        StudioError: Label Studio gives no good answer.
        StudioRefusedError: it refuses, for example because it has no such project.
    """
    last = 0
    while True:
        page = _page(studio, project, last, page_size)
        yield from page
        if len(page) < page_size:
            return
        last = page[-1].id


def _page(studio: Studio, project: int, last: int, size: int) -> list[AnsweredTask]:
    conditions = [
        condition("id", "greater", "Number", last),
        condition("total_annotations", "greater", "Number", 0),
    ]
    query = json.dumps(as_query(conditions), separators=(",", ":"))
    content = {"fields": "all", "resolve_uri": "false"}  # without it, annotations and predictions are numbers
    answer = studio.http.get(_PATH, {"project": project, "page_size": size, "query": query, **content})
    match answer:
        case {"tasks": list(rows)}:
            return [AnsweredTask(row["id"], row["annotations"], row["predictions"]) for row in rows]
    raise studio.http.not_understood(_PATH)
