"""The lane of requests that somebody waits for: jobs are submitted, outcomes are waited for without a thread.

A job's id is a digest of what is asked for, so identical requests at the same time share one job, and a request that
comes again within a minute finds the finished result. It is not kept longer, because the address of a picture says
nothing about its content, and what a request did not wait for is a background run's (`heatbox.runs`). Where a picture
failed for a reason that may be gone, whoever asks some seconds later asks anew.
"""

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import redis.asyncio
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from heatbox.errors import (
    PictureCacheError,
    PictureFetchError,
    PictureSlowError,
    StoreUnavailableError,
    StudioAmbiguousError,
    StudioError,
    StudioRefusedError,
    WeightsUnavailableError,
)
from heatbox.pipeline import Pipeline
from heatbox.queueing.job_process import JobResult
from heatbox.queueing.queues import connect, enqueue, open_queue, translated

__all__ = ["Batch", "Outcome", "RequestQueue"]

_RESULT_SECONDS = 60  # a changed picture under the same address is seen after so long
_FAILURE_SECONDS = 60
_PASSING_SECONDS = 5  # after which a failure that may be over is tried again
_QUEUED_SECONDS = 600  # nobody asks any more
_JOB_SECONDS = 3600  # a picture's own limit is much shorter
_ATTEMPTS = 3  # of one job within _FAILURE_SECONDS: a picture that kills workers must not do so for ever
_WAIT_SECONDS = 5.0  # below the connection's time limit
_SUBMIT_SECONDS = 2.0  # a Redis that hangs must not hold a thread for long
_SUBMIT_THREADS = 4
_CONNECTIONS = 4096  # one for each request that waits; redis-py's own limit is 100
_FAILED = {JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED}
_PASSING = frozenset(
    error.code
    for error in (
        PictureCacheError,
        PictureFetchError,
        PictureSlowError,
        StoreUnavailableError,
        StudioAmbiguousError,
        StudioError,
        StudioRefusedError,
        WeightsUnavailableError,
    )
)


@dataclass(frozen=True)
class Batch:
    """Pictures that are asked for together; another attempt is another job, so that one ended early is not found."""

    addresses: tuple[str, ...]
    attempt: int = 0

    def job_id(self, version: str) -> str:
        """Return the id of the job that annotates them with this version, but for its last part."""
        content = json.dumps([version, self.attempt, *self.addresses])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its result, or why it failed as a whole."""

    result: JobResult | None = None
    failure: str | None = None


class RequestQueue:
    """The sending side: submit jobs, wait for their outcomes.

    `submit` blocks on Redis for a moment; `submit_all` does so in threads of its own, so that a Redis that
    hangs stops nothing else; `wait` is asynchronous and holds no thread.
    """

    def __init__(self, url: str) -> None:
        self._connection = connect(url, _SUBMIT_SECONDS)
        self._queue = open_queue(self._connection)
        self._threads = ThreadPoolExecutor(_SUBMIT_THREADS, thread_name_prefix="submit")
        self._waiting = redis.asyncio.Redis.from_url(
            url, protocol=2, socket_timeout=10, max_connections=_CONNECTIONS
        )

    def submit(self, pipeline: Pipeline, batch: Batch) -> str:
        """Ask for these pictures to be annotated and return the job's id; an identical job is joined.

        A job that failed is tried again, at most three times a minute; one with a picture that failed for a passing
        reason after some seconds.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        digest = batch.job_id(pipeline.version)
        failed = 0
        with translated():
            for (
                number
            ) in count():  # few: each one before this has failed or is some seconds old, and lives a minute
                job_id = f"{digest}-{number}"
                if self._enqueue(job_id, pipeline, batch.addresses):
                    break
                job = self._queue.fetch_job(job_id)
                has_failed = job is not None and job.get_status(refresh=False) in _FAILED
                failed += has_failed
                if failed == _ATTEMPTS or not (has_failed or self._may_be_over(job)):
                    break
        return job_id

    async def submit_all(self, pipeline: Pipeline, batches: Sequence[Batch]) -> dict[str, Batch]:
        """Submit each batch as one job and return the batches by job id.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        job_ids = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: [self.submit(pipeline, batch) for batch in batches]
        )
        return dict(zip(job_ids, batches, strict=True))

    async def wait(self, job_ids: Collection[str], seconds: float) -> dict[str, Outcome]:
        """Return the outcomes that are there, as soon as there is one; none after these seconds, at most 5.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        keys = {Result.get_key(job_id): job_id for job_id in job_ids}  # type: ignore[no-untyped-call]
        milliseconds = max(1, round(min(seconds, _WAIT_SECONDS) * 1000))  # 0 would be for ever
        with translated():
            found: Any = await self._waiting.xread(dict.fromkeys(keys, "0-0"), block=milliseconds)
        return dict(self._outcome(keys[key.decode()], *entries[-1]) for key, entries in found)

    async def length(self) -> int:
        """Return how many jobs wait for a worker.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        with translated():
            count: Any = await self._waiting.llen(self._queue.key)
        return int(count)

    def withdraw(self, job_ids: Collection[str]) -> None:
        """Take jobs that no worker has begun off the queue; who else waits for one asks again within seconds.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        with translated():
            for job_id in job_ids:
                if self._connection.lrem(self._queue.key, 1, job_id):
                    self._connection.delete(f"rq:job:{job_id}")

    async def aclose(self) -> None:
        """Close all connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._waiting.aclose()
        self._connection.close()

    def _enqueue(self, job_id: str, pipeline: Pipeline, addresses: Sequence[str]) -> bool:
        return enqueue(
            self._queue,
            job_id,
            pipeline,
            addresses,
            timeout=_JOB_SECONDS,
            queued_seconds=_QUEUED_SECONDS,
            result_seconds=_RESULT_SECONDS,
            failure_seconds=_FAILURE_SECONDS,
        )

    def _may_be_over(self, job: Job | None) -> bool:
        """Return whether a job ended some seconds ago with a failure that may be over by now."""
        if job is None or job.get_status(refresh=False) != JobStatus.FINISHED:
            return False
        left: Any = self._connection.ttl(job.key)  # Redis's clock: the worker's may be another machine's
        if not 0 <= left <= _RESULT_SECONDS - _PASSING_SECONDS:
            return False
        result = job.latest_result()
        return result is not None and bool(_codes(result.return_value) & _PASSING)

    def _outcome(self, job_id: str, entry_id: bytes, payload: dict[bytes, bytes]) -> tuple[str, Outcome]:
        result = Result.restore(job_id, entry_id.decode(), payload, self._connection, JSONSerializer)
        if result.type is not Result.Type.SUCCESSFUL:
            return job_id, Outcome(failure=_reason(result))
        try:
            return job_id, Outcome(JobResult.from_dict(result.return_value or {}))
        except (KeyError, TypeError):
            return job_id, Outcome(failure="its result is that of another version's worker")


def _codes(result: object) -> set[object]:
    """Return the codes of all errors in a result, as far as it can be read."""
    entries = result.get("entries") if isinstance(result, Mapping) else None
    errors = [one.get("error") for one in entries or () if isinstance(one, Mapping)]
    errors.append(result.get("failure") if isinstance(result, Mapping) else None)
    return {error.get("code") for error in errors if isinstance(error, Mapping)}


def _reason(result: Result) -> str:
    """Return the last line of what RQ wrote down, which may be a traceback."""
    return ((result.exc_string or "").strip().splitlines() or ["unknown"])[-1]
