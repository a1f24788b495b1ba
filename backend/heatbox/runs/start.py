"""From what a person asks of a project to a run in the ledger; nothing is written before `Prepared.create`.

The run gets the pipeline that `/setup` names for the same settings. Its tasks are read by the conductor, page by page.
Runs over files begin in `heatbox.runs.files`.
"""

from dataclasses import dataclass, field

from heatbox.labelling.config import parse_label_config
from heatbox.labelling.tags import LabelConfig
from heatbox.ledger import Ledger
from heatbox.remote_store import open_store
from heatbox.runs.records import Runs
from heatbox.runs.tables import NewItem, NewRun
from heatbox.serving import classes_by_label, serve_project
from heatbox.settings import Settings
from heatbox.studio.client import Studio
from heatbox.studio.task_filter import TaskFilter

__all__ = ["Prepared", "ProjectRequest", "prepare_project_run"]

_PAGE = 1000


@dataclass(frozen=True)
class ProjectRequest:
    """A run over the tasks of a project.

    Attributes:
        project: number in Label Studio.
        filters: which of its tasks.
        most: at most so many of them; None: all.
        replace: whether heatbox's own older predictions of the tasks are removed.
        given: names of settings that were given by hand and go before the label config.
    """

    project: int
    filters: TaskFilter = field(default_factory=TaskFilter)
    most: int | None = None
    replace: bool = False
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Prepared:
    """A run that can be written, and what a person should know before.

    Attributes:
        new: the run.
        content: its items, where they are known before it starts.
        config: that the regions fill.
        total: tasks of the project, or pictures that were found.
        taken: those that filter and limit leave.
        known: those of them that have a prediction of this version; None: it was not counted.
        wrong: those of them that cannot even be tried.
        warnings: what a person should read, one sentence each.
    """

    new: NewRun
    content: tuple[NewItem, ...]
    config: LabelConfig
    total: int
    taken: int
    known: int | None = None
    wrong: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def classes_by_label(self) -> dict[str, tuple[str, ...]]:
        """The classes that stand for each label; none where a label never gets a box."""
        return classes_by_label(self.new.pipeline, self.config)

    def create(self, runs: Runs) -> int:
        """Write the run and return its number."""
        return runs.create(self.new, self.content)


def prepare_project_run(
    settings: Settings, studio: Studio, request: ProjectRequest, *, count_known: bool = False
) -> Prepared:
    """Ask Label Studio for the project and map its labels.

    Args:
        settings: of the service, with what was chosen for this run.
        studio: that has the project.
        request: what is asked for.
        count_known: whether the tasks with a prediction of this version are counted, which takes a second for
            two thousand tasks; the run itself finds them anyway.

    Raises:
        HeatboxError: Label Studio gives no answer, or the request as a whole cannot be met.
    """
    project = studio.project(request.project)
    config = parse_label_config(project.label_config)
    ledger = Ledger(settings.ledger_url)
    try:
        store = open_store(settings)
        serving = serve_project(settings, store, ledger, config, request.given, request.project)
    finally:
        ledger.close()
    total = studio.count_tasks(request.project)
    taken = total if request.filters == TaskFilter() else studio.count_tasks(request.project, request.filters)
    new = NewRun(
        project.title or f"project {project.id}",
        serving.pipeline,
        project.label_config,
        project=project.id,
        filter=request.filters.as_dict(),
        most=request.most,
        replace=request.replace,
    )
    return Prepared(
        new,
        (),
        config,
        total,
        taken if request.most is None else min(taken, request.most),
        _count_known(studio, request, serving.pipeline.version) if count_known else None,
        warnings=serving.warnings,
    )


def _count_known(studio: Studio, request: ProjectRequest, version: str) -> int:
    """Return how many of the tasks that are taken have a prediction of the version."""
    known = after = 0
    left = request.most
    while left is None or left > 0:
        page = studio.tasks(
            request.project, request.filters, after, version=version, page_size=min(_PAGE, left or _PAGE)
        )
        if not page:
            break
        known += sum(task.has_version for task in page)
        after = page[-1].id
        left = None if left is None else left - len(page)
    return known
