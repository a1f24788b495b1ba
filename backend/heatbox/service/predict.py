"""Predicting: tasks -> addresses -> jobs of a few pictures -> outcomes in time -> one answer per task.

Nothing here blocks the event loop and no thread waits for a job, so fifty requests may wait while /health
answers. A request has only so many jobs in the queue at once, so a large one leaves room for others. A job that
fails, or whose worker dies, is split: its pictures are tried once more, one by one, so a bad one costs only its
own task. A Redis that was restarted is asked again, because it may have forgotten.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from heatbox.annotation import Annotation
from heatbox.errors import DeadlineError, HeatboxError, InternalError, RedisUnavailableError, TasksFileError
from heatbox.label_config import Control, parse_label_config
from heatbox.label_studio import join_predictions, prediction, task_addresses
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox.queue import JobQueue, Outcome
from heatbox.serving import Serving, serve_project
from heatbox.settings import Settings

__all__ = ["Studio", "predict"]

log = logging.getLogger(__name__)

_PICTURES_PER_JOB = 4  # few enough that several workers share one request

_JOBS_AT_ONCE = 32  # of one request

_TRIES = 2  # together with others, then alone

_OUTAGE_SECONDS = 10.0  # for which a request that has begun waits for a restarted Redis

_GRACE_SECONDS = 1.0  # past the deadline, for a Redis that hangs

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
    studio: Studio, tasks: Sequence[Any], label_config: str | None
) -> list[Prediction | list[Prediction]]:
    """Return one prediction per task, in order; `[]` for one that failed or is not ready.

    The log says which task failed and why, and how many were not ready.
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
    late = sum(any(address not in entries for address in some) for some in addresses)
    if late:
        log.warning("%d of %d tasks were not ready in time (%s)", late, len(tasks), DeadlineError.code)
    return [_answer(task, some, entries, serving) for task, some in zip(tasks, addresses, strict=True)]


async def _entries(
    queue: JobQueue, pipeline: Pipeline, addresses: Sequence[str], deadline: float
) -> dict[str, Entry]:
    """Return what became of each address by the deadline (`time.monotonic`); a missing one is not ready."""
    request = _Request(queue, pipeline, deque(_batched(addresses, _PICTURES_PER_JOB)))
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline - began + _GRACE_SECONDS):
            await request.collect(deadline)
    except TimeoutError:
        log.warning("Redis hangs: it did not answer by the deadline")
    except RedisUnavailableError as error:
        log.warning("%s", error)
    return request.entries


@dataclass
class _Request:
    """The jobs of one request: batches of addresses not yet submitted, jobs waited for, entries so far."""

    queue: JobQueue
    pipeline: Pipeline
    waiting: deque[Sequence[str]]
    jobs: dict[str, Sequence[str]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    patient_until: float = 0.0  # `time.monotonic`; an outage of Redis is sat out until then

    async def collect(self, deadline: float) -> None:
        """Fill the entries until the deadline; an outage of Redis after the first jobs is sat out."""
        while (self.waiting or self.jobs) and time.monotonic() < deadline:
            try:
                await self._step(deadline)
            except RedisUnavailableError:
                if time.monotonic() > min(self.patient_until, deadline):
                    raise
                self._ask_again()
                await asyncio.sleep(0.2)

    async def _step(self, deadline: float) -> None:
        free = min(_JOBS_AT_ONCE - len(self.jobs), len(self.waiting))
        batches = list(islice(self.waiting, free))
        self.jobs |= await self.queue.submit_all(self.pipeline, batches)
        self.patient_until = time.monotonic() + _OUTAGE_SECONDS
        for _ in batches:
            self.waiting.popleft()
        outcomes = await self.queue.wait(self.jobs, max(0.0, deadline - time.monotonic()))
        for job_id, outcome in outcomes.items():
            self._take(self.jobs.pop(job_id), outcome)
        if not outcomes:  # for seconds: has Redis forgotten them? Those that it has are only joined.
            self._ask_again()

    def _take(self, asked: Sequence[str], outcome: Outcome) -> None:
        if outcome.failure is None:
            self.entries |= zip(asked, outcome.value, strict=True)
            return
        log.warning("a job failed: %s", outcome.failure)
        self.failures.update(asked)
        self.waiting.extendleft([one] for one in asked if self.failures[one] < _TRIES)
        self.entries |= {one: _FAILED for one in asked if self.failures[one] >= _TRIES}

    def _ask_again(self) -> None:
        self.waiting.extendleft(self.jobs.values())
        self.jobs.clear()


def _batched(addresses: Sequence[str], size: int) -> list[list[str]]:
    remaining = iter(addresses)
    return list(iter(lambda: list(islice(remaining, size)), []))


def _addresses(task: object, control: Control) -> list[str]:
    try:
        if not isinstance(task, Mapping):
            raise TasksFileError("A task is no object.", "Send tasks as Label Studio does.")
        return task_addresses(task, control)
    except HeatboxError as error:  # the sentence may quote the data, and that may hold a token
        _log_failure(task, f"{error.code}: {error.remedy}")
        return []


def _answer(
    task: object, addresses: Sequence[str], entries: Mapping[str, Entry], serving: Serving
) -> Prediction | list[Prediction]:
    if not all(address in entries for address in addresses):
        return []
    found: list[Prediction] = []
    for index, address in enumerate(addresses):
        entry = entries[address]
        if "error" in entry:
            _log_failure(task, "{code}: {message} {remedy}".format_map(entry["error"]))
            continue
        annotation = Annotation.from_dict(entry["annotation"])
        for one in annotation.rejected:
            _log_failure(task, f"rejected a box of {one.region.label}: {one.reason}")
        item = index if serving.control.value_list else None
        found.append(prediction(annotation, serving.control, serving.pipeline.version, item))
    return join_predictions(found) if found else []


def _log_failure(task: object, reason: str) -> None:
    number = task.get("id", "without id") if isinstance(task, Mapping) else "without id"
    log.warning("task %.40s: %.400s", *(" ".join(str(text).split()) for text in (number, reason)))
