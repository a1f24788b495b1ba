"""A training in the foreground of a command: followed to its end, and moved on here where no service does."""

import os
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import typer

from heatbox.cli.console import FAILED, err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heatbox.settings import Settings
    from heatbox.trainings.records import Trainings
    from heatbox.trainings.tables import Training

__all__ = ["attend", "follow", "opened", "print_training"]

_LOOK_SECONDS = 0.5
_LINE_SECONDS = 5.0  # between two lines where nobody sees a bar move
_END_SECONDS = 10.0
_TELL_SECONDS = 15.0  # for Label Studio to be told of the new version, once all else is done


@contextmanager
def opened(settings: "Settings") -> "Iterator[Trainings]":
    """Open the trainings of the settings' ledger."""
    from heatbox.ledger import Ledger
    from heatbox.trainings.records import Trainings

    ledger = Ledger(settings.ledger_url)
    try:
        yield Trainings(ledger)
    finally:
        ledger.close()


def attend(
    settings: "Settings", trainings: "Trainings", number: int, *, follow: bool = True, json: bool = False
) -> None:
    """Follow a training to its end, and move it on where no service does; exit code 3 where it failed."""
    from heatbox.runs.conducting import is_conducted

    elsewhere = is_conducted(settings)
    if not follow:
        if settings.redis_url and not elsewhere:
            _move_once(settings, trainings, number)
        _tell_who_goes_on(number, elsewhere=elsewhere, queued=bool(settings.redis_url))
        if json:
            print_training(trainings.find(number), json=True)
        return
    goodbye = f"heatbox train --resume {number}" if not elsewhere else f"heatbox trainings {number} --follow"
    broken: list[Exception] = []
    with nullcontext() if elsewhere else _moving(settings, trainings, number, broken):
        training = _followed(trainings, number, goodbye, lambda: bool(broken))
    if broken:
        raise broken[0]
    print_training(training, json=json)
    if training.state != "done":
        raise typer.Exit(FAILED)


def _tell_who_goes_on(number: int, *, elsewhere: bool, queued: bool) -> None:
    """Say who does a training that nobody stays for."""
    if elsewhere:
        told = f"A service goes on with it. Look on: heatbox trainings {number} --follow"
    elif queued:
        told = (
            "It is on the queue for a worker. What comes of it is used once a service runs on this ledger, or with: "
            f"heatbox train --resume {number}"
        )
    else:
        told = f"Nobody works on it now. It goes on with: heatbox train --resume {number}"
    err().print(told, highlight=False, soft_wrap=True)


