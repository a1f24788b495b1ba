"""The table of trainings, and the values that come out of it.

    queued --> running --> done
       |          |------> failed
       |----------|------> cancelled

A training is queued until a worker shows progress. Its order is made later where a webhook asked for it. A job that is
lost or handed back is asked for again under the next serial number; deaths of its process are counted as strikes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Boolean, Column, Float, Integer, String, Table, Text

from heatbox.ledger import metadata

__all__ = ["NewTraining", "Training", "TrainingState", "trainings"]


class TrainingState(StrEnum):
    """What a training is at."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


trainings = Table(
    "trainings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("state", String(10), nullable=False, index=True),
    Column("title", Text, nullable=False),
    Column("project", Integer, index=True),
    Column("request", Text, nullable=False),
    Column("order", Text),
    Column("reference", String(200), nullable=False, default=""),
    Column("activate", Boolean, nullable=False, default=True),
    Column("token", String(20), nullable=False),
    Column("serial", Integer, nullable=False, default=0),
    Column("strikes", Integer, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Column("progress", Text, nullable=False, default="{}"),
    Column("result", Text),
    Column("code", String(40)),
    Column("sentence", Text),
    Column("remedy", Text),
    Column("challenger", String(200)),
    Column("base", String(200), nullable=False, default=""),
    Column("champion", String(200), nullable=False, default=""),
    Column("activated", Boolean, nullable=False, default=False),
    Column("reason", Text, nullable=False, default=""),
    Column("told", Boolean, nullable=False, default=True),
    Column("note", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
)


@dataclass(frozen=True)
class NewTraining:
    """What a training is asked for.

    Attributes:
        title: what a person calls it.
        project: number in Label Studio; None: folders only.
        request: of which the order is made (`TrainingRequest.as_dict`).
        order: `TrainingOrder.as_dict`; None: it is made later.
        reference: how the project names its model: `""`: the active one, a plain name, or `name@version`.
        base: `name@version` of the model that is begun from.
        champion: `name@version` of the model to compare with; empty: there is none.
        activate: whether a better model is to serve at once.
    """

    title: str
    project: int | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    order: Mapping[str, Any] | None = None
    reference: str = ""
    base: str = ""
    champion: str = ""
    activate: bool = True


@dataclass(frozen=True)
class Training:
    """A training as the ledger has it, without its order, which may be megabytes.

    Attributes:
        id: its number.
        state: see the drawing above.
        title: what a person calls it.
        project: number in Label Studio; None: folders only.
        request: of which the order is made.
        has_order: whether it was made.
        reference: how the project names its model.
        activate: whether a better model is to serve at once.
        token: part of the name of its folder and its jobs.
        serial: how often its job was asked for again.
        strikes: how often its process died since the last epoch.
        progress: what the worker told last.
        result: of `run_training`; None: there is none yet.
        code, sentence, remedy: why it failed.
        challenger: `name@version` of the model that it has made.
        base: `name@version` of the model that was begun from.
        champion: `name@version` of the model that it was compared with; empty: there was none.
        activated: whether the challenger serves.
        reason: why, or why not, in words.
        told: whether Label Studio need not be told of a new version any more.
        note: what troubles it now.
        created_at, started_at, ended_at: seconds since 1970.
    """

    id: int
    state: TrainingState
    title: str
    project: int | None
    request: Mapping[str, Any]
    has_order: bool
    reference: str
    activate: bool
    token: str
    serial: int
    strikes: int
    progress: Mapping[str, Any]
    result: Mapping[str, Any] | None
    code: str | None
    sentence: str | None
    remedy: str | None
    challenger: str | None
    base: str
    champion: str
    activated: bool
    reason: str
    told: bool
    note: str
    created_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def is_open(self) -> bool:
        """Whether it has not come to an end."""
        return self.state in {TrainingState.QUEUED, TrainingState.RUNNING}

    @property
    def folder(self) -> str:
        """Name of the folder in which a worker keeps its checkpoints."""
        return f"{self.id}-{self.token}"

    @property
    def job(self) -> str:
        """Id of its present job."""
        return f"train-{self.folder}-{self.serial}"
