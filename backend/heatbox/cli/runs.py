"""`heatbox runs`, `pause`, `resume`, `cancel`, `retry`: background runs, looked at and steered through the ledger."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, err, out
from heatbox.cli.options import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heatbox.runs.records import Runs
    from heatbox.runs.view import FailedItem, RunView

__all__ = ["cancel", "pause", "resume", "retry", "runs"]

_LISTED = 20
_FIRST_FAILED = 5

ID = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of a run; see `heatbox runs`.")]


def runs(
    number: Annotated[
        int | None,
        typer.Argument(metavar="[ID]", min=1, help="Number of a run; without it: list the newest."),
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="List all failed items of the run.")] = False,
    follow_it: Annotated[
        bool,
        typer.Option("--follow", help="Show how far the run is until it ends. Ctrl-C only stops looking."),
    ] = False,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the results of a run over files, so far, as JSON lines."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
) -> None:
    """Show background runs: how far they are, how fast, and what failed.

    With --follow the exit code is 1 where items of the run failed.
    """
    if number is None and (failed or follow_it or out_file):
        raise typer.BadParameter("Which run? --failed, --follow and --out want its number.", param_hint="ID")
    from heatbox.cli.following import follow

    with _runs() as found:
        if number is None:
            _print_list(found, json=json)
            return
        view = None
        if follow_it:
            _tell_where_nobody_works(found, number)
            view = follow(found, number)
        _print_run(found, number, failed=failed, json=json)
        if out_file is not None:
            _write_results(found, number, out_file)
    if view and view.failed:
        raise typer.Exit(PARTLY)


def _tell_where_nobody_works(found: "Runs", number: int) -> None:
    from heatbox.runs.conducting import is_conducted
    from heatbox.runs.view import look
    from heatbox.settings import read_settings

    if look(found, number).is_open and not is_conducted(read_settings(os.environ)):
        told = f"No service works on run {number} now. It goes on with: heatbox resume {number}"
        err().print(told, highlight=False)


def pause(number: ID) -> None:
    """Let a run rest: nothing more of it is computed or written until it is resumed."""
    with _runs() as found:
        found.pause(number)
    out().print(f"Run {number} is paused. It goes on with: heatbox resume {number}", highlight=False)


def resume(
    number: ID,
    *,
    root: Roots = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay until the run has ended, and show how far it is.")
    ] = False,
) -> None:
    """Let a run go on that was paused or left.

    While `heatbox up` or `heatbox serve` works on the same ledger, it does the work and this command ends at once;
    otherwise this command does it.
    """
    from heatbox.cli.foreground import conduct, opened
    from heatbox.runs.conducting import is_conducted
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    settings = settings.model_copy(update={"local_roots": (*settings.local_roots, *(root or ()))})
    elsewhere = is_conducted(settings)
    with opened(settings) as (ledger, found):
        found.resume(number)
        out().print(f"Run {number} goes on. Look at it: heatbox runs {number}", highlight=False)
        if follow or not elsewhere:
            conduct(settings, ledger, found, number, elsewhere=elsewhere)


def cancel(number: ID) -> None:
    """End a run for good. What it has written stays."""
    with _runs() as found:
        found.cancel(number)
    out().print(f"Run {number} is cancelled.", highlight=False)


def retry(number: ID) -> None:
    """Try the failed items of a run again, and nothing else."""
    from heatbox.runs.conducting import is_conducted
    from heatbox.settings import read_settings

    with _runs() as found:
        count = found.retry(number)
    again = (
        f"{count} failed items of run {number} are tried again."
        if count
        else f"Nothing of run {number} failed."
    )
    out().print(again, highlight=False)
    if count and not is_conducted(read_settings(os.environ)):
        out().print(f"Nobody works on it now. It goes on with: heatbox resume {number}", highlight=False)


def _write_results(found: "Runs", number: int, out_file: Path) -> None:
    from heatbox.runs.output import write_results

    written = write_results(found, number, out_file)
    wrong = f", {written.failed} with an error" if written.failed else ""
    left = f"; {written.left} items have not come to an end and are not in it" if written.left else ""
    err().print(
        f"{out_file}: {written.lines} lines{wrong}{left}.", markup=False, highlight=False, soft_wrap=True
    )
    if written.label_config is not None:
        err().print(
            f"Label config for it: {written.label_config}", markup=False, highlight=False, soft_wrap=True
        )


@contextmanager
def _runs() -> "Iterator[Runs]":
    from heatbox.cli.foreground import opened
    from heatbox.settings import read_settings

    with opened(read_settings(os.environ)) as (_, found):
        yield found


def _print_list(found: "Runs", *, json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from heatbox.runs.view import RunViews, duration

    views = RunViews(found).newest(_LISTED)
    if json:
        out().print_json(data=[view.model_dump(mode="json") for view in views])
        return
    if not views:
        out().print("No run yet. Start one: heatbox run PICTURES")
        return
    table = Table("run", "state", "title")
    for column in ("done", "failed", "left", "pictures/s", "remaining"):
        table.add_column(column, justify="right")
    table.add_column("started")
    for one in views:
        left = "" if one.seconds_left is None else duration(one.seconds_left)
        numbers = [f"{count:,}" for count in (one.done + one.kept, one.failed, one.left)]
        state, started = _coloured(one), f"{one.created_at.astimezone():%Y-%m-%d %H:%M}"
        rate = f"{one.pictures_per_second:.3g}"
        table.add_row(str(one.id), state, escape(one.title), *numbers, rate, left, started)
    out().print(table)


def _print_run(found: "Runs", number: int, *, failed: bool, json: bool) -> None:
    from heatbox.runs.view import failed_items, look

    view = look(found, number)
    most = sys.maxsize if failed else _FIRST_FAILED
    items = failed_items(found, number, most)
    if json:
        listed = {"failures": [one.model_dump(mode="json") for one in items]} if failed else {}
        out().print_json(data={**view.model_dump(mode="json"), **listed})
        return
    _print_view(view)
    _print_failed(items)
    if view.failed > len(items):
        out().print(f"{view.failed - len(items):,} more: heatbox runs {number} --failed", highlight=False)


def _print_view(view: "RunView") -> None:
    from rich.markup import escape
    from rich.table import Table

    from heatbox.runs.view import duration, speed

    where = "" if view.project is None else f", project {view.project}"
    left = "" if view.seconds_left is None else f", {duration(view.seconds_left)} left"
    table = Table.grid(padding=(0, 2))
    table.add_row(f"run {view.id}", f"[bold]{escape(view.title)}[/]{where}")
    table.add_row("version", escape(view.version))
    table.add_row("state", _coloured(view) + (", still reading tasks" if view.reading else "") + left)
    kept = f", {view.kept:,} there before" if view.kept else ""
    unwritten = f" ({view.computed:,} to be written)" if view.computed else ""
    table.add_row(
        "items",
        f"{view.done:,} done{kept}, {view.failed:,} failed, {view.left:,} left{unwritten} of {view.total:,}",
    )
    table.add_row("boxes", f"{view.boxes:,}")
    table.add_row("speed", speed(view) or "no picture yet")
    if view.errors:
        table.add_row("errors", ", ".join(f"{escape(code)} {count:,}" for code, count in view.errors.items()))
    if view.note:
        table.add_row("note", f"[yellow]{escape(view.note)}[/]")
    out().print(table, highlight=False)


def _print_failed(items: "Sequence[FailedItem]") -> None:
    from rich.markup import escape
    from rich.table import Table

    if not items:
        return
    table = Table("failed item", "task", "code", "reason")
    for one in items:
        table.add_row(escape(one.name), str(one.task or ""), escape(one.code), escape(one.reason))
    out().print(table)


def _coloured(view: "RunView") -> str:
    colours = {"running": "cyan", "paused": "yellow", "done": "green", "cancelled": "dim"}
    return f"[{colours[view.state]}]{view.state}[/]"