def follow(
    trainings: "Trainings",
    number: int,
    is_broken: "Callable[[], bool]" = lambda: False,
    patience: float = _TELL_SECONDS,
) -> "Training":
    """Show how far a training is until it has ended, and return it; a line now and then without a terminal.

    Args:
        trainings: of the ledger.
        number: of the training.
        is_broken: whether nobody moves it on any more.
        patience: seconds after its end that Label Studio may take to be told of the new version.
    """
    looks = _looks(trainings, number, is_broken, patience)
    training = _follow_bar(looks) if err().is_terminal else _follow_lines(looks)
    if not (training.is_open or training.told):
        err().print(
            f"Label Studio was not told of the new version: {training.note or 'nobody came to it.'}\n"
            "`heatbox up` does it once both run, and so does: "
            f"heatbox studio connect --project {training.project}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return training


def print_training(training: "Training", *, json: bool = False) -> None:
    """Print all that is known of a training."""
    from heatbox.trainings.figures import label_figures, told_apart
    from heatbox.trainings.view import as_json, far

    if json:
        out().print_json(data=as_json(training))
        return
    from rich.markup import escape
    from rich.table import Table

    where = "" if training.project is None else f", project {training.project}"
    table = Table.grid(padding=(0, 2))
    table.add_row(f"training {training.id}", f"[bold]{escape(training.title)}[/]{where}")
    table.add_row("state", str(training.state) + (f", {far(training)}" if training.is_open else ""))
    for name in ("base", "champion", "challenger", "reason", "note"):
        if value := getattr(training, name):
            table.add_row("began from" if name == "base" else name, escape(str(value)))
    if training.sentence:
        table.add_row(
            "error", f"[red]{training.code}[/]: {escape(training.sentence)} {escape(training.remedy or '')}"
        )
    result = training.result or {}
    if isinstance(counts := result.get("pictures"), dict):
        rejected = len(result.get("rejected") or ())
        told = ", ".join(f"{part} {count}" for part, count in counts.items())
        table.add_row("pictures", f"{told}{f', {rejected} rejected' if rejected else ''}")
    for name, words in told_apart(result):
        table.add_row(name, escape(words))
    out().print(table, highlight=False)
    if rows := label_figures(result):
        heads = ("label", "held out", "accuracy before", "after", "box quality before", "after")
        labels = Table(*heads, title="Champion and challenger on held-out pictures", title_justify="left")
        for label, *values in rows:
            labels.add_row(escape(label), *values)
        out().print(labels, highlight=False)


@contextmanager
def _moving(
    settings: "Settings", trainings: "Trainings", number: int, broken: "list[Exception]"
) -> "Iterator[None]":
    """Move a training on in a thread, which does all of it: the job process ends with the thread that started it."""
    from heatbox.trainings.moving import make_trainer, move

    over = threading.Event()
    trainer = make_trainer(settings, trainings.ledger, os.environ, only=number)

    def work() -> None:
        try:
            move(trainer, over.is_set)
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits
            broken.append(error)
        finally:
            trainer.close()

    thread = threading.Thread(target=work, name="trainer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_END_SECONDS)


def _move_once(settings: "Settings", trainings: "Trainings", number: int) -> None:
    from heatbox.trainings.moving import make_trainer

    trainer = make_trainer(settings, trainings.ledger, os.environ, only=number)
    try:
        trainer.step()
    finally:
        trainer.close()


def _followed(
    trainings: "Trainings", number: int, goodbye: str, is_broken: "Callable[[], bool]"
) -> "Training":
    try:
        return follow(trainings, number, is_broken)
    except KeyboardInterrupt:
        is_open = trainings.find(number).is_open
        more = f"It is not lost: {goodbye}" if is_open else f"It has ended: heatbox trainings {number}"
        typer.echo(f"Stopped looking at training {number}. {more}", err=True)
        raise typer.Exit(130) from None


def _looks(
    trainings: "Trainings", number: int, is_broken: "Callable[[], bool]", patience: float
) -> "Iterator[Training]":
    ended: float | None = None
    while True:
        training = trainings.find(number)
        yield training
        now = time.monotonic()
        ended = None if training.is_open else ended or now
        if is_broken() or (ended is not None and (training.told or now >= ended + patience)):
            return
        time.sleep(_LOOK_SECONDS)


def _follow_bar(looks: "Iterator[Training]") -> "Training":
    from rich.progress import BarColumn, Progress, TextColumn

    from heatbox.trainings.view import share

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}"))
    with Progress(*columns, console=err(), transient=True) as progress:
        bar = progress.add_task("", far="", total=None)
        for training in looks:
            done, total = share(training) or (0, None)
            told = f"training {training.id} {training.state}"
            progress.update(bar, description=told, completed=done, total=total, far=_line(training))
    return training


def _follow_lines(looks: "Iterator[Training]") -> "Training":
    due, before = 0.0, ""
    for training in looks:
        line = ": ".join(filter(None, [f"training {training.id} {training.state}", _line(training)]))
        if line != before and (time.monotonic() >= due or not training.is_open):
            typer.echo(line, err=True)
            due, before = time.monotonic() + _LINE_SECONDS, line
    return training


def _line(training: "Training") -> str:
    from heatbox.trainings.view import far

    if not training.is_open:
        return training.note
    return far(training) + (f" ({training.note})" if training.note else "")
