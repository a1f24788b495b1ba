"""`heatbox models add`: register a classifier, after it has run once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heatbox.cli.console import err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from heatbox.models import Card, ModelStore
    from heatbox.settings import Settings
    from heatbox_workers.loading import State

__all__ = ["add"]


def add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|FILE",
            help="A network of torchvision, or of timm as timm/NAME, or a file of weights (.safetensors, .pt).",
        ),
    ],
    card: Annotated[
        Path | None,
        typer.Option(help="Model card (JSON) of a weights FILE; default: FILE with the ending .json."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the store; default: the card's or the network's.")
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square input in pixels; default: the card's or the published.", min=16
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Feature layer to explain; default: found by a probe.")
    ] = None,
    class_pictures: Annotated[
        Path | None,
        typer.Option(
            help="For an embedding network (head arcface) without class vectors: a folder with a folder of pictures "
            "for each label; each class vector is their mean embedding."
        ),
    ] = None,
    *,
    activate: Annotated[
        bool, typer.Option("--activate", help="Make it the service's model at once.")
    ] = False,
) -> None:
    """Register a classifier: a torchvision NETWORK with its published weights, or a weights FILE with a card.

    The network runs once before it is registered. Weights are read without running code.
    """
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    store = open_store(settings)
    changes = {"name": name, "input_size": input_size, "feature_layer": layer}
    wanted = {field: value for field, value in changes.items() if value is not None}
    with err().status(f"Trying {source} ..."):
        registered = _register(store, source, card, _completion(class_pictures, settings), wanted)
    out().print(
        f"Registered {registered.id} ({registered.architecture}, {len(registered.labels)} labels, "
        f"explained at {registered.feature_layer})."
    )
    if activate:
        Ledger(settings.ledger_url).activate(registered.id)
        out().print("It is active.")


def _completion(class_pictures: Path | None, settings: "Settings") -> "Callable[[Card, State], State] | None":
    """Return what adds class vectors to weights, where pictures of the classes were given."""
    if class_pictures is None:
        return None
    from heatbox.pictures.images import Limits
    from heatbox_workers.examples import read_dataset
    from heatbox_workers.prototypes import with_class_vectors

    def complete(card: "Card", state: "State") -> "State":
        pictures, _ = read_dataset(class_pictures, card.labels)
        return with_class_vectors(card, state, pictures, Limits.from_settings(settings))

    return complete


def _register(
    store: "ModelStore",
    source: str,
    card: Path | None,
    complete: "Callable[[Card, State], State] | None",
    changes: "Mapping[str, Any]",
) -> "Card":
    from heatbox.errors import ModelNotFoundError, OptionError
    from heatbox_workers.loading import register_file, register_published

    weights = Path(source)
    if not (card or weights.suffix or weights.exists()):
        if complete is not None:
            raise OptionError(
                f"{source} is a network with published weights and classes.",
                "--class-pictures goes with a weights FILE whose card has the head arcface.",
            )
        return register_published(store, source, **changes)
    if not weights.is_file():
        raise ModelNotFoundError(f"There is no weights file {weights}.", "Check the path.")
    described = card or weights.with_suffix(".json")
    if not described.exists():
        raise ModelNotFoundError(
            f"There is no card {described}.",
            "Write one there, or name it with --card; docs/how-to/own-classifier.md shows one.",
        )
    if complete is None:
        return register_file(store, weights, described, **changes)
    return register_file(store, weights, described, complete, **changes)
