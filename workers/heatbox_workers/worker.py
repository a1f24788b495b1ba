"""The RQ worker: a small process without torch that takes jobs, shows that they live, and ends them when it must.

The job itself runs in the one job process (`heatbox.queueing.job_process`), which keeps classifiers warm. So a picture
that crashes, hangs or eats memory costs that process and not the worker, and torch is never forked. RQ's own workers
either fork for every job or say nothing while a job runs. Written for rq 2.12; each override names what it replaces.
"""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.timeouts import JobTimeoutException
from rq.worker import WorkerStatus

from heatbox.errors import HeatboxError
from heatbox.queueing.job_process import JobLimits, JobProcess, JobResult
from heatbox.queueing.queues import (
    BATCH,
    CHILD_DEATHS,
    INTERACTIVE,
    LEARN,
    TRAIN,
    AllowedJob,
    HeatboxQueue,
    alive_key,
    carried_out_by,
    connect,
    open_queue,
    ping,
)
from heatbox.queueing.training_job import PROGRESS, Trained, progress_key, write_order
from heatbox.settings import Settings, as_environment

__all__ = ["WarmWorker", "make_worker"]

log = logging.getLogger(__name__)

_HEARTBEAT = 2  # seconds between signs of life of a running job
_TTL = 10  # seconds without one after which the job counts as abandoned
_SHORT_RESULT_SECONDS = 5  # one with an error is asked for again soon: somebody may have put the file right
_REDIS_WAIT = 1.0
_PROGRESS_SECONDS = 3600  # for which what a training has told is kept


def make_worker(
    settings: Settings, environment: Mapping[str, str], lanes: Sequence[str] = (INTERACTIVE, BATCH)
) -> "WarmWorker":
    """Return a worker.

    Args:
        settings: of the worker and its job process.
        environment: of the job process, besides the settings.
        lanes: names of the queues, the most urgent first.

    Raises:
        RedisUnavailableError: no Redis is named, or it does not answer.
    """
    connection = connect(settings.redis_url)
    ping(connection)
    queues = [open_queue(connection, name) for name in lanes]
    limits = JobLimits.for_machine(settings.picture_seconds, settings.job_memory, settings.workers)
    process = JobProcess({**environment, **as_environment(settings)}, limits)
    process_of_trainings = JobProcess({**environment, **as_environment(settings)}, limits, of_trainings=True)
    worker = WarmWorker(
        queues,
        connection=connection,
        serializer=queues[0].serializer,
        worker_ttl=30,
        maintenance_interval=_HEARTBEAT,
        log_job_description=False,
    )
    worker.process, worker.process_of_trainings, worker.home = process, process_of_trainings, settings.home
    return worker


