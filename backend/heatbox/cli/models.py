"""`heatbox models list|show|activate|rollback`: the model store. `models add` lives with the workers."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import Sections, err, out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from heatbox.models import Card
    from heatbox.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    cls=Sections,
    help="Register classifiers and choose the one that the service uses.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Reference = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A registered model.")]


@app.command("list")
def list_models(
    *, json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False
) -> None:
    """List registered models: which one is active and since when, which was before, what a training began from."""
    from heatbox.activation import accepted_models, history
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    cards, ledger = open_store(settings).cards(), Ledger(settings.ledger_url)
    accepted = accepted_models(ledger)
    since = dict(zip(("active", "before"), reversed(history(ledger)), strict=False))
    ledger.close()
    marks = {one.model: place for place, one in reversed(since.items())}
    rows = [
        (card, marks.get(card.id, ""), bool(card.trained_from) and card.id not in accepted) for card in cards
    ]
    active_since = since["active"].since if since else None
    _tell_missing({one.model: place for place, one in since.items()}, {card.id for card in cards})
    if json:
        _print_models_json(rows, active_since)
    elif not cards:
        out().print(
            "No model is registered. Add one: heatbox models add mobilenet_v2 --activate, or run heatbox demo."
        )
    else:
        _print_models(rows, active_since)


def _tell_missing(used: "Mapping[str, str]", there: "AbstractSet[str]") -> None:
    """Say which model is used and was deleted from the store."""
    for model, place in used.items():
        if model not in there and place == "active":
            told = f"The active model {model} is not in the store. Choose one: heatbox models activate NAME@VERSION."
            err().print(told, highlight=False, soft_wrap=True)


def _print_models_json(rows: "Sequence[tuple[Card, str, bool]]", since: "datetime | None") -> None:
    out().print_json(
        data=[
            {
                "model": card.id,
                "active": mark == "active",
                "active_since": since.isoformat() if since and mark == "active" else None,
                "before": mark == "before",
                "challenger": challenger,
                **card.model_dump(mode="json"),
            }
            for card, mark, challenger in rows
        ]
    )


def _print_models(rows: "Sequence[tuple[Card, str, bool]]", since: "datetime | None") -> None:
    from rich.table import Table

    told = f"[green]active[/] since {since.astimezone():%Y-%m-%d %H:%M}" if since else ""
    table = Table("", "name", "version")
    for column in ("architecture", "labels", "input", "feature layer", "head", "trained from"):
        table.add_column(column, overflow="fold")  # a name that is cut off is none
    for card, mark, challenger in rows:
        shown = told if mark == "active" else mark or ("[yellow]challenger[/]" if challenger else "")
        row = (card.name, card.version, card.architecture, str(len(card.labels)))
        table.add_row(shown, *row, f"{card.input_size} px", card.feature_layer, card.head, card.trained_from)
    out().print(table)


@app.command()
def show(reference: Reference) -> None:
    """Print a model's card as JSON, and what explainers have learnt about it."""
    from heatbox.fitted import list_states
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    store = open_store(read_settings(os.environ))
    card = store.find(reference)
    states = list_states(store, card)
    used = {one.explainer: one.id for one in states}  # the newest of each
    fitted = [
        {
            "explainer": one.explainer,
            "state": one.id,
            "used": one.id == used[one.explainer],
            "examples": one.examples,
            "options": dict(one.options),
        }
        for one in states
    ]
    out().print_json(data={"version": card.version, **card.model_dump(mode="json"), "fitted": fitted})


@app.command()
def activate(reference: Reference) -> None:
    """Make a registered model the one that the service uses from its next request on."""
    from heatbox.activation import find_model
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    ledger = Ledger(settings.ledger_url)
    card = find_model(open_store(settings), ledger, reference)
    ledger.activate(card.id)
    ledger.close()
    out().print(f"{card.id} is active.")
    _tell_projects(settings)


@app.command()
def rollback(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A name that label configs or HEATBOX_MODEL use; default: the active model.",
        ),
    ] = None,
) -> None:
    """Go back to the model that was active before; once more goes further back.

    With NAME the version that a training has given this name last is withdrawn: projects that name their model so get
    the one before. A model that is rolled back serves neither as the active one nor by its name.
    """
    from heatbox.activation import roll_back, roll_back_name
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    store, ledger = open_store(settings), Ledger(settings.ledger_url)
    was = ledger.active_model()
    left, now = roll_back(store, ledger) if name is None else roll_back_name(store, ledger, name)
    active = ledger.active_model()
    ledger.close()
    if name is not None:
        out().print(f"{left} is withdrawn; before it was {now}.")
    if active != was:
        out().print(f"{active} is active again, in place of {was}.")
    _tell_projects(settings)


def _tell_projects(settings: "Settings") -> None:
    """Say what else a person must do for projects whose version is another one now."""
    if settings.studio_url:
        told = "Predictions carry another version now. Let a project show it: heatbox studio connect --project NUMBER"
        err().print(told, highlight=False, soft_wrap=True)
