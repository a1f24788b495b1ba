"""Where the trainer runs: in a thread of the web service, or in the foreground of `heatbox train`."""

import logging
import os
from collections.abc import Callable, Mapping

from heatbox.activation import find_model
from heatbox.background import Background
from heatbox.errors import HeatboxError, ModelNotFoundError
from heatbox.ledger import Ledger
from heatbox.queueing.job_process import JobLimits, JobProcess
from heatbox.remote_store import open_store
from heatbox.runs.conducting import open_studio
from heatbox.settings import Settings, as_environment
from heatbox.studio.client import Studio
from heatbox.trainings.lanes import LocalTrainLane, RedisTrainLane, TrainLane
from heatbox.trainings.preparing import prepare
from heatbox.trainings.records import Trainings
from heatbox.trainings.request import TrainingRequest
from heatbox.trainings.showing import show_version
from heatbox.trainings.tables import NewTraining, Training
from heatbox.trainings.trainer import Trainer

__all__ = ["TrainerThread", "make_trainer", "move"]

log = logging.getLogger(__name__)

_BUSY_SECONDS, _IDLE_SECONDS, _TROUBLE_SECONDS = 0.3, 1.0, 3.0


def make_trainer(
    settings: Settings, ledger: Ledger, environment: Mapping[str, str], only: int | None = None
) -> Trainer:
    """Return the trainer that the settings mean, perhaps of one training only."""

    def studio() -> Studio:
        return open_studio(settings, patient=False)

    def make_order(training: Training) -> NewTraining:
        return prepare(settings, ledger, TrainingRequest.from_dict(training.request), studio).new

    def named(training: Training) -> str | None:
        if not training.reference or "@" in training.reference:
            return None
        try:
            return find_model(open_store(settings), ledger, training.reference).id
        except ModelNotFoundError:
            return None

    def require(model: str) -> None:
        try:
            open_store(settings).find(model)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"The worker has made {model}, which is not in the model store of this machine.",
                "Let all machines use one store (HEATBOX_STORE): see docs/how-to/several-machines.md.",
            ) from error

    def show(training: Training) -> str:
        return show_version(settings, ledger, training, studio)

    lane = _open_lane(settings, environment)
    return Trainer(Trainings(ledger), lane, make_order, named, require, show, only)


def move(trainer: Trainer, is_over: Callable[[], bool]) -> None:
    """Move trainings on until it is over; wait where something does not answer."""
    told = ""
    while not is_over():
        trouble = ""
        try:
            trainer.lane.wait(_BUSY_SECONDS if trainer.step() else _IDLE_SECONDS)
        except HeatboxError as error:
            trouble = str(error)
            trainer.lane.wait(_TROUBLE_SECONDS)
        if trouble != told:  # said once
            log.warning("trainings: %s", trouble or "all is well again")
            told = trouble


class TrainerThread(Background):
    """The trainer of a web service."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        super().__init__("trainer")
        self._settings = settings
        self._ledger = ledger

    def run(self) -> None:
        """Move trainings on until the service stops."""
        trainer = make_trainer(self._settings, self._ledger, os.environ)
        while not self.stopping.is_set():
            try:
                move(trainer, self.stopping.is_set)
            except Exception:  # an edge: a defect must not end all trainings until the next start
                log.exception("the trainer met a defect and goes on")
                self.stopping.wait(_TROUBLE_SECONDS)
        trainer.close()


def _open_lane(settings: Settings, environment: Mapping[str, str]) -> TrainLane:
    if settings.redis_url:
        return RedisTrainLane(settings.redis_url)
    own = settings.model_copy(update={"workers": 1})
    limits = JobLimits.for_machine(settings.picture_seconds, settings.job_memory, 1)
    return LocalTrainLane(
        JobProcess({**environment, **as_environment(own)}, limits, of_trainings=True), settings.home
    )
