"""A run in the foreground of a command: followed to its end, and worked on here where nobody else does."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from heatbox.cli.console import FAILED, PARTLY, err, out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heatbox.ledger import Ledger
    from heatbox.runs.records import Runs
    from heatbox.settings import Settings

__all__ = ["conduct", "opened"]

_REST_SECONDS = 20.0  # for the pictures that are under way when somebody stops


@contextmanager
def opened(settings: "Settings") -> "Iterator[tuple[Ledger, Runs]]":
    """Open the ledger of the settings, and its runs."""
    from heatbox.ledger import Ledger
    from heatbox.runs.records import Runs

    ledger = Ledger(settings.ledger_url)
    try:
        yield ledger, Runs(ledger)
    finally:
        ledger.close()


def conduct(settings: "Settings", ledger: "Ledger", runs: "Runs", number: int, *, elsewhere: bool) -> None:
    """Follow a run to its end, and do its work where nobody else does; exit code 1 where something of it failed."""
    from heatbox.cli.following import follow

    run = runs.find(number)
    if elsewhere:
        view = follow(runs, number)
    else:
        if run.project is None and not settings.redis_url:
            settings = settings.model_copy(update={"local_roots": (Path("/"),)})  # what was named may be read
        goodbye = f"Run {number} rests. It goes on with: heatbox resume {number}"
        with _working(settings, ledger, runs, number) as failures:
            view = follow(runs, number, goodbye, lambda: bool(failures))
    if view.state == "paused":
        told = view.note or f"It goes on with: heatbox resume {number}"
        err().print(f"Run {number} is paused. {told}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED if view.note else 0)
    told = f"{view.done} annotated, {view.kept} left as they were, {view.failed} failed"
    out().print(f"Run {number} is {view.state}: {told}.", highlight=False)
    if run.out is not None and view.state == "done":
        out().print(f"Results: {run.out}", markup=False, highlight=False, soft_wrap=True)
    if view.failed:
        raise typer.Exit(PARTLY)


@contextmanager
def _working(
    settings: "Settings", ledger: "Ledger", runs: "Runs", number: int
) -> "Iterator[list[Exception]]":
    """Move a run on in a thread; at the end what is under way is written down or given back.

    Yields what the thread has met, which is raised at the end.

    The thread does all of it, because the job process ends with the thread that started it.
    """
    import threading

    from heatbox.ledger_lock import LedgerLock
    from heatbox.runs.conducting import conduct as move_on
    from heatbox.runs.conducting import make_conductor

    over = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        try:
            with LedgerLock(ledger, settings.home) as lock:
                move_on(conductor, lock, over.is_set)
                if lock.take():
                    conductor.rest(_REST_SECONDS)
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits for the run
            failures.append(error)
        finally:
            conductor.close()

    conductor = make_conductor(settings, runs, os.environ, only=number)
    thread = threading.Thread(target=work, name="conductor", daemon=True)
    thread.start()
    try:
        yield failures
    finally:
        over.set()
        thread.join(2 * _REST_SECONDS)  # a daemon: a Label Studio that never answers does not keep us
        if failures:
            raise failures[0]
