"""`heatbox fit`: let an explainer learn about a model from examples, once; its state is kept beside the weights."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, bar, err, out, print_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heatbox_workers.examples import ExampleBatches, Labelled

__all__ = ["fit"]


def fit(
    explainer: Annotated[
        str, typer.Argument(help="An explainer that learns: faster_grad_cam, anomaly, box_regression.")
    ],
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET...",
            help="Folders with images/ and annotations.json (COCO), COCO files, folders with a folder of pictures for "
            "each class, or folders of pictures.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As in `heatbox annotate`; default: the active model."),
    ] = None,
    explainer_option: Annotated[
        list[str] | None,
        typer.Option("--explainer-option", metavar="NAME=VALUE", help="Option of the explainer."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: images/ beside the COCO file.")
    ] = None,
) -> None:
    """Let an explainer learn about a model: Faster-Grad-CAM's clusters, what is normal, where boxes are.

    Afterwards `heatbox annotate`, `evaluate` and the service use it as any other explainer. Fitting again replaces
    nothing: the newest state is used, under another version.
    """
    from heatbox.pictures.images import Limits
    from heatbox.plugins import make_explainer, parse_options
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings
    from heatbox_workers.process import prepare_process

    settings = read_settings(os.environ)
    prepare_process(settings.threads, 1)
    made = make_explainer(explainer, parse_options(explainer_option or []))
    from heatbox_workers.batch import find_model
    from heatbox_workers.examples import ExampleBatches
    from heatbox_workers.fitting import fit_explainer
    from heatbox_workers.loading import load_classifier

    store = open_store(settings)
    with err().status("Loading the model ..."):
        classifier = load_classifier(store, find_model(settings, model))
    pictures = _pictures(datasets, images, () if hasattr(made, "label") else classifier.labels)
    examples = ExampleBatches(pictures, classifier, Limits.from_settings(settings))
    try:
        with bar("learning", len(pictures)) as examples.seen:
            state = fit_explainer(store, classifier, explainer, made, examples)
    finally:  # where nothing was learnt, they may be the reason
        _print_failed(examples)
    out().print(f"{explainer} learnt from {state.examples} pictures about {classifier.card.id}: {state.id}.")
    if examples.failed:
        raise typer.Exit(PARTLY)


def _pictures(datasets: "Sequence[Path]", images: Path | None, labels: "Sequence[str]") -> "list[Labelled]":
    """List the pictures; names without a class are told, unless the explainer asks for no class."""
    from rich.markup import escape

    from heatbox_workers.examples import read_dataset

    pictures: list[Labelled] = []
    for dataset in datasets:
        found, unmapped = read_dataset(dataset, labels, images)
        pictures += found
        if unmapped and labels:
            message = f"{dataset}: no class of the model stands for {', '.join(unmapped)}."
            err().print(f"[yellow]warning[/]: {escape(message)}", highlight=False)
    return pictures


def _print_failed(examples: "ExampleBatches") -> None:
    from rich.markup import escape

    for path, error in examples.failed.items():
        err().print(f"[red]failed[/] {escape(path.name)}", highlight=False, soft_wrap=True)
        print_error(error)
