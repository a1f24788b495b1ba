"""How chunks of background runs reach a worker: over Redis to any number of them, or to one process of our own.

A lane carries work and outcomes and remembers nothing that matters: what it loses is asked for again.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from rq.job import Job, JobStatus
from rq.results import Result

from heatbox.pipeline import Pipeline
from heatbox.queueing.job_process import JobProcess, JobResult
from heatbox.queueing.queues import (
    BATCH,
    AllowedJob,
    alive_key,
    connect,
    enqueue,
    listening_workers,
    open_queue,
    translated,
)

__all__ = ["Lane", "LocalJobs", "LocalLane", "Lost", "RedisJobs", "RedisLane"]

Outcome = TypeVar("Outcome")
Wish = TypeVar("Wish")

_JOB_SECONDS = 6 * 3600  # a picture's own limit is much shorter
_RESULT_SECONDS = 24 * 3600  # a full disk may keep the ledger from taking it for long
_WITHDRAWN_SECONDS = 3600  # for which a worker can see that nobody wants the job any more
_MISSING_LOOKS = 3  # in a row: then a job on no list is lost; on its way between two lists it is so once
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Lost:
    """A job that will have no result.

    Attributes:
        with_worker: whether a worker had begun it and was never heard of again; otherwise Redis forgot it, or it was
            taken back.
        reason: for the log.
    """

    with_worker: bool
    reason: str


class Lane(Protocol):
    """What the conductor needs of a lane; every call may raise `RedisUnavailableError`."""

    def capacity(self) -> int:
        """Return how many chunks may be under way, the ones that wait for a worker included."""

    def submit(self, job: str, pipeline: Pipeline, addresses: Sequence[str]) -> None:
        """Hand over a chunk under the id of a job."""

    def outcomes(self, jobs: Collection[str]) -> Mapping[str, JobResult | Lost]:
        """Return what became of the jobs that have ended; the others are under way."""

    def withdraw(self, jobs: Collection[str]) -> None:
        """Take back jobs that have not begun, and ask those that have to end after the pictures in hand."""

    def forget(self, job: str) -> None:
        """Let go of a job whose outcome is in the ledger."""

    def wait(self, seconds: float) -> None:
        """Wait so long at most, or until there may be an outcome."""

    def close(self) -> None:
        """Let go of everything."""


class RedisJobs(Generic[Outcome]):
    """Jobs on a queue of Redis, and what becomes of them.

    Args:
        url: of Redis.
        queue: name of the queue.
        read: makes the outcome of a job's result; a TypeError or KeyError means that it is none of this version's.
    """

    def __init__(self, url: str, queue: str, read: Callable[[Any], Outcome]) -> None:
        self._connection = connect(url, 5.0)
        self._queue = open_queue(self._connection, queue)
        self._read = read
        self._missing: dict[str, tuple[int, float]] = {}

    def outcomes(self, jobs: Collection[str]) -> Mapping[str, Outcome | Lost]:
        """Ask Redis for the jobs' states and for the results of those that have ended."""
        if not jobs:
            return {}
        with translated():
            names = list(jobs)
            found = AllowedJob.fetch_many(names, self._connection, serializer=self._queue.serializer)
            known = {name: self._outcome(name, job) for name, job in zip(names, found, strict=True)}
        self._missing = {name: seen for name, seen in self._missing.items() if name in known}
        return {name: outcome for name, outcome in known.items() if outcome is not None}

    def withdraw(self, jobs: Collection[str]) -> None:
        """Cancel the jobs: a queued one is off the queue at once, a worker sees it at the next picture."""
        with translated():
            found = AllowedJob.fetch_many(list(jobs), self._connection, serializer=self._queue.serializer)
            for job in found:
                if job is None or job.get_status(refresh=False) is JobStatus.CANCELED:
                    continue
                if job.get_status(refresh=False) is JobStatus.QUEUED:
                    self._queue.remove(job.id)
                job.set_status(JobStatus.CANCELED)
                self._connection.expire(job.key, _WITHDRAWN_SECONDS)

    def forget(self, job: str) -> None:
        """Delete the job with its result: those of a long run would fill Redis."""
        with translated():
            found = AllowedJob.fetch_many([job], self._connection, serializer=self._queue.serializer)[0]
            if found is not None:
                found.delete()
                Result.delete_all(found)

    def wait(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _outcome(self, name: str, job: Job | None) -> Outcome | Lost | None:
        if job is None:
            return Lost(with_worker=False, reason="Redis has forgotten it")
        result = Result.fetch_latest(job, serializer=self._queue.serializer)
        if result is not None and result.type is Result.Type.SUCCESSFUL:
            return self._understood(result.return_value)
        status = job.get_status(refresh=False)
        if self._is_under_way(name, status):  # also one that a worker whose clock is ahead calls abandoned
            self._missing.pop(name, None)
            return None
        if status is JobStatus.FAILED:
            began = job.started_at is not None
            return Lost(
                with_worker=began, reason="its worker was lost" if began else "it failed before it began"
            )
        if not self._is_missing(name):
            return None
        began = status is JobStatus.STARTED
        return Lost(with_worker=began, reason="its worker was lost" if began else "it is on no list")

    def _understood(self, value: Any) -> Outcome | Lost:  # noqa: ANN401 - what a worker wrote, perhaps of another version
        try:
            return self._read(value)
        except (TypeError, KeyError):
            return Lost(with_worker=False, reason="its result is none of this version's")

    def _is_under_way(self, name: str, status: JobStatus | None) -> bool:
        """Return whether a worker shows that the job lives, or the job waits on a list."""
        if self._connection.exists(alive_key(name)):
            return True
        if status is not JobStatus.QUEUED:
            return False
        lists = (self._queue.key, self._queue.intermediate_queue_key)
        return any(self._connection.lpos(key, name) is not None for key in lists)

    def _is_missing(self, name: str) -> bool:
        """Return whether the job has been looked for in vain several times, some time apart."""
        count, last = self._missing.get(name, (0, 0.0))
        if time.monotonic() - last > _LOOK_SECONDS:
            count, last = count + 1, time.monotonic()
            self._missing[name] = count, last
        return count >= _MISSING_LOOKS


class RedisLane(RedisJobs[JobResult]):
    """The queue of background work; any number of `heatbox work` take from it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, BATCH, JobResult.from_dict)

    def capacity(self) -> int:
        """Return two chunks for each worker that listens and one more; more would make later runs wait."""
        return 2 * max(listening_workers(self._connection, BATCH), 1) + 1

    def submit(self, job: str, pipeline: Pipeline, addresses: Sequence[str]) -> None:
        """Put the chunk on the queue."""
        with translated():
            enqueue(
                self._queue,
                job,
                pipeline,
                addresses,
                timeout=_JOB_SECONDS,
                queued_seconds=None,
                result_seconds=_RESULT_SECONDS,
                failure_seconds=_RESULT_SECONDS,
            )


@dataclass
class LocalJobs(ABC, Generic[Wish, Outcome]):
    """Jobs for one process of our own, where there is no Redis: what waits for it, and what became of the rest."""

    process: JobProcess
    _waiting: dict[str, Wish] = field(default_factory=dict, kw_only=True)
    _current: str | None = field(default=None, kw_only=True)
    _ended: dict[str, Outcome | Lost] = field(default_factory=dict, kw_only=True)

    def wait(self, seconds: float) -> None:
        """Take the process's messages; return when its job is over."""
        if self._current is None:
            time.sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            result = self._poll(left)
            if result is not None:
                self._ended[self._current] = result
                self._current = None
                self._go_on()
                return

    def close(self) -> None:
        """End the process."""
        self.process.close()

    @abstractmethod
    def _poll(self, seconds: float) -> Outcome | None:
        """Return what became of the job under way; None where it goes on after these seconds."""

    @abstractmethod
    def _go_on(self) -> None:
        """Begin the next job, where none is under way."""


class LocalLane(LocalJobs[tuple[Pipeline, Sequence[str]], JobResult]):
    """One job process of our own, where there is no Redis; chunks wait here for it."""

    def capacity(self) -> int:
        """Return two: one under way and the next."""
        return 2

    def submit(self, job: str, pipeline: Pipeline, addresses: Sequence[str]) -> None:
        """Let the chunk wait for the process."""
        self._waiting[job] = pipeline, addresses
        self._go_on()

    def outcomes(self, jobs: Collection[str]) -> Mapping[str, JobResult | Lost]:
        """Return what has ended; a job of an earlier process is not known here."""
        mine = {*self._waiting, self._current}
        gone = Lost(with_worker=False, reason="it belonged to a process that is gone")
        return {job: self._ended.pop(job, gone) for job in jobs if job in self._ended or job not in mine}

    def withdraw(self, jobs: Collection[str]) -> None:
        """Forget waiting chunks and ask for the end of the one under way."""
        for job in jobs:
            self._waiting.pop(job, None)
        if self._current in jobs:
            self.process.ask_to_stop()

    def forget(self, job: str) -> None:
        """Do nothing: an outcome is handed out once."""

    def _poll(self, seconds: float) -> JobResult | None:
        return self.process.poll(seconds)

    def _go_on(self) -> None:
        if self._current is None and self._waiting:
            self._current = next(iter(self._waiting))
            pipeline, addresses = self._waiting.pop(self._current)
            self.process.begin(pipeline.as_dict(), addresses)
