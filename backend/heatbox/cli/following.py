"""Following a run: a bar that moves, or a line now and then where nobody sees a bar."""

import time
from typing import TYPE_CHECKING

import typer

from heatbox.cli.console import err

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heatbox.runs.records import Runs
    from heatbox.runs.view import RunView

__all__ = ["follow"]

_LOOK_SECONDS = 1.0
_LINE_SECONDS = 5.0  # between two lines where nobody sees a bar move


def follow(
    found: "Runs", number: int, goodbye: str = "", is_broken: "Callable[[], bool]" = lambda: False
) -> "RunView":
    """Show how far a run is until it has ended, and return its last view; a line now and then without a terminal.

    Args:
        found: the runs.
        number: which one.
        goodbye: what is told at Ctrl-C where this process does the run's work, which then ends with a pause, too;
            empty: the run goes on without it.
        is_broken: whether the work of this process has failed, so that nothing will move any more.

    Raises:
        RunNotFoundError: there is none of this number.
        typer.Exit: with 130 at Ctrl-C; the run goes on.
    """
    try:
        looks = _looks(found, number, is_broken, also_paused=not goodbye)
        return _follow_bar(looks) if err().is_terminal else _follow_lines(looks)
    except KeyboardInterrupt:
        told = f"Stopped looking at run {number}. heatbox runs {number} --follow"
        typer.echo(goodbye or told, err=True)
        raise typer.Exit(130) from None


def _follow_bar(looks: "Iterator[RunView]") -> "RunView":
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}"))
    with Progress(*columns, console=err(), transient=True) as progress:
        bar = progress.add_task("", far="", total=None)
        for view in looks:
            total = None if view.reading or not view.total else view.total
            told = f"run {view.id} {view.state}" + (f" [yellow]{escape(view.note)}[/]" if view.note else "")
            progress.update(bar, description=told, total=total, completed=view.ended, far=_far(view))
    return view


def _follow_lines(looks: "Iterator[RunView]") -> "RunView":
    due, before = 0.0, ""
    for view in looks:
        line = f"run {view.id} {view.state}: {_far(view)}" + (f" ({view.note})" if view.note else "")
        if line != before and (time.monotonic() >= due or not view.is_open):
            typer.echo(line, err=True)
            due, before = time.monotonic() + _LINE_SECONDS, line
    return view


def _looks(
    found: "Runs", number: int, is_broken: "Callable[[], bool]", *, also_paused: bool
) -> "Iterator[RunView]":
    """Yield the run's view each second; that of its end, or perhaps of its pause, is the last."""
    from heatbox.runs.view import look

    while True:
        view = look(found, number)
        yield view
        if is_broken() or not view.is_open or (view.state == "paused" and not also_paused):
            return
        time.sleep(_LOOK_SECONDS)


def _far(view: "RunView") -> str:
    """Return how far a run is, in one line."""
    from heatbox.runs.view import duration, speed

    more = " so far, still reading" if view.reading else ""
    parts = [
        f"{view.ended:,} of {view.total:,}{more}",
        f"{view.failed:,} failed" if view.failed else "",
        speed(view),
    ]
    if view.seconds_left is not None:
        parts.append(f"{'at least ' if view.reading else ''}{duration(view.seconds_left)} left")
    return ", ".join(part for part in parts if part)
