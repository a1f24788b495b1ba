"""Predicting: tasks -> addresses -> jobs of a few pictures -> outcomes in time -> one answer per task.

Nothing here blocks the event loop and no thread waits for a job, so fifty requests may wait while /health
answers. A job that fails, or whose worker dies, is split: its pictures are tried once more, one by one, so a bad
one costs only its own task.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from heatbox.annotation import Annotation
from heatbox.errors import DeadlineError, HeatboxError, InternalError
from heatbox.label_config import Control, parse_label_config
from heatbox.label_studio import join_predictions, prediction, task_addresses
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox.queue import JobQueue
from heatbox.serving import Serving, serve_project
from heatbox.settings import Settings

__all__ = ["Studio", "predict"]

log = logging.getLogger(__name__)

_PICTURES_PER_JOB = 4  # few enough that several workers share one request

_TRIES = 2  # together with others, then alone

Entry = Mapping[str, Any]  # {"annotation": ...} or {"error": {"code", "message", "remedy"}}
Prediction = dict[str, Any]

_FAILED: Entry = {"error": InternalError("The job failed.", "The log says why.").as_dict()}


@dataclass(frozen=True)
class Studio:
    """What requests are answered with."""

    settings: Settings
    store: ModelStore
    ledger: Ledger
    queue: JobQueue

    def serving(self, label_config: str | None) -> Serving:
        """Return what a project with this label config is annotated with; it reads files and the ledger."""
        control = parse_label_config(label_config).control if label_config else None
        return serve_project(self.settings, self.store, self.ledger, control)


async def predict(
    studio: Studio, tasks: Sequence[Mapping[str, Any]], label_config: str | None
) -> list[Prediction | list[Prediction]]:
    """Return one prediction per task, in order; `[]` for one that failed or is not ready.

    The log says which task failed and why, by code.
    """
    deadline = time.monotonic() + studio.settings.predict_deadline
    try:
        serving = await asyncio.to_thread(studio.serving, label_config)
        addresses = [_addresses(task, serving.control) for task in tasks]
        wanted = dict.fromkeys(address for some in addresses for address in some)
        entries = await _entries(studio.queue, serving.pipeline, list(wanted), deadline)
    except HeatboxError as error:
        log.warning("%d tasks cannot be annotated: %s", len(tasks), error)
        return [[] for _ in tasks]
    return [_answer(task, some, entries, serving) for task, some in zip(tasks, addresses, strict=True)]


async def _entries(
    queue: JobQueue, pipeline: Pipeline, addresses: Sequence[str], deadline: float
) -> dict[str, Entry]:
    """Return what became of each address by the deadline (`time.monotonic`); a missing one is not ready."""
    jobs = await _submit(queue, pipeline, _batched(addresses, _PICTURES_PER_JOB))
    entries: dict[str, Entry] = {}
    failures = Counter[str]()
    while jobs and (seconds := deadline - time.monotonic()) > 0:
        for job_id, outcome in (await queue.wait(jobs, seconds)).items():
            asked = jobs.pop(job_id)
            if outcome.failure is None:
                entries |= zip(asked, outcome.value, strict=True)
                continue
            log.warning("job %s failed: %s", job_id, outcome.failure)
            failures.update(asked)
            jobs |= await _submit(queue, pipeline, [[one] for one in asked if failures[one] < _TRIES])
            entries |= {one: _FAILED for one in asked if failures[one] >= _TRIES}
    return entries


async def _submit(
    queue: JobQueue, pipeline: Pipeline, batches: Sequence[Sequence[str]]
) -> dict[str, Sequence[str]]:
    job_ids = await asyncio.to_thread(lambda: [queue.submit(pipeline, batch) for batch in batches])
    return dict(zip(job_ids, batches, strict=True))


def _batched(addresses: Sequence[str], size: int) -> list[list[str]]:
    remaining = iter(addresses)
    return list(iter(lambda: list(islice(remaining, size)), []))


def _addresses(task: Mapping[str, Any], control: Control) -> list[str]:
    try:
        return task_addresses(task, control)
    except HeatboxError as error:
        _log_failure(task, error.code)
        return []


def _answer(
    task: Mapping[str, Any], addresses: Sequence[str], entries: Mapping[str, Entry], serving: Serving
) -> Prediction | list[Prediction]:
    found: list[Prediction] = []
    for index, address in enumerate(addresses):
        entry = entries.get(address)
        if entry is None:
            _log_failure(task, DeadlineError.code)
            return []
        if "error" in entry:
            _log_failure(task, entry["error"]["code"])
            continue
        annotation = Annotation.from_dict(entry["annotation"])
        item = index if serving.control.value_list else None
        found.append(prediction(annotation, serving.control, serving.pipeline.version, item))
    return join_predictions(found) if found else []


def _log_failure(task: Mapping[str, Any], code: str) -> None:
    log.warning("task %.40s: %s", task.get("id", "without id"), code)
