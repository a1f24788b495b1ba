"""Predicting: tasks -> addresses -> what became of their pictures in time -> one answer per task.

A task that cannot be answered costs only itself, whatever is wrong with it. What is not ready in time is left to a
background run, which writes it to Label Studio later, with the same version.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatbox.annotation import Annotation
from heatbox.errors import DeadlineError, HeatboxError, LedgerError, TasksFileError
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.labelling.predictions import evidence_url, prediction
from heatbox.labelling.tags import LabelConfig
from heatbox.labelling.tasks import Prompt, read_prompt, wanted_pictures
from heatbox.ledger import Ledger
from heatbox.logs import place_of
from heatbox.models import ModelStore
from heatbox.queueing.job_process import Entry
from heatbox.queueing.requests import RequestQueue
from heatbox.runs.records import Runs
from heatbox.runs.tables import NewItem, NewRun
from heatbox.service.pictures import pictures_by
from heatbox.serving import Serving, serve_project
from heatbox.settings import Settings

__all__ = ["Studio", "empty_answers", "predict"]

log = logging.getLogger(__name__)

_MOST_TASKS = 2**31  # what the ledger's numbers hold
_STUDIO_SECONDS = 120.0  # within which Label Studio has stored our answer, or has given up waiting for it

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Studio:
    """What requests are answered with."""

    settings: Settings
    store: ModelStore
    ledger: Ledger
    queue: RequestQueue

    def serving(self, label_config: str | None, project: int | None = None) -> Serving:
        """Return what a project with this label config is annotated with; it reads files and the ledger."""
        config = parse_label_config(label_config) if label_config else None
        return serve_project(self.settings, self.store, self.ledger, config, project=project)


async def predict(
    studio: Studio,
    tasks: Sequence[Any],
    label_config: str | None,
    project: int | None = None,
    context: object = None,
) -> list[Prediction | list[Prediction]]:
    """Return one prediction per task, in order; `[]` for one that failed or is not ready.

    The log says which task failed and why, and how many were not ready.

    Args:
        studio: what requests are answered with.
        tasks: as Label Studio stores them.
        label_config: XML; None: every class is a label.
        project: that the tasks belong to; without it scores stay raw, and nothing can be written later.
        context: what a person drew with a smart tool; each answer is then an object, perhaps without regions, and
            nothing is written later.
    """
    deadline = time.monotonic() + studio.settings.predict_deadline
    try:
        serving = await asyncio.to_thread(studio.serving, label_config, project)
        prompt = read_prompt(context, serving.config)
        asked = await asyncio.to_thread(lambda: [_asked(task, serving, prompt) for task in tasks])
        wanted = dict.fromkeys(text for some in asked for text in some.values())
        entries = await pictures_by(deadline, studio.queue, serving.pipeline, list(wanted))
    except HeatboxError as error:
        log.warning("%d tasks cannot be annotated: %s", len(tasks), error)
        return empty_answers(tasks, context)
    pairs = list(zip(tasks, asked, strict=True))
    if prompt is None:
        late = [(task, list(some.values())) for task, some in pairs if some.values() - entries.keys()]
        ready = [task for task, some in pairs if some and not some.values() - entries.keys()]
        await _leave_to_runs(studio, serving, label_config, project, ready, late)
    answers = _Answers(serving, entries, prompt, studio.settings.people_url, project)
    return await asyncio.to_thread(lambda: [answers.of(task, some) for task, some in pairs])


def empty_answers(tasks: Sequence[Any], context: object = None) -> list[Prediction | list[Prediction]]:
    """Return what tasks are answered with where none can be annotated: `[]`, of a prompt an object."""
    is_prompt = isinstance(context, Mapping) and bool(context)
    return [_empty() if is_prompt else [] for _ in tasks]


def _empty(version: str = "") -> Prediction:
    return {"result": [], "score": 0.0, "model_version": version}


async def _leave_to_runs(  # noqa: PLR0913, PLR0917 - a request and what became of it
    studio: Studio,
    serving: Serving,
    label_config: str | None,
    project: int | None,
    ready: Sequence[Any],
    late: Sequence[tuple[Any, Sequence[str]]],
) -> None:
    """Let runs write what was not ready, and wait with what Label Studio is about to store itself."""
    new = [
        NewItem(f"task {task['id']}", tuple(some), task["id"])
        for task, some in late
        if _number(task) is not None
    ]
    answered = [number for task in ready if (number := _number(task)) is not None]
    version = serving.pipeline.version
    if late:
        log.warning(
            "%d of %d tasks were not ready in time (%s)",
            len(late),
            len(late) + len(ready),
            DeadlineError.code,
        )
    if project is None or not studio.settings.studio_url:
        return
    runs = Runs(studio.ledger)
    config = label_config or make_label_config(serving.config.label_names)
    run = NewRun(f"late answers for project {project}", serving.pipeline, config, project, late=True)
    try:
        if answered:
            await asyncio.to_thread(runs.postpone, project, version, answered, _STUDIO_SECONDS)
        if new:
            number = await asyncio.to_thread(runs.add_late, run, new)
            log.info(
                "run %d writes %d tasks of project %d later", number, len(new), project, extra={"run": number}
            )
    except LedgerError as error:  # the answer itself is as good as it was
        log.error("late tasks are not written later: %s", error)  # noqa: TRY400 - the sentence says it all


def _number(task: object) -> int | None:
    number = task.get("id") if isinstance(task, Mapping) else None
    return number if type(number) is int and 0 < number < _MOST_TASKS else None


def _asked(task: object, serving: Serving, prompt: Prompt | None) -> dict[int, str]:
    """Return the pictures of a task by their item indices; of a prompt only the one that it was drawn on."""
    try:
        if not isinstance(task, Mapping):
            raise TasksFileError("A task is no object.", "Send tasks as Label Studio does.")
        wanted = wanted_pictures(task, serving.config, serving.labels)
    except HeatboxError as error:  # the sentence may quote the data, and that may hold a token
        _log_failure(task, f"{error.code}: {error.remedy}")
        return {}
    if prompt is None:
        return {index: one.text for index, one in enumerate(wanted)}
    index = prompt.item_index
    return {index: prompt.asks(wanted[index]).text} if index < len(wanted) else {}


@dataclass(frozen=True)
class _Answers:
    """Makes the answers of one request."""

    serving: Serving
    entries: Mapping[str, Entry]
    prompt: Prompt | None
    people_url: str
    project: int | None

    def of(self, task: object, asked: Mapping[int, str]) -> Prediction | list[Prediction]:
        """Return a task's prediction, `[]` without one; of a prompt an object in any case."""
        try:
            found = self._annotations(task, asked)
            if any(one is not None for one in found):
                page = evidence_url(self.people_url, self.project, _number(task))
                return prediction(found, self._config(), self.serving.pipeline.version, page)
        except Exception as error:  # noqa: BLE001 - one task's answer, perhaps of another version's worker
            _log_failure(task, f"its answer cannot be read: {place_of(error)}")
        return [] if self.prompt is None else _empty(self.serving.pipeline.version)

    def _config(self) -> LabelConfig:
        """Return what is filled: a prompt asks for regions, not for what the whole picture shows."""
        config = self.serving.config
        shapes = tuple(control for control in config.controls if control.kind != "choices")
        return config if self.prompt is None else replace(config, controls=shapes)

    def _annotations(self, task: object, asked: Mapping[int, str]) -> list[Annotation | None]:
        found: list[Annotation | None] = [None] * (max(asked, default=-1) + 1)
        if asked.values() - self.entries.keys():
            return found  # not ready
        for index, text in asked.items():
            entry = self.entries[text]
            if "error" in entry:
                _log_failure(task, "{code}: {message} {remedy}".format_map(entry["error"]))
                continue
            annotation = Annotation.from_dict(entry["annotation"])
            for one in annotation.rejected:
                _log_failure(task, f"rejected a box of {one.region.label}: {one.reason}")
            found[index] = annotation
        return found


def _log_failure(task: object, reason: str) -> None:
    number = task.get("id") if isinstance(task, Mapping) else None
    name = str(number)[:20] if type(number) is int else "without a number"
    log.warning("task %s: %.400s", name, " ".join(reason.split()))
