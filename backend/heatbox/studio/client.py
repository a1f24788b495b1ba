"""What a run asks of Label Studio and tells it: projects, tasks by cursor, predictions. The one door to its API.

Read from Label Studio 1.23.2 (`data_manager`, `tasks`, `data_import`) and tested against it. Tasks are listed as the
data manager does, in ascending order from a number on, so tasks that come and go meanwhile shift nothing. The
models that predicted are asked for by name: the column `predictions_model_versions` costs no content. That column
is cut after 500 characters; where it may be, the database is asked by a regular expression instead.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from heatbox.errors import StudioAmbiguousError, StudioRefusedError
from heatbox.studio.http import StudioHTTP
from heatbox.studio.query import (
    VERSIONS,
    Row,
    as_query,
    condition,
    is_or,
    once,
    page_query,
    takes,
    twice,
    versions,
    with_versions,
)
from heatbox.studio.task_filter import TaskFilter

__all__ = ["MOST_PUSHED", "Project", "Stored", "Studio", "StudioTask", "is_own"]

MOST_PUSHED = 500
"""So many predictions at most are stored together or not at all, whatever way Label Studio is set up."""

_OWN = re.compile(r"heatbox-[A-Za-z0-9_.-]+-[A-Za-z0-9_.-]+-[0-9a-f]{10}")
_FIELDS = f"id,data,is_labeled,total_predictions,{VERSIONS}"
_WHOLE = ""  # tasks as they are: with a list of fields, annotations are numbers only
_IDS_PER_REQUEST = 200  # they stand in the address, which servers limit to 4 KiB
_CONTENTS_PER_REQUEST = 100
_COUNTED_PER_REQUEST = 1000
_EVERY = TaskFilter()


@dataclass(frozen=True)
class Project:
    """A project: its number, title, label config, and the model version whose predictions it shows."""

    id: int
    title: str
    label_config: str
    model_version: str


@dataclass(frozen=True)
class StudioTask:
    """A task as `/predict` gets it: addresses of storages are not resolved.

    Attributes:
        id: its number.
        data: what it shows.
        has_version: whether a prediction of the version that was asked for is stored on it.
        is_labeled: whether Label Studio counts it as labelled.
        annotations: what people answered, where it was asked for.
    """

    id: int
    data: Mapping[str, Any]
    has_version: bool
    is_labeled: bool
    annotations: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the task as `/predict` gets it, as far as it was read."""
        return {"id": self.id, "data": self.data, "annotations": list(self.annotations)}


@dataclass(frozen=True)
class Stored:
    """What Label Studio stores on some tasks.

    Attributes:
        existing: the tasks that the project has; others were deleted, or never were.
        holding: those with a prediction of the version.
        older: those that may have a prediction of another version of heatbox.
        duplicates: numbers of the predictions, ascending, of the tasks with several of the version.
    """

    existing: frozenset[int] = frozenset()
    holding: frozenset[int] = frozenset()
    older: frozenset[int] = frozenset()
    duplicates: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


