"""The tables of background runs, and the values that come out of them.

A run is one wish: these pictures, this pipeline. An item is one task or picture of it with what became of it; a chunk
is a few items that were given to a worker together. An item's states:

    waiting --> computed --> done          computed: annotated, but not yet confirmed by Label Studio
       |            `------> failed        (a run over files has no such step)
       |-------------------> failed
       `--(at the start)---> kept          a prediction of this version was there before

A waiting item that belongs to a chunk is in some worker's hands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from heatbox.errors import HeatboxError
from heatbox.labelling.config import parse_label_config
from heatbox.labelling.tags import LabelConfig
from heatbox.ledger import metadata
from heatbox.pipeline import Pipeline

__all__ = [
    "Chunk",
    "Computed",
    "Counts",
    "Failed",
    "Item",
    "ItemState",
    "NewItem",
    "NewRun",
    "Run",
    "RunState",
    "chunks",
    "items",
    "runs",
]


class RunState(StrEnum):
    """What a run as a whole is at."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


class ItemState(StrEnum):
    """What one item is at; see the drawing above."""

    WAITING = "waiting"
    COMPUTED = "computed"
    DONE = "done"
    FAILED = "failed"
    KEPT = "kept"


runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("state", String(10), nullable=False, index=True),
    Column("title", Text, nullable=False),
    Column("version", String(300), nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("label_config", Text, nullable=False),
    Column("project", Integer, index=True),
    Column("filter", Text, nullable=False, default="{}"),
    Column("most", Integer),
    Column("cursor", Integer, nullable=False, default=0),
    Column("read_all", Boolean, nullable=False),
    Column("late", Boolean, nullable=False, default=False),
    Column("replace", Boolean, nullable=False, default=False),
    Column("out", Text),
    Column("note", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
)

items = Table(
    "items",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("state", String(10), nullable=False),
    Column("name", Text, nullable=False),
    Column("task", Integer, index=True),
    Column("addresses", Text, nullable=False),
    Column("content", Text),
    Column("fingerprint", String(100)),
    Column("chunk", ForeignKey("chunks.id"), index=True),
    Column("alone", Boolean, nullable=False, default=False),
    Column("strikes", Integer, nullable=False, default=0),
    Column("due_at", Float, nullable=False, default=0.0),
    Column("prediction", Text),
    Column("boxes", Integer),
    Column("seconds", Float),
    Column("code", String(40)),
    Column("reason", Text),
    Column("changed_at", Float, nullable=False),
    UniqueConstraint("run", "task"),
)
Index("items_of_a_run_by_state", items.c.run, items.c.state, items.c.id)
Index("items_by_fingerprint", items.c.fingerprint, sqlite_where=items.c.fingerprint.is_not(None))

chunks = Table(
    "chunks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("job", String(60), nullable=False),
    Column("open", Boolean, nullable=False, index=True),
)


@dataclass(frozen=True)
class NewRun:
    """What a run is asked for.

    Attributes:
        title: what a person calls it.
        pipeline: that annotates.
        label_config: XML whose control the regions fill.
        project: number in Label Studio; None: pictures of this machine.
        filter: which of its tasks (`TaskFilter.as_dict`).
        most: at most so many tasks; None: all.
        late: answers to `/predict` that were not ready in time.
        replace: whether heatbox's own older predictions of the tasks are removed.
        out: JSON lines file of a run over files.
    """

    title: str
    pipeline: Pipeline
    label_config: str
    project: int | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    most: int | None = None
    late: bool = False
    replace: bool = False
    out: str | None = None


@dataclass(frozen=True)
class Run(NewRun):
    """A run as the ledger has it: also its number, state, the last task read, and what troubles it."""

    id: int = 0
    state: RunState = RunState.RUNNING
    cursor: int = 0
    read_all: bool = True
    note: str = ""
    created_at: float = 0.0
    ended_at: float | None = None

    @property
    def config(self) -> LabelConfig:
        """The label config that the regions fill."""
        return parse_label_config(self.label_config)


@dataclass(frozen=True)
class NewItem:
    """One task or picture of a run.

    Attributes:
        name: what a person calls it.
        addresses: of its pictures, in order (`heatbox.pictures.wanted.Wanted.text`).
        task: number in Label Studio.
        content: a task of a tasks file, as it came.
        fingerprint: of the file's path, size and time: the same means the same picture.
        kept: whether its prediction of this version is there already.
        code, reason: why it cannot even be tried.
    """

    name: str
    addresses: tuple[str, ...] = ()
    task: int | None = None
    content: Mapping[str, Any] | None = None
    fingerprint: str | None = None
    kept: bool = False
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Item:
    """One item as the ledger has it."""

    id: int
    run: int
    state: ItemState
    name: str
    task: int | None
    addresses: tuple[str, ...]
    content: Mapping[str, Any] | None
    strikes: int
    alone: bool
    prediction: Mapping[str, Any] | None
    code: str | None
    reason: str | None


@dataclass(frozen=True)
class Chunk:
    """Items that a worker was given together, under the id of a job."""

    id: int
    run: int
    job: str
    items: tuple[Item, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The pictures of all items in order, each once."""
        return tuple(dict.fromkeys(address for item in self.items for address in item.addresses))


@dataclass(frozen=True)
class Counts:
    """How many items of a run are in each state, how many boxes they have, and how fast it goes.

    Attributes:
        by_state: items by state.
        by_code: failed items by error code.
        boxes: of all predictions.
        seconds_per_picture: mean over what this run computed; None before the first.
        per_second: pictures that came to an end in each second of the last minute.
        timed: how many pictures the mean is over.
    """

    by_state: Mapping[ItemState, int]
    by_code: Mapping[str, int]
    boxes: int
    seconds_per_picture: float | None
    per_second: float
    timed: int

    @property
    def total(self) -> int:
        """All items that are known so far."""
        return sum(self.by_state.values())

    @property
    def left(self) -> int:
        """Items that have not come to an end."""
        return self.by_state.get(ItemState.WAITING, 0) + self.by_state.get(ItemState.COMPUTED, 0)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the present speed."""
        return self.left / self.per_second if self.left and self.per_second else None


@dataclass(frozen=True)
class Computed:
    """An item that was annotated: its prediction as Label Studio takes it, and the seconds that it took."""

    item: int
    prediction: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Failed:
    """An item that has come to its end without a prediction, and why."""

    item: int
    code: str
    reason: str

    @classmethod
    def because(cls, item: int, error: HeatboxError) -> "Failed":
        """Return what an error does to an item."""
        return cls(item, error.code, f"{error.sentence} {error.remedy}")
