"""`heatbox next`: put a project's open tasks into the order in which labelling them teaches the classifier most."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, bar, err, out
from heatbox.cli.options import Roots

if TYPE_CHECKING:
    from heatbox.errors import HeatboxError
    from heatbox.labelling.tags import LabelConfig
    from heatbox.pictures.wanted import Wanted
    from heatbox.settings import Settings
    from heatbox.studio.client import Studio
    from heatbox.studio.priorities import ListedTask
    from heatbox_workers.next_up.judging import Judge, Place

__all__ = ["By", "next_up"]

_SHOWN = 20
_TOLD = 10


class By(StrEnum):
    """What the order goes by."""

    MIXED = "mixed"
    DOUBT = "doubt"
    DIVERSITY = "diversity"
    DISAGREEMENT = "disagreement"


def next_up(
    project: Annotated[
        int, typer.Option("--project", "-p", min=1, metavar="NUMBER", help="Project in Label Studio.")
    ],
    *,
    by: Annotated[By, typer.Option(help="What the order goes by.")] = By.MIXED,
    limit: Annotated[int, typer.Option(min=1, max=99_999, help="How many tasks get a place.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Above 1000 open tasks, what diversity draws.")] = 0,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Explainer that must agree; default: box_regression where it was fitted, else layer_cam.",
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the order as CSV too.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the order and write nothing to Label Studio.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Take the places away again, and do nothing else.")
    ] = False,
    root: Roots = None,
) -> None:
    """Say which tasks to label next: doubtful ones, ones that explainers disagree about, ones unlike the others.

    Writes data["heatbox_next"] = "00001", "00002", ... into tasks that nobody has annotated, and takes older places
    away. Sort by that column in the data manager. Annotations, predictions and the rest of the data stay as they are.
    """
    if dry_run and forget:
        raise typer.BadParameter("Give one of --dry-run and --forget.")
    from heatbox.runs.conducting import open_studio
    from heatbox.settings import read_settings
    from heatbox.studio.priorities import KEY, list_tasks

    settings = read_settings(os.environ)
    settings = settings.model_copy(update={"local_roots": (*settings.local_roots, *(root or ()))})
    with open_studio(settings) as studio:
        config = studio.project(project).label_config
        with err().status("Reading the tasks ..."):
            tasks = list(list_tasks(studio, project))
        stale: dict[int, int | None] = {task.id: None for task in tasks if KEY in task.data}
        if forget:
            _write(studio, project, stale)
            return
        chosen, failed = _chosen(settings, config, project, tasks, (by, against, limit, seed))
        _print(chosen, sum(task.is_open for task in tasks), len(tasks))
        if csv is not None:
            _write_csv(csv, chosen, f"{settings.studio_url.rstrip('/')}/projects/{project}/data?task=")
        if not dry_run:
            _write(studio, project, stale | {one.task: one.place for one in chosen})
    _print_failed(failed)
    if failed:
        raise typer.Exit(PARTLY)


def _chosen(
    settings: "Settings",
    label_config: str,
    project: int,
    tasks: "Sequence[ListedTask]",
    wanted: tuple[By, str | None, int, int],
) -> "tuple[list[Place], dict[int, HeatboxError]]":
    """Look at the pictures and return the order, and the tasks that cannot be looked at.

    Raises:
        HeatboxError: none of them can.
    """
    from heatbox.labelling.config import parse_label_config
    from heatbox.ledger import Ledger
    from heatbox.pictures.fetching import Fetcher
    from heatbox.remote_store import open_store
    from heatbox_workers.process import prepare_process

    prepare_process(settings.threads, 1)
    from heatbox_workers.next_up.judging import make_judge, order

    by, against, limit, seed = wanted
    config = parse_label_config(label_config)
    with closing(Ledger(settings.ledger_url)) as ledger, closing(Fetcher(settings)) as fetcher:

        def fetch(one: "Wanted") -> Path:
            return fetcher.fetch(one.address, one.task)

        with err().status("Loading the model ..."):
            store = open_store(settings)
            judge = make_judge(settings, store, ledger, config, project, fetch, by=by, against=against)
        for note in judge.notes:
            err().print(f"[yellow]note[/]: {_escaped(note)}", highlight=False, soft_wrap=True)
        pictures = _pictures(tasks, config, judge)
        answered = [one for task in tasks if not task.is_open for one in pictures.get(task.id, ())]
        answered = answered if "diversity" in judge.criteria else []
        open_ones = {task.id: pictures[task.id] for task in tasks if task.is_open and task.id in pictures}
        with bar("looking", len(answered) + sum(map(len, open_ones.values()))) as told:
            corrected = judge.embed(answered, told)
            measured = judge.measure(open_ones, told)
    if judge.failed and not measured:
        raise next(iter(judge.failed.values()))
    return order(measured, corrected, judge.criteria, limit, seed), judge.failed


def _pictures(
    tasks: "Sequence[ListedTask]", config: "LabelConfig", judge: "Judge"
) -> "dict[int, Sequence[Wanted]]":
    """Return the pictures of each task; an open one without any is told of."""
    from heatbox.errors import TasksFileError
    from heatbox.labelling.tasks import wanted_pictures

    usable = () if judge.first is None else judge.first.known
    pictures: dict[int, Sequence[Wanted]] = {}
    for task in tasks:
        try:
            pictures[task.id] = wanted_pictures({"id": task.id, "data": task.data}, config, usable)
        except TasksFileError as error:
            if task.is_open:
                judge.failed[task.id] = error
    return pictures


def _write(studio: "Studio", project: int, places: Mapping[int, int | None]) -> None:
    from heatbox.studio.priorities import KEY, write_places

    with bar("writing", len(places)) as told:
        written = write_places(studio, project, places, told)
    changes = f"{written.given} tasks got a place, {written.taken} lost theirs, {written.unchanged} stay as they are"
    out().print(f"Label Studio, project {project}: {changes}.", highlight=False, soft_wrap=True)
    if written.refused:
        told_of = f"{written.refused} tasks could not be written: gone, or their data does not suit the label config."
        err().print(f"[yellow]warning[/]: {told_of}", highlight=False, soft_wrap=True)
    if written.given or any(place is not None for place in places.values()):
        how = f"In the data manager, order by the column {KEY}, then Label All Tasks."
        out().print(how, highlight=False, soft_wrap=True)


def _print(chosen: "Sequence[Place]", open_ones: int, tasks: int) -> None:
    from rich.table import Table

    if not chosen:
        why = (
            "every task has been annotated or skipped"
            if tasks
            else "the project has no tasks; import pictures"
        )
        out().print(f"Nothing to order: {why}.", highlight=False)
        return
    title = f"The first {min(len(chosen), _SHOWN)} of {len(chosen)} places; {open_ones} tasks are open"
    table = Table("place", "task", *chosen[0].values, title=title, title_justify="left")
    for one in chosen[:_SHOWN]:
        table.add_row(str(one.place), str(one.task), *(f"{value:.2f}" for value in one.values.values()))
    out().print(table)


def _write_csv(path: Path, chosen: "Sequence[Place]", address: str) -> None:
    import csv

    from heatbox.import_file import atomic_text

    names = list(chosen[0].values) if chosen else []
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["place", "task", *names, "address"])
        for one in chosen:
            values = [f"{one.values[name]:.4f}" for name in names]
            writer.writerow([one.place, one.task, *values, f"{address}{one.task}"])


def _print_failed(failed: "Mapping[int, HeatboxError]") -> None:
    for task, error in list(failed.items())[:_TOLD]:
        told = f"task {task}: {error.code}: {error.sentence}"
        err().print(f"[red]failed[/] {_escaped(told)}", highlight=False, soft_wrap=True)
    if len(failed) > _TOLD:
        err().print(f"[red]failed[/] and {len(failed) - _TOLD} more tasks", highlight=False)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
