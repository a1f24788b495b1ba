"""The queue: the one door to RQ and Redis. Requests put jobs on it and wait; workers take jobs from it.

A job's id is a digest of what is asked for, so identical requests at the same time share one job, and a
request that comes again finds the finished result. Redis holds nothing that cannot be asked for again.
Arguments and results are JSON; a worker runs only the functions named here, whatever Redis holds.
"""

import asyncio
import hashlib
import json
import socket
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis.asyncio
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue, SimpleWorker
from rq.exceptions import DuplicateJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import now

from heatbox.errors import RedisUnavailableError
from heatbox.pipeline import Pipeline

__all__ = [
    "AllowedJob",
    "HeatboxQueue",
    "JobQueue",
    "Outcome",
    "connect",
    "listening_pids",
    "open_queue",
    "ping",
]

INTERACTIVE = "hb-interactive"
ANNOTATE = "heatbox_workers.jobs.annotate_addresses"

_ALLOWED_FUNCTIONS = frozenset({ANNOTATE})
_RESULT_SECONDS = 600  # a request that comes again after its deadline finds the result
_FAILURE_SECONDS = 60
_QUEUED_SECONDS = 600  # nobody asks any more
_JOB_SECONDS = 300
_ATTEMPTS = 3  # of one job within _FAILURE_SECONDS: a picture that kills workers must not do so for ever
_MAINTENANCE_LOCK_SECONDS = 10
_TAKEN_AGE = timedelta(seconds=8)
_WAIT_SECONDS = 5.0  # below the connection's time limit
_SUBMIT_SECONDS = 2.0  # a Redis that hangs must not hold a thread for long
_SUBMIT_THREADS = 4
_CONNECTIONS = 4096  # one for each request that waits; redis-py's own limit is 100
_FAILED = {JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED}


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its JSON value, or why it failed."""

    value: Any = None
    failure: str | None = None


class AllowedJob(Job):
    """A job that runs only our functions; RQ would import and call whatever name Redis holds."""

    def _execute(self) -> Any:  # noqa: ANN401 - any JSON value
        if self.func_name not in _ALLOWED_FUNCTIONS:
            msg = f"{self.func_name} is not a function that heatbox queues"
            raise PermissionError(msg)
        return super()._execute()

    @property
    def success_callback(self) -> None:
        """None: we queue no callbacks, and RQ would import their names."""

    @property
    def failure_callback(self) -> None:
        """None, as `success_callback`."""

    @property
    def stopped_callback(self) -> None:
        """None, as `success_callback`."""

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send nothing: the addresses would come from Redis."""


class _Taken(IntermediateQueue):
    """Jobs that a worker took and has not begun; one that stays is the job of a killed worker."""

    def should_be_cleaned_up(self, job_id: str) -> bool:
        """Return whether the job has been here for too long (RQ: a minute)."""
        first_seen = self.get_first_seen(job_id)
        return first_seen is not None and now() - first_seen > _TAKEN_AGE


