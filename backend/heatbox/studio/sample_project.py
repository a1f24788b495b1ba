"""A project of Label Studio with the pictures of a folder: made once, found again, and asked for predictions.

Its tasks name local files, which Label Studio serves to its users where a storage of the project holds the folder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from heatbox.errors import StudioRefusedError
from heatbox.studio.client import Project, Studio, StudioTask

__all__ = ["Pictures", "add_tasks", "make_project", "retrieve"]

_TASKS_AT_ONCE = 8  # few enough that Label Studio's 100 seconds and a person's patience suffice

Progress = Callable[[int, int], None]
"""Told how many tasks have been asked for, and how many there are."""


@dataclass(frozen=True)
class Pictures:
    """What a project shows: a folder below Label Studio's document root, and tasks that name files in it."""

    folder: Path
    tasks: Sequence[dict[str, str]]


def make_project(studio: Studio, number: int | None, title: str, label_config: str) -> Project:
    """Return the project of this number; where there is none, a new one.

    Raises:
        StudioRefusedError: Label Studio refuses, for example the label config.
        StudioError: it gives no good answer.
    """
    if number is not None:
        try:
            return studio.project(number)
        except StudioRefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
    path = "/api/projects/"
    match studio.http.post(path, {"title": title, "label_config": label_config}):
        case {"id": int(made)}:
            return studio.project(made)
    raise studio.http.not_understood(path)


def add_tasks(studio: Studio, project: int, pictures: Pictures) -> int:
    """Let the project serve the folder, and import the tasks that it does not have; return how many it has then.

    Raises:
        StudioRefusedError: Label Studio refuses, for example because the folder is not below its document root.
        StudioError: it gives no good answer.
    """
    storages, folder = "/api/storages/localfiles", str(pictures.folder)
    if not any(one.get("path") == folder for one in studio.http.get(storages, {"project": project})):
        storage = {"project": project, "title": "pictures", "path": folder, "use_blob_urls": True}
        studio.http.post(storages, storage)
    known = [dict(task.data) for page in _pages(studio, project, "") for task in page]
    missing = [task for task in pictures.tasks if task not in known]
    if missing:
        studio.http.post(f"/api/projects/{project}/import", missing)
    return studio.count_tasks(project)


def retrieve(studio: Studio, project: int, version: str, progress: Progress) -> tuple[int, int]:
    """Let Label Studio ask its backend for every task without a prediction of this version.

    Returns:
        How many tasks have one now, and how many there are.

    Raises:
        StudioRefusedError: Label Studio refuses.
        StudioError: it gives no good answer.
    """
    tasks = [task for page in _pages(studio, project, version) for task in page]
    wanted = [task.id for task in tasks if not task.has_version]
    path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    for start in range(0, len(wanted), _TASKS_AT_ONCE):
        progress(len(tasks) - len(wanted) + start, len(tasks))
        chosen = {"all": False, "included": wanted[start : start + _TASKS_AT_ONCE]}
        studio.http.post(path, {"selectedItems": chosen})
    return len(studio.stored(project, version, [task.id for task in tasks]).holding), len(tasks)


def _pages(studio: Studio, project: int, version: str) -> Iterator[list[StudioTask]]:
    after = 0
    while page := studio.tasks(project, after_id=after, version=version):
        yield page
        after = page[-1].id
