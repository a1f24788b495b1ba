"""What commands share: how help lists them, where they print, and how an error becomes words and an exit code.

Results go to standard output, everything else (progress, warnings, errors) to standard error.
Exit codes: 0 done; 1 done, but some pictures failed; 2 wrong usage; 3 nothing could be done; 130 interrupted.
"""

import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from heatbox.errors import HeatboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console

__all__ = ["FAILED", "PARTLY", "Sections", "bar", "err", "out", "print_error", "print_problems"]

PARTLY, FAILED = 1, 3
_COLUMN = 11  # characters of the longest command's name


class Sections(TyperGroup):
    """Help that lists the commands in the sections that they were mounted with, each with its whole sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer keeps these types private
        """Write one section after another; the columns stand under each other."""
        sections: dict[str, list[tuple[str, str]]] = {
            "Annotate": [],
            "Learn": [],
            "Runs": [],
            "Serve": [],
            "Look": [],
        }
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            row = (name.ljust(_COLUMN), command.get_short_help_str(limit=200))
            sections.setdefault(command.rich_help_panel or "Commands", []).append(row)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@cache
def out() -> "Console":
    """Return the console of results; rich is imported here, because `--help` does without it."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


@cache
def err() -> "Console":
    """Return the console of everything else."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def bar(name: str, total: int) -> "Iterator[Callable[[], None]]":
    """Show a bar where somebody sees it, and yield what to call after every one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


def print_error(error: HeatboxError) -> None:
    """Print code, sentence and remedy to standard error."""
    from rich.markup import escape

    sentence, remedy = escape(error.sentence), escape(error.remedy)
    for line in (f"[bold red]error[/] [bold]{error.code}[/]: {sentence}", f"  [dim]what to do:[/] {remedy}"):
        err().print(line, highlight=False, emoji=False, soft_wrap=True)


def print_problems(problems: "Mapping[str, int]") -> None:
    """Print what was not understood of people's annotations, and how often, to standard error."""
    from rich.markup import escape

    for reason, count in sorted(problems.items()):
        often = "once" if count == 1 else f"{count} times"
        told = f"[yellow]not understood[/]: {escape(reason)} ({often})"
        err().print(told, highlight=False, soft_wrap=True)