class Studio:
    """The client; a context manager that closes its connections.

    Args:
        url: address of Label Studio, with the path below which it is installed.
        api_key: personal access token, or legacy token.
        timeout: seconds that an answer may take.
        delays: seconds before the second, third, ... try of a reading request.
        ca_file: further CA certificates (PEM) to trust.

    Every method raises StudioError where Label Studio gives no good answer, and StudioRefusedError where it refuses
    what is asked, for example because a number is unknown.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 120.0,
        delays: Sequence[float] = (0.5, 2.0),
        ca_file: Path | None = None,
    ) -> None:
        self._http = StudioHTTP(url, api_key, timeout, delays, ca_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"Studio({self._http.url!r})"

    @property
    def http(self) -> StudioHTTP:
        """The requests themselves, for what only one module asks (`heatbox.studio.connection`)."""
        return self._http

    def user(self) -> str:
        """Return the name under which Label Studio knows the token's owner."""
        return str(self._http.get("/api/current-user/whoami", {})["username"])

    def project(self, number: int) -> Project:
        """Return the project."""
        path = f"/api/projects/{number}/"
        answer = self._http.get(path, {"include": "title,label_config,model_version"})
        match answer:
            case {"title": str(title), "label_config": str(config), "model_version": version}:
                return Project(number, title, config, str(version or ""))
        raise self._http.not_understood(path)

    def count_tasks(self, project: int, filters: TaskFilter = _EVERY) -> int:
        """Return how many tasks the filter takes."""
        view = self._view(project, filters)
        by_itself = replace(filters, view=None) == _EVERY
        if len(filters.ids) > 1 or (is_or(view) and not by_itself):
            return sum(len(rows) for rows in self._pages(project, filters, view, 0, _COUNTED_PER_REQUEST))
        return int(self._list(project, page_query(view, filters, filters.next_id(0) or 0), "id", 1)["total"])

    def tasks(  # noqa: PLR0913 - what a page of tasks is
        self,
        project: int,
        filters: TaskFilter = _EVERY,
        after_id: int = 0,
        *,
        version: str = "",
        page_size: int = 500,
        annotations: bool = False,
    ) -> list[StudioTask]:
        """Return the next tasks that the filter takes, in ascending order; none when there are no more.

        Args:
            project: number of the project.
            filters: which tasks.
            after_id: the last task of the page before.
            version: whose predictions `has_version` means.
            page_size: at most so many.
            annotations: whether their annotations are read too.
        """
        view = self._view(project, filters)
        rows = next(self._pages(project, filters, view, after_id, page_size), [])
        answers = self._annotations(project, [row["id"] for row in rows]) if annotations else {}
        unsure = [row["id"] for row in rows if versions(row) is None]
        holding = self._matching(project, unsure, once(version)) if version else frozenset()
        return [
            StudioTask(
                row["id"],
                row["data"],
                row["id"] in holding or version in (versions(row) or ()),
                row["is_labeled"],
                answers.get(row["id"], ()),
            )
            for row in rows
        ]

    def stored(self, project: int, version: str, task_ids: Sequence[int]) -> Stored:
        """Return which of the tasks exist and which hold predictions of exactly this version."""
        rows = {
            row["id"]: versions(row)
            for chunk in _chunks(task_ids, _IDS_PER_REQUEST)
            for row in self._rows(project, chunk, f"id,{VERSIONS}")
        }
        unsure = [task_id for task_id, names in rows.items() if names is None]
        certain = {task_id for task_id, names in rows.items() if version in (names or ())}
        several = self._matching(project, list(rows), twice(version))
        return Stored(
            existing=frozenset(rows),
            holding=self._matching(project, unsure, once(version)) | certain,
            older=frozenset(
                task_id
                for task_id, names in rows.items()
                if names is None or any(is_own(name) and name != version for name in names)
            ),
            duplicates={
                task_id: tuple(sorted(number for number, name in found if name == version))
                for task_id, found in self.predictions(project, sorted(several)).items()
            },
        )

    def predictions(self, project: int, task_ids: Sequence[int]) -> dict[int, list[tuple[int, str]]]:
        """Return number and model version of each prediction of these tasks; their content is sent along unused."""
        return {
            row["id"]: [(found["id"], found["model_version"] or "") for found in row["predictions"]]
            for chunk in _chunks(task_ids, _CONTENTS_PER_REQUEST)
            for row in self._rows(project, chunk, "id,predictions", fields="all")
        }

    def task(self, project: int, number: int) -> StudioTask:
        """Return one task of a project, with its annotations; whether it has a version is not asked.

        It is listed and not read: whoever reads a task without predictions lets Label Studio ask for one and store it.

        Raises:
            StudioRefusedError: there is none of this number in the project; status 404.
        """
        query = as_query([condition("id", "equal", "Number", number)])
        # Without `review` a project may be set up to ask for predictions whenever tasks are listed.
        page = self._list(project, query, _WHOLE, 1, fields="all", review="true")
        for row in page["tasks"]:
            return StudioTask(number, row["data"], False, row["is_labeled"] is True, row["annotations"])  # noqa: FBT003 - not asked
        raise _no_task(project, number)

    def _annotations(self, project: int, task_ids: Sequence[int]) -> dict[int, list[Mapping[str, Any]]]:
        return {
            row["id"]: row["annotations"]
            for chunk in _chunks(task_ids, _CONTENTS_PER_REQUEST)
            for row in self._rows(project, chunk, _WHOLE, fields="all")
        }

    def push(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Store predictions and return how many were; a Label Studio that is not strict drops wrong ones silently.

        Args:
            project: number of the project.
            predictions: each with `task`, `model_version`, `result` and `score`. Above `MOST_PUSHED` some may be
                stored although the rest is refused.

        Raises:
            StudioAmbiguousError: they may have been stored, or not; `stored` tells.
            StudioError: none was stored.
            StudioRefusedError: none was stored, for example because one of the tasks is gone.
        """
        path = f"/api/projects/{project}/import/predictions"
        match self._http.post(path, list(predictions)):
            case {"created": int(created)}:
                return created
        raise self._http.not_understood(path, StudioAmbiguousError)

    def delete_prediction(self, number: int) -> None:
        """Delete a prediction; one that is gone already is fine."""
        self._http.delete(f"/api/predictions/{number}/")

    def _view(self, project: int, filters: TaskFilter) -> Row:
        """Return the filters of the saved view, without those that were never filled in."""
        if filters.view is None:
            return {"conjunction": "and", "items": []}
        view = self._http.get(f"/api/dm/views/{filters.view}/", {})
        if view.get("project") != project:
            raise StudioRefusedError(
                f"View {filters.view} belongs to project {view.get('project')}, not {project}.",
                "Take the number behind tab= in the address of the project's data manager.",
            )
        saved = (view.get("data") or {}).get("filters") or {}
        filled_in = [one for one in saved.get("items") or [] if one.get("value") is not None]
        conditions = {"conjunction": saved.get("conjunction", "and"), "items": filled_in}
        if is_or(conditions) and any(one.get("child_filter") for one in filled_in):
            raise StudioRefusedError(
                f"The filters of view {filters.view} are joined by 'or' and nested, which cannot be combined.",
                "Save a view without nested filters.",
            )
        return conditions

    def _pages(
        self, project: int, filters: TaskFilter, view: Row, after_id: int, page_size: int
    ) -> Iterator[list[Row]]:
        """Yield pages with at least one task each, until there are no more."""
        first = filters.next_id(after_id)
        while first is not None:
            page = self._list(project, page_query(view, filters, first), _FIELDS, page_size)
            rows = {row["id"]: row for row in page["tasks"]}
            taken = [row for row in rows.values() if takes(filters, row)]
            if taken:
                yield taken
            if not rows or page["total"] <= len(page["tasks"]):
                return
            first = filters.next_id(max(rows))

    def _rows(
        self,
        project: int,
        task_ids: Sequence[int],
        included: str,
        *conditions: Row,
        **more: str,
    ) -> Iterator[Row]:
        """Yield what is listed of these tasks, as many as exist and meet the conditions."""
        wanted = list(task_ids)
        while wanted:
            query = as_query([condition("id", "in_list", "List", wanted), *conditions])
            page = self._list(project, query, included, len(wanted), **more)
            yield from page["tasks"]
            if page["total"] <= len(page["tasks"]) or not page["tasks"]:
                return
            last = max(row["id"] for row in page["tasks"])
            wanted = [task_id for task_id in wanted if task_id > last]

    def _matching(self, project: int, task_ids: Sequence[int], expression: str) -> frozenset[int]:
        """Return the tasks whose list of model versions, with repetitions, matches."""
        matching = condition(VERSIONS, "regex", "String", expression)
        return frozenset(
            row["id"]
            for chunk in _chunks(task_ids, _IDS_PER_REQUEST)
            for row in self._rows(project, chunk, "id", matching)
        )

    def _list(self, project: int, query: Row, included: str, page_size: int, **more: str) -> Row:
        """Return one page of tasks, and how many there are, with these fields and nothing else."""
        text = json.dumps(with_versions(query) if VERSIONS in included else query, separators=(",", ":"))
        params: dict[str, str | int] = {"project": project, "page_size": page_size}
        if included != _WHOLE:
            params["include"] = included
        answer = self._http.get("/api/tasks/", {**params, "resolve_uri": "false", "query": text, **more})
        match answer:
            case {"tasks": list(), "total": int()}:
                return dict(answer)
        raise self._http.not_understood("/api/tasks/")


def _no_task(project: int, number: int) -> StudioRefusedError:
    error = StudioRefusedError(
        f"Project {project} of Label Studio has no task {number}.",
        "Check the numbers, and that the token's user may see the project.",
    )
    error.status = HTTPStatus.NOT_FOUND
    return error


def is_own(model_version: str) -> bool:
    """Return whether the version has exactly the form of `Pipeline.version`, and so is heatbox's to remove."""
    return _OWN.fullmatch(model_version) is not None


def _chunks(task_ids: Iterable[int], size: int) -> Iterator[list[int]]:
    ordered = sorted(set(task_ids))
    return (ordered[start : start + size] for start in range(0, len(ordered), size))
