"""The RQ worker: jobs run in this process, so that the classifier stays loaded and torch is never forked.

RQ's `SimpleWorker` runs jobs in process too, but says nothing while a job runs: the job of a killed one
counts as started for its timeout and a minute more. Here a thread says every few seconds that the job is
alive, so the next worker ends the job of a killed one soon, and whoever waits can ask again.
Written for rq 2.12; each override names what it replaces.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.job import Job

from heatbox.queue import AllowedJob, HeatboxQueue, connect, open_queue, ping

__all__ = ["WarmWorker", "make_worker"]

log = logging.getLogger(__name__)

_HEARTBEAT = 2  # seconds between signs of life of a running job
_TTL = 10  # seconds without one after which the job counts as abandoned
_GRACE = 10  # seconds past its timeout after which a job that ignores it ends the process
_STUCK = 70  # exit code


def make_worker(redis_url: str) -> "WarmWorker":
    """Return a worker on the queue of requests.

    Raises:
        RedisUnavailableError: no Redis is named, or it does not answer.
    """
    queue = open_queue(connect(redis_url))
    ping(queue.connection)
    return WarmWorker(
        [queue],
        connection=queue.connection,
        serializer=queue.serializer,
        worker_ttl=30,
        maintenance_interval=_HEARTBEAT,
        log_job_description=False,
    )


class WarmWorker(SimpleWorker):
    """A worker that stays warm, shows that it lives, ends its job on SIGTERM, runs only allowed jobs."""

    queue_class = HeatboxQueue
    job_class = AllowedJob
    log_result_lifespan = False

    def get_heartbeat_ttl(self, job: Job) -> int:  # noqa: ARG002 - RQ's signature
        """Return after how many silent seconds a job is abandoned (RQ: its timeout and a minute)."""
        return _TTL

    def subscribe(self) -> None:
        """Take no commands (RQ: from a thread whose end delays ours by a second)."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - RQ's signature
        """Note the wish (RQ raises out of whatever runs, which loses a job that was just taken)."""
        self._stop_requested = True

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job, looking every second whether to stop (RQ waits on)."""
        if timeout is None:
            return super().dequeue_job_and_maintain_ttl(None, max_idle_time)
        while not self._stop_requested:
            found = super().dequeue_job_and_maintain_ttl(1, max_idle_time=1)
            if found:
                return found
        return None

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the job with signs of life (RQ: none)."""
        with self._alive(job):
            super().execute_job(job, queue)

    @contextmanager
    def _alive(self, job: Job) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._show_life, args=(job, done), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _show_life(self, job: Job, done: threading.Event) -> None:
        deadline = time.monotonic() + float(job.timeout or Queue.DEFAULT_TIMEOUT) + _GRACE
        while not done.wait(_HEARTBEAT):
            if time.monotonic() > deadline:
                log.error("job %s is past its timeout and cannot be interrupted; this worker ends", job.id)
                os._exit(_STUCK)
            try:
                self._beat(job)
            except RedisError as error:
                log.warning("no sign of life could be given: %s", type(error).__name__)

    def _beat(self, job: Job) -> None:
        execution = self.execution
        if execution is None:  # the job has just ended
            return
        with self.connection.pipeline() as pipeline:
            self.heartbeat(self.worker_ttl, pipeline=pipeline)
            execution.heartbeat(job.started_job_registry, _TTL, pipeline=pipeline)
            pipeline.execute()
