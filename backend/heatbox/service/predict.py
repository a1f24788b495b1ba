"""Predicting: tasks -> addresses -> jobs of a few pictures -> outcomes in time -> one answer per task.

Nothing here blocks the event loop and no thread waits for a job, so fifty requests may wait while /health
answers. A request has only so many jobs in the queue at once, so a large one leaves room for others. A job that
fails, or whose worker dies, is split: its pictures are tried once more, one by one, so a bad one costs only its
own task. A Redis that was restarted is asked again, because it may have forgotten. What is not ready in time is
left to a background run, which writes it to Label Studio later, with the same version.
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
from heatbox.errors import (
    DeadlineError,
    HeatboxError,
    InternalError,
    LedgerError,
    RedisUnavailableError,
    TasksFileError,
)
from heatbox.labelling.config import Control, make_label_config, parse_label_config
from heatbox.labelling.predictions import join_predictions, prediction, task_addresses
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox.queueing.job_process import Entry, JobResult
from heatbox.queueing.requests import Batch, Outcome, RequestQueue
from heatbox.runs.records import Runs
from heatbox.runs.tables import NewItem, NewRun
from heatbox.serving import Serving, serve_project
from heatbox.settings import Settings

__all__ = ["Studio", "predict"]

log = logging.getLogger(__name__)

_PICTURES_PER_JOB = 4  # few enough that several workers share one request

_JOBS_AT_ONCE = 32  # of one request

_JOBS_IN_QUEUE = 256  # of all requests; above it they wait here

_TRIES = 2  # together with others, then alone

_OUTAGE_SECONDS = 10.0  # for which a request that has begun waits for a restarted Redis

_GRACE_SECONDS = 1.0  # past the deadline, for a Redis that hangs

_MOST_TASKS = 2**31  # what the ledger's numbers hold
_STUDIO_SECONDS = 120.0  # within which Label Studio has stored our answer, or has given up waiting for it

Prediction = dict[str, Any]

_FAILED: Entry = {"error": InternalError("The job failed.", "The log says why.").as_dict()}


@dataclass(frozen=True)
class Studio:
    """What requests are answered with."""

    settings: Settings
    store: ModelStore
    ledger: Ledger
    queue: RequestQueue

    def serving(self, label_config: str | None) -> Serving:
        """Return what a project with this label config is annotated with; it reads files and the ledger."""
        control = parse_label_config(label_config).control if label_config else None
        return serve_project(self.settings, self.store, self.ledger, control)


async def predict(
    studio: Studio, tasks: Sequence[Any], label_config: str | None, project: int | None = None
) -> list[Prediction | list[Prediction]]:
    """Return one prediction per task, in order; `[]` for one that failed or is not ready.

    The log says which task failed and why, and how many were not ready.

    Args:
        studio: what requests are answered with.
        tasks: as Label Studio stores them.
        label_config: XML; None: every class is a label.
        project: that the tasks belong to; without it nothing can be written later.
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
    pairs = list(zip(tasks, addresses, strict=True))
    late = [(task, some) for task, some in pairs if any(address not in entries for address in some)]
    ready = [task for task, some in pairs if some and all(address in entries for address in some)]
    await _leave_to_runs(studio, serving, label_config, project, ready, late)
    return [_answer(task, some, entries, serving) for task, some in pairs]


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
    config = label_config or make_label_config(serving.control.label_names)
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


async def _entries(
    queue: RequestQueue, pipeline: Pipeline, addresses: Sequence[str], deadline: float
) -> dict[str, Entry]:
    """Return what became of each address by the deadline (`time.monotonic`); a missing one is not ready."""
    batches = [Batch(tuple(some)) for some in _batched(addresses, _PICTURES_PER_JOB)]
    request = _Request(queue, pipeline, deque(batches))
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline - began + _GRACE_SECONDS):
            await request.collect(deadline)
            if request.jobs:
                await asyncio.to_thread(queue.withdraw, list(request.jobs))
    except TimeoutError:
        log.warning("Redis hangs: it did not answer by the deadline")
    except RedisUnavailableError as error:
        log.warning("%s", error)
    return request.entries


@dataclass
class _Request:
    """The jobs of one request: batches not yet submitted, jobs waited for, entries so far."""

    queue: RequestQueue
    pipeline: Pipeline
    waiting: deque[Batch]
    jobs: dict[str, Batch] = field(default_factory=dict)
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
        if free and not self.jobs and await self.queue.length() >= _JOBS_IN_QUEUE:
            await asyncio.sleep(0.2)
            return
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

    def _take(self, batch: Batch, outcome: Outcome) -> None:
        if outcome.result is None:
            log.warning("a job failed: %s", outcome.failure)
            self._strike(batch, batch.addresses, _FAILED)
        elif outcome.result.failure is not None:
            self.entries |= {address: {"error": outcome.result.failure} for address in batch.addresses}
        else:
            self._take_result(batch, outcome.result)

    def _take_result(self, batch: Batch, result: JobResult) -> None:
        pairs = list(zip(batch.addresses, result.entries, strict=True))
        self.entries |= {address: entry for address, entry in pairs if entry is not None}
        suspects = [batch.addresses[index] for index in result.suspects]
        self._strike(batch, suspects, {"error": result.reason or _FAILED["error"]})
        back = tuple(address for address, entry in pairs if entry is None and address not in suspects)
        if back:
            self.waiting.appendleft(Batch(back, batch.attempt + 1))

    def _strike(self, batch: Batch, suspects: Sequence[str], error: Entry) -> None:
        """Try each suspect once more, alone; the second time it has failed."""
        self.failures.update(suspects)
        again = [address for address in suspects if self.failures[address] < _TRIES]
        self.waiting.extendleft(Batch((address,), batch.attempt + 1) for address in again)
        self.entries |= {address: error for address in suspects if address not in again}

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