class WarmWorker(SimpleWorker):
    """A worker over a warm job process."""

    queue_class = HeatboxQueue
    job_class = AllowedJob
    log_result_lifespan = False
    process: JobProcess
    process_of_trainings: JobProcess  # another one, which is there only while something is learnt
    home: Path
    _last_beat = 0.0

    @property
    def was_told_to_stop(self) -> bool:
        """Whether a signal asked for the end; otherwise an end is a failure."""
        return bool(self._stop_requested)

    @property
    def _overtakes(self) -> bool:
        """Whether this worker serves those who wait: another one could only hand back again and again."""
        return INTERACTIVE in self.queue_names()

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
        if set(self.queue_names()) != {TRAIN}:
            self.process.start()
        while not self._stop_requested:
            self._register_again()
            found = super().dequeue_job_and_maintain_ttl(1, max_idle_time=1)
            if found:
                return found
        return None

    def prepare_execution(self, job: Job) -> Execution:
        """Begin a job and take it off the list of taken ones in one transaction (RQ: later, or never)."""
        with self.connection.pipeline() as pipeline:
            self.execution = Execution.create(job, _TTL, pipeline=pipeline, worker_name=self.name)
            pipeline.lrem(open_queue(self.connection, job.origin).intermediate_queue_key, 0, job.id)
            pipeline.set(alive_key(job.id), self.name, ex=_TTL)
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            pipeline.execute()
        return self.execution

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the job; a Redis that goes away meanwhile is waited for (RQ ends the worker)."""
        try:
            with carried_out_by(self._carry_out):
                super().execute_job(job, queue)
        except RedisError as error:
            log.warning(
                "Redis went away with job %s (%s); it will be asked for again", job.id, type(error).__name__
            )
            self._wait_for_redis()

    def _carry_out(self, job: Job) -> dict[str, Any]:
        """Let the job process do the job; look after both until it is done."""
        if job.func_name == LEARN:
            return self._learn(job)
        pipeline, addresses = job.args
        told = False
        try:
            self.process.begin(pipeline, addresses)
            while (result := self.process.poll()) is None:
                if not told and self._should_stop(job):
                    self.process.ask_to_stop()
                    told = True
        except JobTimeoutException:
            self.process.close()
            raise
        self._tell_death(job, result)
        if any(entry is None or "error" in entry for entry in result.entries):
            job.result_ttl = (
                min(job.result_ttl or 0, _SHORT_RESULT_SECONDS)
                if job.origin == INTERACTIVE
                else job.result_ttl
            )
        return result.as_dict()

    def _learn(self, job: Job) -> dict[str, Any]:
        """Let a process of its own train; end it where nobody wants it any more: it goes on from its checkpoints."""
        name, order = job.args
        key, process = progress_key(job.id), self.process_of_trainings
        told = ""
        try:
            training = process.begin_training(write_order(self.home, name, order))
            while (result := process.poll_training()) is None:
                if self._should_stop(job):
                    return Trained().as_dict()
                if (text := json.dumps(training.latest)) != told and self._tell(key, text):
                    told = text
            self._tell(key, json.dumps(training.latest))
        except HeatboxError as error:  # the order could not be written
            log.warning("job %s: %s", job.id, error)
            return Trained(failure=error.as_dict()).as_dict()
        finally:
            process.close()
        if result.death is not None:
            self._count_death(job, result.death, result.exit_code)
        return result.as_dict()

    def _tell(self, key: str, progress: str) -> bool:
        try:
            with self.connection.pipeline() as pipeline:  # a hash: who reads it needs no right to read more
                pipeline.hset(key, PROGRESS, progress)
                pipeline.expire(key, _PROGRESS_SECONDS)
                pipeline.execute()
        except RedisError:  # the next sign of life says it
            return False
        return True

    def _should_stop(self, job: Job) -> bool:
        """Show that the job lives; return whether it should hand the rest back: an end, a wish, somebody who waits."""
        if self._stop_requested:
            return True
        try:
            if time.monotonic() - self._last_beat > _HEARTBEAT:
                self._beat(job)
            with self.connection.pipeline(transaction=False) as pipeline:
                pipeline.hget(job.key, "status")
                pipeline.llen(open_queue(self.connection).key)
                status, waiting = pipeline.execute()
        except RedisError as error:
            log.warning("no sign of life could be given: %s", type(error).__name__)
            return False
        return status == JobStatus.CANCELED.value.encode() or (
            self._overtakes and job.origin == BATCH and bool(waiting)
        )

    def _beat(self, job: Job) -> None:
        with self.connection.pipeline() as pipeline:
            self.heartbeat(self.worker_ttl, pipeline=pipeline)
            if self.execution is not None:
                self.execution.heartbeat(job.started_job_registry, _TTL, pipeline=pipeline)
            pipeline.set(alive_key(job.id), self.name, ex=_TTL)
            pipeline.execute()
        self._last_beat = time.monotonic()

    def _tell_death(self, job: Job, result: JobResult) -> None:
        if result.reason is not None:
            self._count_death(job, result.reason, result.exit_code)

    def _count_death(self, job: Job, reason: Mapping[str, str], exit_code: int | None) -> None:
        log.error("the job process ended in job %s: %s", job.id, reason["message"])
        self.connection.hincrby(CHILD_DEATHS, str(exit_code), 1)

    def _register_again(self) -> None:
        """Be known as a worker also after Redis was emptied."""
        try:
            if not self.connection.sismember(self.redis_workers_keys, self.key):
                self.connection.delete(self.key)
                self.register_birth()  # type: ignore[no-untyped-call]
        except RedisError:  # the dequeue that follows tells it and waits
            return

    def _wait_for_redis(self) -> None:
        while not self._stop_requested:
            try:
                self.connection.ping()
            except RedisError:
                time.sleep(_REDIS_WAIT)
            else:
                self._register_again()
                return

    def teardown(self) -> None:
        """End the job processes too."""
        self.process.close()
        self.process_of_trainings.close()
        super().teardown()  # type: ignore[no-untyped-call]


def exit_code(worker: WarmWorker) -> int:
    """Return how the process should end: a worker that stopped without being told has failed (RQ: 0)."""
    return os.EX_OK if worker.was_told_to_stop else os.EX_UNAVAILABLE
