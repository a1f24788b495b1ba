"""The side of a run that Label Studio sees: its tasks are read page by page, its predictions written and confirmed.

Before predictions are written, Label Studio is asked which tasks hold one of this version; after it, which do now. So
an answer that was lost, or a conductor that was killed before it came, costs a question and not a second prediction.
When nothing of a run is open any more, all of its tasks are looked at once more: a request that was thought dead may
have arrived late.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from heatbox.errors import (
    HeatboxError,
    PredictionRefusedError,
    StudioRefusedError,
    TaskGoneError,
    TasksFileError,
)
from heatbox.labelling.tags import LabelConfig
from heatbox.labelling.tasks import wanted_pictures
from heatbox.runs.records import Runs
from heatbox.runs.tables import Failed, Item, ItemState, NewItem, Run
from heatbox.serving import usable_labels
from heatbox.studio.client import Studio, StudioTask, is_own
from heatbox.studio.task_filter import TaskFilter

__all__ = ["DOUBT_SECONDS", "ProjectTasks"]

DOUBT_SECONDS = 10.0  # for which a request whose answer was lost may still be at work in Label Studio

_PAGE = 500
_READ_AHEAD = 2000  # tasks that are known and wait
_PUSHED = 200  # predictions of one request
_LOOKED = 500  # tasks of one last look
_ABOUT_CONTENT = {400, 413, 422}  # HTTP statuses that refuse a prediction, not us


@dataclass
class ProjectTasks:
    """Tasks of projects on behalf of runs.

    Attributes:
        runs: of the ledger.
        open_studio: returns a client of Label Studio.
    """

    runs: Runs
    open_studio: Callable[[], Studio]
    _client: Studio | None = None
    _looked: dict[int, int] = field(default_factory=dict)  # last item of the last look, by run

    def read(self, run: Run) -> bool:
        """Read the next page of a project's tasks into the ledger."""
        if run.read_all or run.project is None:
            return False
        total, left = self.runs.progress(run.id)
        if left > _READ_AHEAD:
            return False
        room = _PAGE if run.most is None else min(_PAGE, run.most - total)
        filters, version, config = TaskFilter.from_dict(run.filter), run.pipeline.version, run.config
        tasks = (
            self._studio().tasks(
                run.project,
                filters,
                run.cursor,
                version=version,
                page_size=room,
                annotations=config.question is not None,
            )
            if room > 0
            else []
        )[: max(room, 0)]
        kept = [task.id for task in tasks if task.has_version]
        if run.replace and kept:
            known = self._studio().stored(run.project, version, kept)
            self._tidy(self._studio(), run, known.duplicates, known.older & known.holding)
        usable = usable_labels(run.pipeline, config)
        new = [_new_item(task, config, usable) for task in tasks]
        self.runs.add_read(run.id, new, tasks[-1].id if tasks else run.cursor, read_all=not tasks)
        return bool(tasks)

    def write(self, run: Run) -> bool:
        """Write predictions that are due and tick off those that Label Studio then holds."""
        if run.project is None:
            return False
        due = {item.task: item for item in self.runs.pushable(run.id, _PUSHED) if item.task is not None}
        if not due:
            return False
        studio, version = self._studio(), run.pipeline.version
        before = studio.stored(run.project, version, list(due))
        wanted = {task: due[task] for task in due if task in before.existing - before.holding}
        refused: dict[int, HeatboxError] = {}
        if wanted:  # for a while nobody else sends them, should we be gone before the answer comes
            self.runs.hold([item.id for item in wanted.values()], DOUBT_SECONDS)
            refused = _push_all(studio, run.project, wanted)
        after = studio.stored(run.project, version, list(due)) if wanted else before
        self._tidy(studio, run, after.duplicates, after.older & after.holding)
        stored = [due[task].id for task in due if task in after.holding]
        self.runs.confirm(
            stored,
            [
                _lost(due[task], refused.get(task), task in after.existing)
                for task in due
                if task not in after.holding
            ],
        )
        return True

    def _tidy(
        self, studio: Studio, run: Run, duplicates: Mapping[int, Sequence[int]], older: frozenset[int]
    ) -> None:
        """Remove copies of our own predictions, and where it was asked for those of our own older versions."""
        for numbers in duplicates.values():
            for number in numbers[1:]:
                studio.delete_prediction(number)
        if not run.replace or not older or run.project is None:
            return
        for found in studio.predictions(run.project, sorted(older)).values():
            for number, version in found:
                if is_own(version) and version != run.pipeline.version:
                    studio.delete_prediction(number)

    def forget_look(self, run: Run) -> None:
        """Begin the last look anew, because something of the run is open again."""
        self._looked.pop(run.id, None)

    def look_again(self, run: Run) -> bool:
        """Look at the next tasks of a run for second copies of its predictions; return whether it was the last look."""
        if run.project is None:
            return True
        found = islice(self.runs.items(run.id, [ItemState.DONE], self._looked.get(run.id, 0)), _LOOKED)
        tasks = {item.id: item.task for item in found if item.task is not None}
        if not tasks:
            self._looked.pop(run.id, None)
            return True
        studio = self._studio()
        known = studio.stored(run.project, run.pipeline.version, list(tasks.values()))
        self._tidy(studio, run, known.duplicates, frozenset())
        self._looked[run.id] = max(tasks)
        return False

    def close(self) -> None:
        """Let go of Label Studio."""
        if self._client is not None:
            self._client.__exit__()

    def _studio(self) -> Studio:
        if self._client is None:
            self._client = self.open_studio()
        return self._client


def _new_item(task: StudioTask, config: LabelConfig, usable: Collection[str]) -> NewItem:
    name = f"task {task.id}"
    try:
        wanted = wanted_pictures(task.as_dict(), config, usable)
        return NewItem(name, tuple(one.text for one in wanted), task.id, kept=task.has_version)
    except TasksFileError as error:  # the sentence may quote the data, and that may hold a token
        return NewItem(name, task=task.id, kept=task.has_version, code=error.code, reason=error.remedy)


def _push_all(studio: Studio, project: int, wanted: Mapping[int, Item]) -> dict[int, HeatboxError]:
    """Write predictions in one request, one by one where it is refused as a whole; return what was refused, and why."""
    content = [{**(item.prediction or {}), "task": task} for task, item in wanted.items()]
    try:
        studio.push(project, content)
    except StudioRefusedError as error:
        if error.status not in _ABOUT_CONTENT:  # the run waits and says why
            raise
        if len(content) == 1:
            return {next(iter(wanted)): error}
    else:
        return {}
    refused: dict[int, HeatboxError] = {}
    for task, item in wanted.items():
        refused |= _push_all(studio, project, {task: item})
    return refused


def _lost(item: Item, refused: HeatboxError | None, exists: bool) -> Failed:  # noqa: FBT001 - one fact about the task
    if not exists:
        return Failed.because(
            item.id,
            TaskGoneError(f"Task {item.task} is not in the project any more.", "Nothing, if it was meant."),
        )
    reason = f" ({refused.sentence})" if refused else ""
    return Failed.because(
        item.id,
        PredictionRefusedError(
            f"Label Studio did not store the prediction of task {item.task}{reason}.",
            "Compare the project's label config with the one that the run was started with.",
        ),
    )
