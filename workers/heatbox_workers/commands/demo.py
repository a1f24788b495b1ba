"""`heatbox demo`: the whole way on pictures that it makes itself, in minutes, without any download."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import TaskID

    from heatbox_workers.demo.run import DemoResult

__all__ = ["demo"]


def demo(
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for pictures, boxes and the page.")
    ] = Path("demo-out"),
    pictures: Annotated[int, typer.Option(min=16, help="Training pictures.")] = 500,
    held_out: Annotated[
        int, typer.Option(min=1, help="Held-out pictures that are annotated and measured.")
    ] = 80,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training pictures.")] = 34,
    seed: Annotated[int, typer.Option(help="Seed of pictures, weights and training.")] = 0,
) -> None:
    """Compose pictures, train on image labels only, explain held-out pictures, fit boxes and measure them.

    Writes the pictures, a Label Studio import file, its label config and a page to look at, and registers the
    model as `demo`.
    """
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings
    from heatbox_workers.demo.run import Demo, run_demo
    from heatbox_workers.process import prepare_process

    settings = read_settings(os.environ)
    prepare_process(settings.threads, 1)
    asked = Demo(seed=seed, training=pictures, held_out=held_out, epochs=epochs)
    with _progress() as advance:
        result = run_demo(asked, folder, open_store(settings), advance)
    ledger = Ledger(settings.ledger_url)
    if ledger.active_model() is None:
        ledger.activate(result.card.id)
    _print_result(result, folder)


@contextmanager
def _progress() -> "Iterator[Callable[[str, int, int], None]]":
    """Show one bar per stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stages: dict[str, TaskID] = {}
    with Progress(*columns, console=err()) as progress:

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total)
            progress.update(stages[stage], completed=done)

        yield advance


def _print_result(result: "DemoResult", folder: Path) -> None:
    from rich.table import Table

    from heatbox_workers.demo.run import COLUMNS

    table = Table(*COLUMNS, title="Boxes against the truth that training never saw", title_justify="left")
    for row in result.rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    out().print(table)
    accuracy = ", ".join(f"{label} {value:.2f}" for label, value in result.accuracy.items())
    out().print(f"The classifier saw image labels only; its accuracy on held-out pictures: {accuracy}.")
    out().print(f"Model:  {result.card.id}")
    for name, what in (("index.html", "Look:  "), ("tasks.json", "Import:"), ("label_config.xml", "Config:")):
        out().print(f"{what} {folder / name}")
