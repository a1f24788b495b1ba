"""What a training job does in the job process: one training in its folder, one process at a time.

A worker that is thought dead may still train when another one begins; who comes second waits for the folder's lock and
then finds the checkpoints of the first.
"""

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heatbox.errors import HeatboxError, InternalError, OutputError, TrainingError
from heatbox.queueing.training_job import read_order
from heatbox.settings import Settings
from heatbox.trainings.order import TrainingOrder

__all__ = ["learn"]

log = logging.getLogger(__name__)

_WAIT_SECONDS = 0.5


def learn(folder: Path, settings: Settings, tell: Callable[..., None]) -> None:
    """Do the training whose order lies in the folder, and tell how far it is and what came of it.

    Args:
        folder: of the order and the checkpoints.
        settings: of the job process.
        tell: called as `tell(progress=...)`, at the end as `tell(learnt=...)` or `tell(failure=...)`.
    """
    try:
        from heatbox_workers.training import run_training

        with _alone(folder, tell):
            order = _order(folder)
            result = run_training(order, settings, folder, lambda progress: tell(progress=progress))
    except HeatboxError as error:
        tell(failure=error.as_dict())
    except OSError as error:
        told = f"The training cannot go on: {error.strerror or error}."
        remedy = "Give HEATBOX_HOME and the store space and the right to write, then: heatbox train --resume NUMBER."
        tell(failure=OutputError(told, remedy).as_dict())
    except Exception as error:  # an edge: a defect would come again, and a process that dies is tried again
        log.exception("the training met a defect")
        tell(
            failure=InternalError(
                f"The training met a defect ({error!r}).", "Read the worker's log."
            ).as_dict()
        )
    else:
        tell(learnt=result)


def _order(folder: Path) -> TrainingOrder:
    try:
        return TrainingOrder.from_dict(read_order(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"The order of the training cannot be read ({type(error).__name__}).",
            "Is the worker of the same version as the service? Then: heatbox train --resume NUMBER.",
        ) from error


@contextmanager
def _alone(folder: Path, tell: Callable[..., None]) -> Iterator[None]:
    with (folder / "lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(progress={"stage": "another process of this machine is at it"})
                time.sleep(_WAIT_SECONDS)
            else:
                break
        yield
