"""The trainer moves trainings on: it makes orders, asks for jobs, notes how far they are, settles what comes of them.

All that it knows is in the ledger, and every step names the state that it starts from. So a service and a command, or
two services, may do it at the same time, and whoever takes over from a killed one goes on in the middle.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heatbox.errors import (
    HeatboxError,
    InternalError,
    LedgerError,
    RedisUnavailableError,
    StoreUnavailableError,
    StudioError,
)
from heatbox.queueing.training_job import Trained
from heatbox.runs.lanes import Lost
from heatbox.trainings.lanes import TrainLane
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import NewTraining, Training, TrainingState

__all__ = ["Trainer"]

log = logging.getLogger(__name__)

_STRIKES = 3  # deaths of the process without a new epoch; then it has failed
_LOOKED_BACK = 20
_REST_SECONDS = 10.0  # before something that gave no good answer is asked again
_PASSING = (StudioError, StoreUnavailableError)
_NOBODY = (
    "No worker listens for trainings: start `heatbox up`, or `heatbox work --queue train` on any machine."
)


@dataclass
class Trainer:
    """What moves the trainings of a ledger.

    Attributes:
        trainings: of the ledger.
        lane: that carries them to a process.
        prepare: makes the order of a training that a webhook asked for.
        named: what the plain name of a project's model stands for now; None where it names none.
        require: raises where a model is not in the store of this machine.
        show: lets Label Studio show a new version; its sentence is noted.
        only: the one training to move; None: all.
    """

    trainings: Trainings
    lane: TrainLane
    prepare: Callable[[Training], NewTraining]
    named: Callable[[Training], str | None]
    require: Callable[[str], None]
    show: Callable[[Training], str]
    only: int | None = None
    _rests: dict[int, float] = field(default_factory=dict)
    _under_way: dict[int, str] | None = None  # jobs that were wanted in the last step
    _told: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def step(self) -> bool:
        """Do what there is to do now and return whether there is something under way.

        Raises:
            LedgerError: the ledger does not answer; what was done is in it.
            RedisUnavailableError: Redis does not answer.
        """
        found = [one for one in self.trainings.open() if self._is_mine(one)]
        self._withdraw({one.id: one.job for one in found})
        for one in found:
            self._patiently(one, self._move)
        for one in self.trainings.untold():
            if self._is_mine(one):
                self._patiently(one, self._show)
        return bool(found)

    def close(self) -> None:
        """Let go of the lane."""
        self.lane.close()

    def _is_mine(self, training: Training) -> bool:
        return self.only in {None, training.id}

    def _withdraw(self, now: Mapping[int, str]) -> None:
        """Take back the jobs of trainings that were cancelled, or have gone on to another job."""
        before = self._under_way
        if before is None:  # we have just begun: whoever was here before us may not have seen it
            newest = self.trainings.newest(_LOOKED_BACK)
            before = {one.id: one.job for one in newest if one.state is TrainingState.CANCELLED}
        gone = [job for number, job in before.items() if now.get(number) != job]
        if gone:
            self.lane.withdraw(gone)
        self._under_way = dict(now)
        self._told = {job: told for job, told in self._told.items() if job in now.values()}

    def _patiently(self, training: Training, do: Callable[[Training], None]) -> None:
        """Do something that may fail for a reason that passes; any other error ends an open training."""
        if time.monotonic() < self._rests.get(training.id, 0.0):
            return
        try:
            do(training)
        except (LedgerError, RedisUnavailableError):
            raise
        except _PASSING as error:
            self._rests[training.id] = time.monotonic() + _REST_SECONDS
            self.trainings.note(training.id, f"{error.sentence} It is tried again.")
        except HeatboxError as error:
            log.warning("training %d: %s", training.id, error)
            self._give_up(training, error)
        except (
            Exception
        ) as error:  # an edge: what cannot be done with one training must not hold up the others
            log.exception("training %d met a defect", training.id)
            told = f"The training met a defect ({error!r})."
            self._give_up(training, InternalError(told, "Read the log of the service."))

    def _give_up(self, training: Training, error: HeatboxError) -> None:
        if training.is_open:
            self.trainings.fail(training.id, error.as_dict())
        else:
            self.trainings.tell(training.id)
            self.trainings.note(
                training.id, f"Label Studio does not show the new version: {error.sentence} {error.remedy}"
            )

    def _move(self, training: Training) -> None:
        if not training.has_order:
            self.trainings.prepare(training.id, self.prepare(training))
        elif not self.lane.knows(training.job):
            self._ask(training)
        else:
            self._look(training)

    def _ask(self, training: Training) -> None:
        """Ask for the job; where Redis has forgotten it, under the same id: nobody else can hold it."""
        order = self.trainings.order(training.id)
        if order is not None:
            self.lane.submit(training.job, training.folder, order)
            self._tell_where_nobody_listens(training)

    def _look(self, training: Training) -> None:
        """Note how far the job is, or what became of it."""
        outcome = self.lane.outcomes([training.job]).get(training.job)
        told = self.lane.progress(training.job)
        if told and told != self._told.get(training.job):
            self._told[training.job] = told
            self.trainings.progress(training, told)
        if isinstance(outcome, Lost):
            self._try_again(training, outcome.reason, struck=outcome.with_worker)
        elif outcome is not None:
            self._settle(training, outcome)
        elif training.state is TrainingState.QUEUED and not told:
            self._tell_where_nobody_listens(training)

    def _tell_where_nobody_listens(self, training: Training) -> None:
        note = _NOBODY if self.lane.nobody_listens() else ""
        if training.note != note:
            self.trainings.note(training.id, note)

    def _settle(self, training: Training, outcome: Trained) -> None:
        if outcome.learnt is not None:
            self.require(outcome.learnt["model"])
            verdict = self.trainings.settle(training, outcome.learnt, self.named(training))
            if verdict is not None:
                log.info("training %d is done: %s", training.id, verdict.reason)
        elif outcome.failure is not None and outcome.failure["code"] != StoreUnavailableError.code:
            if self.trainings.fail(training.id, outcome.failure):
                log.warning("training %d failed: %s", training.id, outcome.failure["message"])
        elif problem := outcome.death or outcome.failure:
            self._try_again(training, problem["message"], struck=True, error=problem)
        else:
            self._try_again(training, "its worker was told to end", struck=False)

    def _try_again(
        self, training: Training, reason: str, *, struck: bool, error: Mapping[str, str] | None = None
    ) -> None:
        if struck and training.strikes + 1 >= _STRIKES:
            told = "The worker was lost each time that it did the training."
            lost = {
                "code": "worker-died",
                "message": told,
                "remedy": "Look at the machine and the worker's log.",
            }
            self.trainings.fail(training.id, error or lost)
        elif self.trainings.ask_again(training, struck=struck):
            log.warning("training %d goes on from its last checkpoint: %s", training.id, reason)

    def _show(self, training: Training) -> None:
        """Let Label Studio show the version of a challenger that serves."""
        note = self.show(training)
        self.trainings.tell(training.id)
        if note:
            self.trainings.note(training.id, note)
