"""A training as a job: its folder with order and checkpoints, what its process tells, and what becomes of it.

The order goes to the process by a file of the folder: it names every corrected picture and may be megabytes.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from heatbox.errors import (
    HeatboxError,
    OutputError,
    TrainingError,
    TrainingMemoryError,
    TrainingStalledError,
    WorkerDiedError,
)
from heatbox.queueing.limits import JobLimits

__all__ = ["PROGRESS", "Trained", "TrainingJob", "progress_key", "read_order", "write_order"]

PROGRESS = "progress"

_ORDER = "order.json"
_FOLDERS = "trainings"
_KEPT_SECONDS = 7 * 86_400.0  # for which the checkpoints of others are kept
_NAME = re.compile(r"[0-9]+-[0-9a-f]+")  # of a folder: Redis names it, and must not name another place


@dataclass(frozen=True)
class Trained:
    """What became of a training.

    Attributes:
        learnt: its result; None: there is none.
        failure: an error of ours, which would come again.
        death: why its process ended, which need not happen again.
        exit_code: of that process; negative: the signal.

    With none of them it was handed back: the worker was told to end.
    """

    learnt: Mapping[str, Any] | None = None
    failure: Mapping[str, str] | None = None
    death: Mapping[str, str] | None = None
    exit_code: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        return cls(**value)


@dataclass
class TrainingJob:
    """A training under way in a job process."""

    latest: Mapping[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def take(self, message: Mapping[str, Any]) -> Trained | None:
        """Note a message of the process and return the result where it was the last."""
        self.since = time.monotonic()
        if "progress" in message:
            self.latest = message["progress"]
        elif "learnt" in message:
            return Trained(learnt=message["learnt"])
        elif "failure" in message:
            return Trained(failure=message["failure"])
        elif "end" in message:
            return Trained()
        return None

    def trouble(self, limits: JobLimits, memory: int) -> HeatboxError | None:
        """Return over which limit the training is; `memory` is in bytes."""
        if time.monotonic() - self.since > limits.silence:
            return TrainingStalledError(
                f"The training told nothing for {limits.silence / 60:g} minutes.",
                "Look at the machine that it ran on and at the worker's log.",
            )
        if memory > limits.memory:
            return TrainingMemoryError(
                f"The training needed more than {limits.memory / 2**20:.0f} MiB.",
                "Raise HEATBOX_JOB_MEMORY, or train with --unfreeze 0.",
            )
        return None

    def died(self, told: str) -> HeatboxError:
        """Return the error of a process that ended by itself."""
        return WorkerDiedError(
            f"The process of the training ended with {told}.",
            "Look at the worker's log; signal 9 often means that the machine ran out of memory.",
        )

    def ended(self, error: HeatboxError, code: int) -> Trained:
        """Return the result of a training whose process is gone."""
        return Trained(death=error.as_dict(), exit_code=code)


def write_order(home: Path, name: str, order: Mapping[str, Any]) -> Path:
    """Put an order into the folder of its training, HOME/trainings/NAME, and return that; old ones are removed.

    Raises:
        OutputError: it cannot be written.
        TrainingError: the name is none of a training's folder.
    """
    if not _NAME.fullmatch(name):
        raise TrainingError(
            f"{name!r} is no name of a training's folder.",
            "Something else than heatbox has written to Redis.",
        )
    folder = home / _FOLDERS / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _remove_old(folder.parent)
        incoming = folder / f"{_ORDER}.{os.getpid()}"
        incoming.write_text(json.dumps(order), encoding="utf-8")
        incoming.replace(folder / _ORDER)
    except OSError as error:
        raise OutputError(
            f"The order of the training cannot be written: {error.strerror}.",
            "Free some space in HEATBOX_HOME of the machine that trains, then: heatbox train --resume NUMBER.",
        ) from error
    return folder


def read_order(folder: Path) -> dict[str, Any]:
    """Read what `write_order` wrote."""
    order: dict[str, Any] = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    return order


def _remove_old(parent: Path) -> None:
    for other in parent.iterdir():
        with suppress(FileNotFoundError):  # another process removes it at the same moment
            if time.time() - other.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def progress_key(job_id: str) -> str:
    """Return the key of the hash in which a worker tells how far a training is, as JSON in its field `PROGRESS`."""
    return f"hb:progress:{job_id}"
