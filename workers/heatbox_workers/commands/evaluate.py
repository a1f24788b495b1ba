"""`heatbox evaluate`: true boxes in, a table, a CSV and an HTML page of every explainer's box quality and cost out."""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from heatbox.cli.console import PARTLY, err, out, print_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heatbox.models import ModelStore
    from heatbox_workers.classifier import TorchClassifier
    from heatbox_workers.coco import Sample
    from heatbox_workers.evaluate import Contest, Evaluation
    from heatbox_workers.scoreboard import Score

__all__ = ["evaluate"]

ALL = "all"
LARGEST = "largest"
SHOWN = 24


def evaluate(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET...", help="Folders with images/ and annotations.json (COCO), or COCO files."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As in `heatbox annotate`; default: the active model."),
    ] = None,
    explainer: Annotated[
        list[str] | None,
        typer.Option(
            "--explainer",
            "-e",
            help="NAME, or 'NAME OPTION=VALUE ...' (repeatable), or `all`; default: fused_cam.",
        ),
    ] = None,
    fitter: Annotated[
        list[str] | None,
        typer.Option(
            "--fitter",
            "-f",
            help="As for explainers; default: `largest`, the box of the largest component of the published protocol.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: images/ beside the COCO file.")
    ] = None,
    normalisation: Annotated[
        Literal["max", "minmax"],
        typer.Option(help="How heatmaps become [0, 1]: by their maximum, or from minimum to maximum."),
    ] = "max",
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the table as CSV.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the table and pictures.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure at most so many pictures, spread over the data sets.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split into halves.")] = 0,
) -> None:
    """Measure how good the boxes of explainers and box fitters are, on pictures whose boxes are known.

    Thresholds are chosen on one half of the pictures and reported on the other, beside the best that any threshold
    reaches. An explainer that does not support the network is named and left out.
    """
    from heatbox.pictures.images import Limits
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings
    from heatbox_workers.process import prepare_process

    settings = read_settings(os.environ)
    prepare_process(settings.threads, 1)
    from heatbox_workers import evaluate as measuring
    from heatbox_workers.batch import find_model
    from heatbox_workers.loading import load_classifier
    from heatbox_workers.scoreboard import scores, write_csv, write_html

    contest = _contest(explainer or ["fused_cam"], fitter or [LARGEST], normalisation)
    with err().status("Loading the model ..."):
        store, card = open_store(settings), find_model(settings, model)
        classifier = load_classifier(store, card)
        contest = _informed(contest, store, classifier)
    samples = _samples(datasets, images, classifier.labels, limit)
    found = measuring.evaluate(
        classifier, _with_progress(samples), contest, Limits.from_settings(settings), SHOWN if html else 0
    )
    if found.rows:
        board = scores(found, seed)
        _print_board(found, board, card.id)
        if csv_file:
            write_csv(csv_file, board)
        if html:
            write_html(html, found, board, card.id)
    _print_left_out(found)
    if found.failed or _missed(found, explainer or ()):
        raise typer.Exit(PARTLY)


def _contest(
    explainers: "Sequence[str]", fitters: "Sequence[str]", normalisation: Literal["max", "minmax"]
) -> "Contest":
    """Return what was asked for, made and checked.

    Raises:
        PluginError: a plugin that was named cannot be used.
    """
    from heatbox.plugins import EXPLAINERS, make_box_fitter, make_explainer, parse_options, plugin_names
    from heatbox_workers.evaluate import Contest, Largest

    named = [name for text in explainers for name in (plugin_names(EXPLAINERS) if text == ALL else [text])]

    def parts(text: str) -> tuple[str, dict[str, str]]:
        name, *options = shlex.split(text)
        return name, parse_options(options)

    return Contest(
        explainers={text: make_explainer(*parts(text)) for text in named},
        fitters={text: Largest() if text == LARGEST else make_box_fitter(*parts(text)) for text in fitters},
        normalisation=normalisation,
    )


def _informed(contest: "Contest", store: "ModelStore", classifier: "TorchClassifier") -> "Contest":
    """Return the contest with what explainers have learnt about the model, and the options that they learnt it with.

    Raises:
        NotFittedError: an option is not the one that the explainer was fitted with.
    """
    from heatbox.fitted import find_state, require_options
    from heatbox.plugins import make_explainer, parse_options
    from heatbox_workers.fitting import options_of, with_state

    explainers, states = dict(contest.explainers), {}
    for text in contest.explainers:
        name, *options = shlex.split(text)
        state = find_state(store, classifier.card, name)
        if state is not None:
            given = parse_options(options)
            typed = options_of(make_explainer(name, given))
            require_options(state, {option: typed[option] for option in given})
            explainers[text] = make_explainer(name, {**state.options, **given})
            states[text] = with_state(classifier, state).state
    return replace(contest, explainers=explainers, states=states)


def _samples(
    datasets: "Sequence[Path]", images: Path | None, labels: "Sequence[str]", limit: int | None
) -> "list[Sample]":
    from rich.markup import escape

    from heatbox_workers.coco import read_coco

    samples: list[Sample] = []
    for dataset in datasets:
        found, unmapped = read_coco(dataset, labels, images)
        samples += found
        if unmapped:
            names = ", ".join(unmapped)
            message = f"{dataset}: no class of the model stands for {names}; their boxes are not measured."
            err().print(f"[yellow]warning[/]: {escape(message)}", highlight=False)
    if limit is not None and limit < len(samples):
        return [samples[index * len(samples) // limit] for index in range(limit)]
    return samples


def _with_progress(samples: "Sequence[Sample]") -> "Iterator[Sample]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        yield from progress.track(samples)


def _print_board(found: "Evaluation", board: "Sequence[Score]", model: str) -> None:
    """Print the figures that fit a terminal; the CSV and the page have all of them."""
    from rich.table import Table

    figures = ("MaxBoxAcc .3/.5/.7", "half/half .3/.5/.7", "mean IoU", "at", "pointing", "s", "x forward")
    title = f"{len(found.rows)} boxes in {len(set(found.rows))} pictures, {model}"
    shown = Table("explainer", "fitter", *figures, title=title, title_justify="left")
    for score in board:
        shown.add_row(
            score.explainer,
            score.fitter,
            " ".join(map(_figure, score.oracle.best)),
            " ".join(map(_figure, score.held_out.accuracy)),
            _figure(score.mean_iou),
            *map(_figure, (score.threshold, score.pointing, score.seconds, score.ratio)),
        )
    out().print(shown)


def _missed(found: "Evaluation", asked: "Sequence[str]") -> bool:
    """Return whether an explainer failed, or one that was asked for by its name could not be used.

    Of `all`, those that do not suit the network or have not learnt about it are left out as a matter of course.
    """
    from heatbox.errors import NotFittedError, UnsupportedError

    unsuited = (NotFittedError, UnsupportedError)
    return any(name in asked or not isinstance(error, unsuited) for name, error in found.refused.items())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_left_out(found: "Evaluation") -> None:
    from rich.markup import escape

    for what, errors in (("left out", found.refused.items()), ("failed", found.failed)):
        for name, error in errors:
            err().print(f"[red]{what}[/] {escape(name)}", highlight=False, soft_wrap=True)
            print_error(error)
    if not found.rows:
        err().print("There is no picture with exactly one box of a class that the model knows.")
