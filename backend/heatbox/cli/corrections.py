"""`heatbox corrections pull|report`: what people made of predictions, out of Label Studio and told."""

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import Sections, err, out, print_problems
from heatbox.cli.options import ProjectNumber, Roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heatbox.corrections.pulling import Pulled
    from heatbox.corrections.report import Report, Times
    from heatbox.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    cls=Sections,
    help="Get what people made of predictions, and look at it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")]


@app.command("pull")
def pull_corrections(
    project: ProjectNumber,
    *,
    changes: Annotated[
        bool,
        typer.Option(
            "--changes",
            help="Look only at what was changed since the last pull; deleted tasks are not noticed.",
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Read every annotated task, also where nothing has changed.")
    ] = False,
    json: Json = False,
) -> None:
    """Read what people have annotated, corrected, skipped and deleted into the ledger; nothing is changed."""
    if changes and again:
        raise typer.BadParameter("Give one of --changes and --again.")
    from heatbox.corrections.pulling import pull
    from heatbox.corrections.records import Corrections
    from heatbox.ledger import Ledger
    from heatbox.runs.conducting import open_studio
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    with closing(Ledger(settings.ledger_url)) as ledger, open_studio(settings) as studio:
        total = studio.count_tasks(project)
        with _bar(None if changes else total) as tell:
            pulled = pull(studio, Corrections(ledger), project, whole=not changes, again=again, tell=tell)
    if json:
        out().print_json(data={"project": project, **pulled.as_dict()})
        return
    _print_pulled(project, pulled)


@app.command("report")
def report_corrections(
    project: ProjectNumber,
    *,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with pictures there."),
    ] = None,
    root: Roots = None,
    json: Json = False,
) -> None:
    """Say what people did with boxes, by label and explainer, from what was pulled."""
    from heatbox.corrections.records import Corrections
    from heatbox.corrections.report import make_report
    from heatbox.ledger import Ledger
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    with closing(Ledger(settings.ledger_url)) as ledger:
        corrections = Corrections(ledger)
        found = corrections.annotations(settings.studio_url, project)
        report = make_report(found, corrections.counting(settings.studio_url, project))
    settings = settings.model_copy(update={"local_roots": (*settings.local_roots, *(root or ()))})
    if html is not None and found:
        _write_page(html, report, settings, project)
    if json:
        out().print_json(data={"project": project, **report.as_dict()})
        return
    if not found:
        told = f"No annotation has been pulled. Get what is there now: heatbox corrections pull --project {project}"
        out().print(told, highlight=False, soft_wrap=True)
        return
    _print_report(report, project)


@contextmanager
def _bar(total: int | None) -> "Iterator[Callable[[int], None]]":
    """Show how many tasks have been looked at, where somebody sees it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        bar = progress.add_task("tasks", total=total)
        yield lambda count: progress.update(bar, completed=count)


def _print_pulled(project: int, pulled: "Pulled") -> None:
    changes = f"{pulled.new} new, {pulled.changed} changed, {pulled.deleted} deleted"
    told = f"Project {project}: {changes}; {pulled.annotations} annotations are in the ledger."
    out().print(told, highlight=False, soft_wrap=True)
    print_problems(pulled.not_understood)


def _write_page(html: Path, report: "Report", settings: "Settings", project: int) -> None:
    from heatbox.corrections.report_page import Titles, write_report_page
    from heatbox.pictures.fetching import Fetcher
    from heatbox.pictures.images import Limits

    titles = Titles(f"Corrections of project {project}", settings.studio_url, project)
    limits = Limits.from_settings(settings)
    with closing(Fetcher(settings)) as fetcher, err().status("Fetching pictures ..."):
        missing = write_report_page(html, report, titles, fetcher.fetch, limits)
    left = f"; {missing} pictures could not be shown, it says why" if missing else ""
    err().print(f"{html}: written{left}.", markup=False, highlight=False, soft_wrap=True)


def _print_report(report: "Report", project: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from heatbox.corrections.report_page import LABEL_COLUMNS

    counts = f"{report.tasks} tasks, {report.compared} compared with what was predicted"
    title = f"Project {project}: {counts}, {report.skipped} skips, {report.deleted} deleted annotations"
    table = Table(title=title, title_justify="left")
    for column in LABEL_COLUMNS:
        table.add_column(column, justify="left" if column in {"label", "explainer"} else "right")
    for row in report.labels:
        table.add_row(*(escape(_cell(value)) for value in vars(row).values()))
    out().print(table)
    if not report.compared:
        out().print(
            "Nothing was compared: nobody has annotated a task that had a prediction.", highlight=False
        )
    _print_scores(report)
    out().print(
        f"Median editing time: {_time(report.with_prediction)} with a prediction, "
        f"{_time(report.without_prediction)} without.",
        highlight=False,
    )
    print_problems(report.problems)


def _print_scores(report: "Report") -> None:
    from rich.table import Table

    if any(report.ious):
        bins = (
            f"{count} from {number / 10:.1f}"
            for number, count in reversed([*enumerate(report.ious)])
            if count
        )
        out().print(f"Predicted boxes that are still there, by IoU: {', '.join(bins)}.", highlight=False)
    if report.reliability.error is None:
        return
    table = Table("raw score")
    for column in ("boxes", "mean score", "kept"):
        table.add_column(column, justify="right")
    for one in report.reliability.bins:
        row = (str(one.boxes), f"{one.score:.2f}", f"{one.kept:.2f}")
        table.add_row(f"{one.low:.1f} to {one.high:.1f}", *row)
    out().print(table)
    out().print(f"Expected calibration error: {report.reliability.error:.3f}.", highlight=False)


def _time(times: "Times") -> str:
    return (
        "not known" if times.seconds is None else f"{times.seconds:.3g} s ({times.annotations} annotations)"
    )


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