class HeatboxQueue(Queue):
    """A queue of allowed jobs that forgets what a killed worker held within seconds (RQ: minutes)."""

    job_class = AllowedJob

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        """The jobs that were taken and have not begun."""
        return _Taken(self.key, connection=self.connection)

    def acquire_maintenance_lock(self) -> bool:
        """Return whether this worker may clean the registries now."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=_MAINTENANCE_LOCK_SECONDS))


def connect(url: str, seconds: float | None = None) -> Redis:
    """Return a connection to Redis; nothing is sent yet.

    Args:
        url: of a TCP or a unix socket.
        seconds: after which a try at a command is given up; None: redis-py's default.

    Raises:
        RedisUnavailableError: there is no URL, or it is not one.
    """
    if not url:
        raise RedisUnavailableError(
            "No Redis is named.", "Start everything with `heatbox up`, or set HEATBOX_REDIS_URL."
        )
    try:
        limits = {} if seconds is None else {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        retry = Retry(ExponentialBackoff(cap=0.5), 3)
        return Redis.from_url(url, retry=retry, health_check_interval=30, **limits)
    except ValueError as error:
        raise RedisUnavailableError(
            f"HEATBOX_REDIS_URL is not a Redis URL: {error}.", "Write redis://HOST:PORT/0 or unix:///PATH."
        ) from error


def ping(connection: Redis) -> None:
    """Check that Redis answers.

    Raises:
        RedisUnavailableError: it does not.
    """
    try:
        connection.ping()
    except RedisError as error:
        raise _unavailable(error) from error


def open_queue(connection: Redis) -> HeatboxQueue:
    """Return the queue of requests that somebody waits for."""
    return HeatboxQueue(INTERACTIVE, connection=connection, serializer=JSONSerializer)


def listening_pids(url: str) -> set[int]:
    """Return the process ids of the workers on this machine that listen, and of killed ones for a minute or so.

    Raises:
        RedisUnavailableError: Redis does not answer.
    """
    with connect(url) as connection:
        try:
            workers = SimpleWorker.all(queue=open_queue(connection), serializer=JSONSerializer)
        except RedisError as error:
            raise _unavailable(error) from error
    return {worker.pid for worker in workers if worker.pid and worker.hostname == socket.gethostname()}


class JobQueue:
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

    def submit(self, pipeline: Pipeline, addresses: Sequence[str]) -> str:
        """Ask for these pictures to be annotated and return the job's id; an identical job is joined.

        A job that failed is tried again, at most three times a minute.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        digest = hashlib.sha256(json.dumps([pipeline.version, *addresses]).encode()).hexdigest()[:32]
        try:
            for attempt in range(_ATTEMPTS):
                job_id = f"{digest}-{attempt}"
                if self._enqueue(job_id, pipeline, addresses) or not self._has_failed(job_id):
                    break
        except RedisError as error:
            raise _unavailable(error) from error
        return job_id

    async def submit_all(
        self, pipeline: Pipeline, batches: Sequence[Sequence[str]]
    ) -> dict[str, Sequence[str]]:
        """Submit each batch of addresses as one job and return the batches by job id.

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
        try:
            found: Any = await self._waiting.xread(dict.fromkeys(keys, "0-0"), block=milliseconds)
        except RedisError as error:
            raise _unavailable(error) from error
        return dict(self._outcome(keys[key.decode()], *entries[-1]) for key, entries in found)

    async def aclose(self) -> None:
        """Close all connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._waiting.aclose()
        self._connection.close()

    def _enqueue(self, job_id: str, pipeline: Pipeline, addresses: Sequence[str]) -> bool:
        try:
            self._queue.enqueue_call(
                ANNOTATE,
                (pipeline.as_dict(), list(addresses)),
                timeout=_JOB_SECONDS,
                ttl=_QUEUED_SECONDS,
                result_ttl=_RESULT_SECONDS,
                failure_ttl=_FAILURE_SECONDS,
                description=f"{len(addresses)} pictures for {pipeline.version}",
                job_id=job_id,
                unique=True,
            )
        except DuplicateJobError:  # somebody asked before, or our first answer was lost
            return False
        return True

    def _has_failed(self, job_id: str) -> bool:
        job = self._queue.fetch_job(job_id)
        return job is not None and job.get_status(refresh=False) in _FAILED

    def _outcome(self, job_id: str, entry_id: bytes, payload: dict[bytes, bytes]) -> tuple[str, Outcome]:
        result = Result.restore(job_id, entry_id.decode(), payload, self._connection, JSONSerializer)
        done = result.type is Result.Type.SUCCESSFUL
        return job_id, Outcome(result.return_value) if done else Outcome(failure=_reason(result))


def _reason(result: Result) -> str:
    """Return the last line of what RQ wrote down, which may be a traceback."""
    return ((result.exc_string or "").strip().splitlines() or ["unknown"])[-1]


def _unavailable(error: RedisError) -> RedisUnavailableError:
    return RedisUnavailableError(
        f"Redis does not answer ({type(error).__name__}).",
        "See `heatbox doctor`; `heatbox up` starts a Redis of its own.",
    )
