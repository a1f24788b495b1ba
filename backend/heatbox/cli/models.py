"""`heatbox models list|show|activate`: the model store. `models add` needs torch and lives with the workers."""

import os
from typing import Annotated

import typer

from heatbox.cli.console import Sections, out

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
    """List registered models; the active one is marked."""
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    cards, active = open_store(settings).cards(), Ledger(settings.ledger_url).active_model()
    if json:
        out().print_json(
            data=[
                {"model": card.id, "active": card.id == active, **card.model_dump(mode="json")}
                for card in cards
            ]
        )
        return
    if not cards:
        out().print(
            "No model is registered. Add one: heatbox models add mobilenet_v2 --activate, or run heatbox demo."
        )
        return
    from rich.table import Table

    table = Table("", "name", "version", "architecture", "labels", "input", "feature layer", "head")
    for card in cards:
        mark = "[green]active[/]" if card.id == active else ""
        row = (card.name, card.version, card.architecture, str(len(card.labels)))
        table.add_row(mark, *row, f"{card.input_size} px", card.feature_layer, card.head)
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
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    card = open_store(settings).find(reference)
    Ledger(settings.ledger_url).activate(card.id)
    out().print(f"{card.id} is active.")
