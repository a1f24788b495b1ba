"""The queues: the one door to RQ and Redis. They carry work and outcomes, and nothing that cannot be asked for again.

A job names pictures and a pipeline; a worker runs only the function that is named here, whatever Redis holds, and never
by importing that name: it hands the arguments to its job process. Arguments and results are JSON.
Written for rq 2.12; each override names what it replaces.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, DuplicateJobError, NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now

from heatbox.errors import RedisUnavailableError
from heatbox.pipeline import Pipeline

__all__ = [
    "BATCH",
    "CHILD_DEATHS",
    "INTERACTIVE",
    "LANES",
    "LEARN",
    "TRAIN",
    "AllowedJob",
    "HeatboxQueue",
    "alive_key",
    "carried_out_by",
    "connect",
    "enqueue",
    "listening_pids",
    "listening_workers",
    "open_queue",
    "ping",
    "translated",
]

INTERACTIVE, BATCH, TRAIN = "hb-interactive", "hb-batch", "hb-train"
LANES = {"interactive": INTERACTIVE, "batch": BATCH, "train": TRAIN}
ANNOTATE = "heatbox_workers.jobs.annotate_addresses"
LEARN = "heatbox_workers.train_job.learn"
CHILD_DEATHS = "hb:child-deaths"  # a hash: exit code -> how many job processes ended with it

_ALLOWED_FUNCTIONS = frozenset({ANNOTATE, LEARN})
_MAINTENANCE_LOCK_SECONDS = 10
_TAKEN_AGE = timedelta(seconds=8)
_WAIT_SECONDS = 0.2  # a job on the second queue waits so long at most

carrier: ContextVar[Callable[[Job], Any]] = ContextVar("carrier")


class AllowedJob(Job):
    """A job that runs only our functions; RQ would import and call whatever name Redis holds."""

    def _execute(self) -> Any:  # noqa: ANN401 - any JSON value
        if self.func_name not in _ALLOWED_FUNCTIONS:
            msg = f"{self.func_name} is not a function that heatbox queues"
            raise PermissionError(msg)
        return carrier.get()(self)

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


@contextmanager
def carried_out_by(carry_out: Callable[[Job], Any]) -> Iterator[None]:
    """Let this function carry out the jobs of the block; what it returns is the job's result."""
    token = carrier.set(carry_out)
    try:
        yield
    finally:
        carrier.reset(token)


class _Taken(IntermediateQueue):
    """Jobs that a worker took and has not begun; one that stays is the job of a killed worker."""

    def should_be_cleaned_up(self, job_id: str) -> bool:
        """Return whether the job has been here for too long (RQ: a minute)."""
        first_seen = self.get_first_seen(job_id)
        return first_seen is not None and now() - first_seen > _TAKEN_AGE


class HeatboxQueue(Queue):
    """A queue of allowed jobs that loses none, and forgets what a killed worker held within seconds (RQ: minutes)."""

    job_class = AllowedJob

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        """The jobs that were taken and have not begun."""
        return _Taken(self.key, connection=self.connection)

    def acquire_maintenance_lock(self) -> bool:
        """Return whether this worker may clean the registries now."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=_MAINTENANCE_LOCK_SECONDS))

    @classmethod
    def dequeue_any(  # noqa: PLR0913, PLR0917 - RQ's signature
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Redis,
        job_class: type[Job] | None = None,
        serializer: Any = None,  # noqa: ANN401, ARG003 - RQ's signature
        death_penalty_class: Any = None,  # noqa: ANN401, ARG003 - RQ's signature
    ) -> tuple[Job, Queue] | None:
        """Take a job, the first queue first (RQ: with several by BLPOP, which loses the job of a killed worker)."""
        several = list(queues)
        deadline = time.monotonic() + (timeout or 0)
        while True:
            for queue in several:
                job = _moved(connection.lmove(queue.key, queue.intermediate_queue_key), queue, job_class)
                if job is not None:
                    return job, queue
            left = deadline - time.monotonic()
            if left <= 0:
                if timeout is None:
                    return None
                raise DequeueTimeout(timeout, [queue.key for queue in several])
            first = several[0]
            wait = min(left, _WAIT_SECONDS) if len(several) > 1 else left
            seconds: Any = max(wait, 0.05)  # Redis takes parts of a second; redis-py's types do not know
            found = connection.blmove(first.key, first.intermediate_queue_key, seconds)
            job = _moved(found, first, job_class)
            if job is not None:
                return job, first


def _moved(job_id: Any, queue: Queue, job_class: type[Job] | None) -> Job | None:  # noqa: ANN401 - redis's answer
    """Return the job that was taken; one whose content is gone is forgotten."""
    if job_id is None:
        return None
    name = job_id.decode()
    try:
        return (job_class or AllowedJob).fetch(name, connection=queue.connection, serializer=queue.serializer)
    except NoSuchJobError:
        queue.connection.lrem(queue.intermediate_queue_key, 1, name)
        return None


def connect(url: str, seconds: float | None = None) -> Redis:
    """Return a connection to Redis; nothing is sent yet.

    Args:
        url: of a TCP (`redis://`), TLS (`rediss://`) or unix socket.
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
    with translated():
        connection.ping()


