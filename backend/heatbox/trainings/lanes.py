"""How a training reaches a process that does it: over Redis to a worker that listens for them, or in one of our own."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rq.exceptions import DuplicateJobError

from heatbox.errors import HeatboxError
from heatbox.queueing.queues import LEARN, TRAIN, listening_workers, translated
from heatbox.queueing.training_job import PROGRESS, Trained, TrainingJob, progress_key, write_order
from heatbox.runs.lanes import LocalJobs, Lost, RedisJobs

__all__ = ["LocalTrainLane", "RedisTrainLane", "TrainLane"]

_JOB_SECONDS = 14 * 86_400
_RESULT_SECONDS = 7 * 86_400  # a service that was down finds the result when it is up again


class TrainLane(Protocol):
    """What the trainer needs of a lane; every call may raise `RedisUnavailableError`."""

    def submit(self, job: str, folder: str, order: Mapping[str, Any]) -> None:
        """Hand over a training under the id of a job; one that is there already stays as it is."""

    def knows(self, job: str) -> bool:
        """Return whether the job was handed over and is not forgotten."""

    def outcomes(self, jobs: Collection[str]) -> Mapping[str, Trained | Lost]:
        """Return what became of the jobs that have ended; the others are under way."""

    def progress(self, job: str) -> Mapping[str, Any]:
        """Return how far a job is; empty where nothing is known."""

    def withdraw(self, jobs: Collection[str]) -> None:
        """Take back jobs, and let those that have begun end soon."""

    def nobody_listens(self) -> bool:
        """Return whether no worker takes trainings now."""

    def wait(self, seconds: float) -> None:
        """Wait so long at most, or until there may be an outcome."""

    def close(self) -> None:
        """Let go of everything."""


class RedisTrainLane(RedisJobs[Trained]):
    """The queue of trainings; `heatbox up` and `heatbox work --queue train` take from it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, TRAIN, Trained.from_dict)

    def submit(self, job: str, folder: str, order: Mapping[str, Any]) -> None:
        """Put the training on the queue, unless it is there."""
        with translated():
            try:
                self._queue.enqueue_call(
                    LEARN,
                    (folder, dict(order)),
                    timeout=_JOB_SECONDS,
                    ttl=None,
                    result_ttl=_RESULT_SECONDS,
                    failure_ttl=_RESULT_SECONDS,
                    description=f"training {folder}",
                    job_id=job,
                    unique=True,
                )
            except DuplicateJobError:
                return

    def knows(self, job: str) -> bool:
        """Ask Redis."""
        with translated():
            return bool(self._connection.exists(f"rq:job:{job}"))

    def progress(self, job: str) -> Mapping[str, Any]:
        """Return what the worker told last."""
        with translated():
            text: Any = self._connection.hget(progress_key(job), PROGRESS)
        told: Any = None if text is None else json.loads(text)
        return told if isinstance(told, dict) else {}

    def nobody_listens(self) -> bool:
        """Ask Redis for the workers of the queue."""
        return not listening_workers(self._connection, TRAIN)


@dataclass
class LocalTrainLane(LocalJobs[tuple[str, Mapping[str, Any]], Trained]):
    """One job process of our own, where there is no Redis; trainings wait here for it."""

    home: Path
    _training: TrainingJob = field(default_factory=TrainingJob)
    _told_by: str | None = None

    def submit(self, job: str, folder: str, order: Mapping[str, Any]) -> None:
        """Let the training wait for the process."""
        self._waiting[job] = folder, order
        self._go_on()

    def knows(self, job: str) -> bool:
        """Return whether it is here; a job of an earlier process is not."""
        return job in {*self._waiting, self._current, *self._ended}

    def outcomes(self, jobs: Collection[str]) -> Mapping[str, Trained | Lost]:
        """Return what has ended; it stays known, because whoever asks may be unable to write it down."""
        return {job: self._ended[job] for job in jobs if job in self._ended}

    def progress(self, job: str) -> Mapping[str, Any]:
        """Return what the process told last."""
        return self._training.latest if job == self._told_by else {}

    def withdraw(self, jobs: Collection[str]) -> None:
        """Forget waiting trainings and end the one under way: it goes on from its checkpoints."""
        for job in jobs:
            self._waiting.pop(job, None)
            self._ended.pop(job, None)
        if self._current in jobs:
            self.process.close()
            self._current = None
            self._go_on()

    def nobody_listens(self) -> bool:
        """Return False: we do it."""
        return False

    def _poll(self, seconds: float) -> Trained | None:
        return self.process.poll_training(seconds)

    def _go_on(self) -> None:
        while self._current is None and self._waiting:
            job = next(iter(self._waiting))
            name, order = self._waiting.pop(job)
            try:
                folder = write_order(self.home, name, order)
            except HeatboxError as error:
                self._ended[job] = Trained(failure=error.as_dict())
                continue
            self._current = self._told_by = job
            self._training = self.process.begin_training(folder)
