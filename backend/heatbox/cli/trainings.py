"""`heatbox trainings`: trainings, looked at and cancelled through the ledger."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import FAILED, err, out

if TYPE_CHECKING:
    from heatbox.settings import Settings
    from heatbox.trainings.records import Trainings

__all__ = ["trainings"]

_LISTED = 20


def trainings(
    number: Annotated[
        int | None,
        typer.Argument(metavar="[ID]", min=1, help="Number of a training; without it: list the newest."),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show how far it is until it ends. Ctrl-C only stops looking.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End it; it makes no model unless it is resumed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
) -> None:
    """Show trainings: how far they are, what they were compared with, and whether the new model serves.

    With --follow the exit code is 3 where the training failed or was cancelled.
    """
    if number is None and (follow or cancel):
        raise typer.BadParameter("Which training? --follow and --cancel want its number.", param_hint="ID")
    from heatbox.cli.training import follow as followed
    from heatbox.cli.training import opened, print_training
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    with opened(settings) as found:
        if number is None:
            _print_list(found, json=json)
            return
        if cancel:
            _cancel(settings, found, number)
            return
        training = found.find(number)
        if follow:
            if training.is_open:
                _tell_where_nobody_works(settings, number)
            try:
                training = followed(found, number)
            except KeyboardInterrupt:
                raise typer.Exit(130) from None
        print_training(training, json=json)
    if follow and training.state != "done":
        raise typer.Exit(FAILED)


def _cancel(settings: "Settings", found: "Trainings", number: int) -> None:
    from heatbox.errors import RedisUnavailableError
    from heatbox.runs.conducting import is_conducted
    from heatbox.trainings.moving import make_trainer

    found.cancel(number)
    out().print(f"Training {number} is cancelled.", highlight=False)
    if settings.redis_url and not is_conducted(settings):  # nobody else would tell the worker
        trainer = make_trainer(settings, found.ledger, os.environ, only=number)
        try:
            trainer.step()
        except RedisUnavailableError as error:
            err().print(f"A worker that is at it does not know yet: {error}", highlight=False)
        finally:
            trainer.close()


def _tell_where_nobody_works(settings: "Settings", number: int) -> None:
    from heatbox.runs.conducting import is_conducted

    if not is_conducted(settings):
        told = f"No service works on training {number} now. It goes on with: heatbox train --resume {number}"
        err().print(told, highlight=False)


def _print_list(found: "Trainings", *, json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from heatbox.trainings.view import as_json, far

    listed = found.newest(_LISTED)
    if json:
        out().print_json(data=[as_json(one) for one in listed])
        return
    if not listed:
        out().print("No training yet. Start one: heatbox train --project NUMBER")
        return
    table = Table("training", "state", "title", "made", "accepted", "what is told")
    for one in listed:
        told = far(one) if one.is_open else one.reason or one.sentence or ""
        accepted = "yes" if one.activated else "no" if one.challenger else ""
        table.add_row(
            str(one.id), str(one.state), escape(one.title), one.challenger or "", accepted, escape(told)
        )
    out().print(table)
