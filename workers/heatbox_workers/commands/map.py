"""`heatbox map`: a page on which pictures that look alike to the classifier are near each other."""

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, bar, err, out
from heatbox.cli.options import Roots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from heatbox.ledger import Ledger
    from heatbox.models import Card
    from heatbox.pictures.wanted import Wanted
    from heatbox.settings import Settings
    from heatbox_workers.classifier import TorchClassifier
    from heatbox_workers.data_map.points import Pictured, Seen

__all__ = ["data_map"]

_TOLD = 10
_NAMED = 5


def data_map(
    project: Annotated[
        int | None, typer.Option("--project", "-p", min=1, metavar="NUMBER", help="Project in Label Studio.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A data set instead: COCO, a folder for each class, or a folder of pictures."
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model; default: the project's, then the service's."),
    ] = None,
    html: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page.")] = Path("map.html"),
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: images/ beside the COCO file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the map.")] = 0,
    perplexity: Annotated[
        float,
        typer.Option(min=1, help="How many neighbours count, roughly; a third of the pictures at most."),
    ] = 30.0,
    root: Roots = None,
) -> None:
    """Make a page with a map of all pictures: like ones near each other, coloured by label, mistakes marked.

    A click opens the task, or the file. The page is one file and asks for nothing from outside.
    """
    if (project is None) == (data is None):
        raise typer.BadParameter("Give one of --project NUMBER and --data DIR.")
    from heatbox.ledger import Ledger
    from heatbox.serving import with_choices
    from heatbox.settings import read_settings
    from heatbox_workers.process import prepare_process

    settings = with_choices(read_settings(os.environ), model=model)
    settings = settings.model_copy(update={"local_roots": (*settings.local_roots, *(root or ()))})
    prepare_process(settings.threads, 1)
    with closing(Ledger(settings.ledger_url)) as ledger:
        if data is not None:
            seen, title = _of_dataset(settings, data, images, html, model), data.resolve().name
        else:
            seen, title = _of_project(settings, ledger, project or 0, model)
    _write(html, title, seen, seed, perplexity)
    _print(html, seen)
    if seen.failed:
        raise typer.Exit(PARTLY)


def _of_dataset(
    settings: "Settings", source: Path, images: Path | None, html: Path, model: str | None
) -> "Seen":
    from heatbox_workers.batch import find_model
    from heatbox_workers.data_map.points import known_classes, of_dataset, strange_names

    pictures, names = of_dataset(source, images, html)
    classifier = _load(settings, find_model(settings, model))
    strange = strange_names(names, classifier)
    if strange:
        few = ", ".join(strange[:_NAMED]) + (", ..." if len(strange) > _NAMED else "")
        _note(f"{classifier.card.id} has no class of the name {few}: no mistake is marked.")
    known = known_classes(names, classifier)
    return _look(pictures, classifier, known, settings, lambda one: Path(one.address), compared=not strange)


def _of_project(
    settings: "Settings", ledger: "Ledger", project: int, model: str | None
) -> "tuple[Seen, str]":
    from heatbox.corrections.pulling import pull
    from heatbox.corrections.records import Corrections
    from heatbox.errors import LabelUnknownError
    from heatbox.labelling.config import parse_label_config
    from heatbox.pictures.fetching import Fetcher
    from heatbox.remote_store import open_store
    from heatbox.runs.conducting import open_studio
    from heatbox.serving import serve_project, serving_model
    from heatbox.studio.priorities import list_tasks
    from heatbox_workers.data_map.points import of_tasks
    from heatbox_workers.targets import classes_by_label

    url, store = settings.studio_url.rstrip("/"), open_store(settings)
    with open_studio(settings) as studio:
        found = studio.project(project)
        with err().status("Reading the tasks ..."):
            corrections = Corrections(ledger)
            pull(studio, corrections, project)
            tasks = list(list_tasks(studio, project))
    config = parse_label_config(found.label_config)
    corrected = corrections.pictures(settings.studio_url, project)
    pictures, failed = of_tasks(tasks, config, corrected, f"{url}/projects/{project}/data?task=")
    known: Mapping[str, Sequence[int]] = {}
    try:
        given = {"model"} if model else frozenset[str]()
        pipeline = serve_project(settings, store, ledger, config, given, project).pipeline
        card = store.find(pipeline.model)
        known = {} if pipeline.own_label else classes_by_label(pipeline, card.labels)
    except LabelUnknownError:  # it can still say which pictures are alike
        card = serving_model(settings, store, ledger)
    with closing(Fetcher(settings)) as fetcher:

        def fetch(one: "Wanted") -> Path:
            return fetcher.fetch(one.address, one.task)

        seen = _look(pictures, _load(settings, card), known, settings, fetch)
    seen.failed += failed
    return seen, f"Project {project}: {found.title}"


def _load(settings: "Settings", card: "Card") -> "TorchClassifier":
    from heatbox.remote_store import open_store
    from heatbox_workers.loading import load_classifier

    with err().status("Loading the model ..."):
        return load_classifier(open_store(settings), card)


def _look(
    pictures: "Sequence[Pictured]",
    classifier: "TorchClassifier",
    known: "Mapping[str, Sequence[int]]",
    settings: "Settings",
    fetch: "Callable[[Wanted], Path]",
    *,
    compared: bool = True,
) -> "Seen":
    from heatbox.pictures.images import Limits
    from heatbox_workers.data_map.points import look

    limits = Limits.from_settings(settings)
    with bar("looking", len(pictures)) as told:
        return look(pictures, classifier, known, limits, fetch, told=told, compared=compared)


def _write(html: Path, title: str, seen: "Seen", seed: int, perplexity: float) -> None:
    from heatbox_workers.data_map.page import write_map
    from heatbox_workers.data_map.projection import bounded, flat_map

    with err().status("Placing the pictures ..."):
        places = flat_map(seen.embeddings, seed, perplexity)
    used = bounded(perplexity, len(seen.points))
    subtitle = (
        f"t-SNE of {len(seen.points)} embeddings, perplexity {used:.3g}, seed {seed}. Like pictures are near."
    )
    write_map(html, seen.points, places, title=title, subtitle=subtitle, failed=seen.failed)


def _print(html: Path, seen: "Seen") -> None:
    from rich.markup import escape

    wrong = sum(one.mistake for one in seen.points)
    told = f"{len(seen.points)} pictures, {wrong} {'mistake' if wrong == 1 else 'mistakes'}: {html}"
    out().print(escape(told), highlight=False, soft_wrap=True)
    for name, error in seen.failed[:_TOLD]:
        line = escape(f"{name}: {error.code}: {error.sentence}")
        err().print(f"[red]failed[/] {line}", highlight=False, soft_wrap=True)
    if len(seen.failed) > _TOLD:
        err().print(f"[red]failed[/] and {len(seen.failed) - _TOLD} more pictures", highlight=False)


def _note(text: str) -> None:
    from rich.markup import escape

    err().print(f"[yellow]note[/]: {escape(text)}", highlight=False, soft_wrap=True)
