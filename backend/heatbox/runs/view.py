"""What a person or a program is told about a background run: one view for command line, HTTP, events and page."""

import time
from datetime import UTC, datetime
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field

from heatbox.runs.records import Runs
from heatbox.runs.tables import Counts, ItemState, Run, RunState

__all__ = ["FailedItem", "RunView", "RunViews", "duration", "failed_items", "look", "speed"]

_OPEN = (RunState.RUNNING, RunState.PAUSED)
_SETTLED_SECONDS = 300.0  # after its end: the last workers have given back what they held


class RunView(BaseModel):
    """How far a run is."""

    model_config = ConfigDict(frozen=True)

    id: int = Field(description="Number of the run.")
    title: str = Field(description="What a person calls it.")
    state: RunState = Field(description="`running`, `paused`, `cancelled` or `done`.")
    reading: bool = Field(description="Whether tasks are still being read, so that `total` grows.")
    version: str = Field(description="Model version that the predictions carry.")
    model: str = Field(description="`name@version` of the model.")
    explainer: str = Field(description="Name of the explainer.")
    project: int | None = Field(description="Project in Label Studio; null: files of this machine.")
    created_at: datetime = Field(description="When it was asked for.")
    ended_at: datetime | None = Field(description="When it was done or cancelled.")
    total: int = Field(description="Items known so far.")
    done: int = Field(description="Items that were annotated, and confirmed by Label Studio.")
    kept: int = Field(description="Items that had a prediction of this version at the start.")
    failed: int = Field(description="Items that came to an end without a prediction.")
    left: int = Field(description="Items that have not come to an end.")
    computed: int = Field(description="Of those left: annotated, and not yet confirmed by Label Studio.")
    errors: dict[str, int] = Field(description="Failed items by error code.")
    boxes: int = Field(description="Boxes of all predictions.")
    pictures_per_second: float = Field(
        description="Items that come to an end in a second: in the last minute, of an ended run over its whole time."
    )
    seconds_per_picture: float | None = Field(description="Mean computing time; null before the first.")
    timed: int = Field(description="Pictures that this mean is over.")
    seconds_left: float | None = Field(description="How long the rest takes at this speed; null: not known.")
    note: str = Field(description="What troubles the run; mostly empty.")

    @property
    def is_open(self) -> bool:
        """Whether more can happen by itself or after `resume`."""
        return self.state in _OPEN

    @property
    def ended(self) -> int:
        """Items that have come to an end."""
        return self.total - self.left


class FailedItem(BaseModel):
    """An item that came to an end without a prediction."""

    model_config = ConfigDict(frozen=True)

    id: int = Field(description="Number of the item; the next page comes `after` the last one.")
    name: str = Field(description="What a person calls it.")
    task: int | None = Field(description="Task in Label Studio.")
    code: str = Field(description="Error code.")
    reason: str = Field(description="What was wrong, and what to do.")


def look(runs: Runs, number: int) -> RunView:
    """Return the view of a run.

    Raises:
        RunNotFoundError: there is none of this number.
    """
    run = runs.find(number)
    return _view(run, runs.counts(number))


class RunViews:
    """The views of the newest runs; that of a run which has long ended is made once, because counting takes time."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._settled: dict[tuple[int, float], RunView] = {}

    def newest(self, most: int) -> list[RunView]:
        """Return the views of the newest runs, the newest first."""
        return [self._view(run) for run in self.runs.newest(most)]

    def _view(self, run: Run) -> RunView:
        ended = run.ended_at
        if ended is None or time.time() - ended < _SETTLED_SECONDS:
            return _view(run, self.runs.counts(run.id))
        if (run.id, ended) not in self._settled:
            self._settled[run.id, ended] = _view(run, self.runs.counts(run.id))
        return self._settled[run.id, ended]


def failed_items(runs: Runs, number: int, most: int, after: int = 0) -> list[FailedItem]:
    """Return a run's failed items in the order in which they came, at most so many, after this item."""
    return [
        FailedItem(
            id=one.id, name=one.name, task=one.task, code=one.code or "unknown", reason=one.reason or ""
        )
        for one in islice(runs.items(number, (ItemState.FAILED,), after), most)
    ]


def duration(seconds: float) -> str:
    """Return a time in words: `8 s`, `5 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes, days = round(seconds / 60), round(seconds / 3600) / 24
    if seconds < 90:  # noqa: PLR2004 - seconds
        return f"{seconds:.0f} s"
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{int(days)} d {round(days % 1 * 24)} h"


def speed(view: RunView) -> str:
    """Return how fast a run goes, in words; empty before the first picture."""
    parts = []
    if view.pictures_per_second:
        parts.append(f"{_short(view.pictures_per_second)} pictures/s")
    if view.seconds_per_picture is not None:
        parts.append(f"{_short(view.seconds_per_picture)} s each")
    return ", ".join(parts)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"  # noqa: PLR2004 - two digits are enough


def _view(run: Run, counts: Counts) -> RunView:
    states = counts.by_state
    return RunView(
        id=run.id,
        title=run.title,
        state=run.state,
        reading=run.state in _OPEN and not run.read_all,
        version=run.pipeline.version,
        model=run.pipeline.model,
        explainer=run.pipeline.explainer,
        project=run.project,
        created_at=_moment(run.created_at),
        ended_at=None if run.ended_at is None else _moment(run.ended_at),
        total=counts.total,
        done=states.get(ItemState.DONE, 0),
        kept=states.get(ItemState.KEPT, 0),
        failed=states.get(ItemState.FAILED, 0),
        left=counts.left,
        computed=states.get(ItemState.COMPUTED, 0),
        errors=dict(counts.by_code),
        boxes=counts.boxes,
        pictures_per_second=round(_per_second(run, counts), 3),
        seconds_per_picture=counts.seconds_per_picture,
        timed=counts.timed,
        seconds_left=counts.seconds_left if run.state is RunState.RUNNING else None,
        note=run.note,
    )


def _per_second(run: Run, counts: Counts) -> float:
    """Return the speed: of now while it runs, none while it rests, the mean when it has ended."""
    if run.state is RunState.RUNNING:
        return counts.per_second
    if run.ended_at is None:
        return 0.0
    tried = counts.by_state.get(ItemState.DONE, 0) + counts.by_state.get(ItemState.FAILED, 0)
    return tried / max(run.ended_at - run.created_at, 1.0)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)