@contextmanager
def translated() -> Iterator[None]:
    """Turn a failure of Redis into a sentence."""
    try:
        yield
    except RedisError as error:
        raise RedisUnavailableError(
            f"Redis does not answer ({type(error).__name__}).",
            "See `heatbox doctor`; `heatbox up` starts a Redis of its own.",
        ) from error


def open_queue(connection: Redis, name: str = INTERACTIVE) -> HeatboxQueue:
    """Return a queue, by default that of requests that somebody waits for."""
    return HeatboxQueue(name, connection=connection, serializer=JSONSerializer)


def enqueue(  # noqa: PLR0913 - what a job is
    queue: HeatboxQueue,
    job_id: str,
    pipeline: Pipeline,
    addresses: Sequence[str],
    *,
    timeout: float,
    queued_seconds: int | None,
    result_seconds: int,
    failure_seconds: int,
) -> bool:
    """Put a job on a queue; return False where one of this id is there already, perhaps ours with a lost answer.

    Args:
        queue: to put it on.
        job_id: letters, digits, hyphens.
        pipeline: that annotates.
        addresses: of the pictures.
        timeout: seconds after which a worker gives the whole job up.
        queued_seconds: after which a job that nobody took is forgotten; None: never.
        result_seconds: for which its outcome is kept.
        failure_seconds: for which it is kept where it failed.
    """
    try:
        queue.enqueue_call(
            ANNOTATE,
            (pipeline.as_dict(), list(addresses)),
            timeout=int(timeout),
            ttl=queued_seconds,
            result_ttl=result_seconds,
            failure_ttl=failure_seconds,
            description=f"{len(addresses)} pictures for {pipeline.version}",
            job_id=job_id,
            unique=True,
        )
    except DuplicateJobError:
        return False
    return True


def alive_key(job_id: str) -> str:
    """Return the key that a worker renews while the job runs; it is gone some seconds after the worker."""
    return f"hb:alive:{job_id}"


def listening_workers(connection: Redis, name: str = INTERACTIVE) -> int:
    """Return how many workers listen on a queue, killed ones included for a minute or so (RQ's `count`: for ever).

    Raises:
        RedisUnavailableError: Redis does not answer.
    """
    with translated():
        return len(SimpleWorker.all(queue=open_queue(connection, name), serializer=JSONSerializer))


def listening_pids(url: str, name: str = INTERACTIVE) -> set[int]:
    """Return the process ids of the workers on this machine that listen on a queue; killed ones for a minute or so.

    Raises:
        RedisUnavailableError: Redis does not answer.
    """
    with connect(url) as connection, translated():
        workers = SimpleWorker.all(queue=open_queue(connection, name), serializer=JSONSerializer)
    return {worker.pid for worker in workers if worker.pid and worker.hostname == socket.gethostname()}
