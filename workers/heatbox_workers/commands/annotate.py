"""`heatbox annotate`: pictures in, Label Studio import JSON and an HTML page out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, err, out, print_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heatbox_workers.batch import Annotated as AnnotatedSource
    from heatbox_workers.batch import Batch, Summary

__all__ = ["annotate"]


def annotate(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Pictures, folders, patterns, or a Label Studio tasks JSON."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="NAME[@VERSION] in the store, or a torchvision network; default: the active model.",
        ),
    ] = None,
    explainer: Annotated[
        str, typer.Option("--explainer", "-e", help="See `heatbox explainers`.")
    ] = "grad_cam",
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            help="Look for this label in every picture (repeatable); default: what the classifier sees.",
        ),
    ] = None,
    fitter: Annotated[
        str, typer.Option("--fitter", "-f", help="Box fitter; see `heatbox explainers`.")
    ] = "components",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            min=0.001,
            max=0.999,
            help="Box threshold as part of the heatmap's maximum; default: the model card's, then 0.3.",
        ),
    ] = None,
    explainer_option: Annotated[
        list[str] | None,
        typer.Option(
            "--explainer-option", metavar="NAME=VALUE", help="An option of the explainer (repeatable)."
        ),
    ] = None,
    fitter_option: Annotated[
        list[str] | None,
        typer.Option(
            "--fitter-option", metavar="NAME=VALUE", help="An option of the box fitter (repeatable)."
        ),
    ] = None,
    min_probability: Annotated[
        float, typer.Option(min=0, max=1, help="Classes below are not explained.")
    ] = 0.25,
    max_labels: Annotated[int, typer.Option(min=1, help="At most so many classes per picture.")] = 3,
    label_config: Annotated[
        Path | None,
        typer.Option(
            help="The project's label config (XML): its labels and names are used; default: one is written beside OUT."
        ),
    ] = None,
    data_key: Annotated[
        str | None, typer.Option(help="Key of the task data that holds the picture's address.")
    ] = None,
    document_root: Annotated[
        Path, typer.Option(help="Label Studio's LOCAL_FILES_DOCUMENT_ROOT: files are named relative to it.")
    ] = Path("/"),
    out_file: Annotated[Path, typer.Option("--out", "-o", help="Label Studio import JSON to write.")] = Path(
        "heatbox.json"
    ),
    html: Annotated[
        Path | None, typer.Option(help="Write a page with picture, heatmap, mask, contour and boxes.")
    ] = None,
) -> None:
    """Annotate pictures with boxes that nobody drew.

    One bad picture costs only itself: it is reported with a code and a remedy, and the exit code is 1.
    """
    from rich.markup import escape

    from heatbox.settings import read_settings
    from heatbox_workers.process import prepare_process

    settings = read_settings(os.environ)
    prepare_process(settings.threads, 1)
    from heatbox_workers.batch import Request, prepare

    request = Request(
        paths=tuple(paths),
        model=model,
        explainer=explainer,
        explainer_options=tuple(explainer_option or ()),
        labels=tuple(label or ()),
        fitter=fitter,
        fitter_options=tuple(fitter_option or ()),
        threshold=threshold,
        min_probability=min_probability,
        max_labels=max_labels,
        label_config=label_config,
        data_key=data_key,
        document_root=document_root,
    )
    with err().status("Loading the model ..."):
        batch = prepare(request, settings)
    for warning in batch.warnings:
        err().print(f"[yellow]warning[/]: {escape(warning)}", highlight=False)
    summary = batch.write(_with_progress(batch), out_file, html)
    _print_summary(batch, summary, out_file, html)
    if summary.failed:
        raise typer.Exit(PARTLY)


def _with_progress(batch: "Batch") -> "Iterator[AnnotatedSource]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("annotating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        yield from progress.track(batch.annotate(), total=len(batch.sources))


def _print_summary(batch: "Batch", summary: "Summary", out_file: Path, html: Path | None) -> None:
    from rich.markup import escape

    for name, error in summary.failed:
        err().print(f"[red]failed[/] {escape(name)}", highlight=False, soft_wrap=True)
        print_error(error)
    counts = ", ".join(f"{label} {count}" for label, count in summary.boxes.most_common())
    done = summary.pictures - len(summary.failed)
    out().print(
        f"{done} of {summary.pictures} pictures annotated with {batch.pipeline.version}: "
        f"{summary.boxes.total()} boxes{f' ({counts})' if counts else ''}, "
        f"{summary.without_boxes} pictures without any.",
        highlight=False,
        soft_wrap=True,
    )
    out().print(f"Label Studio import file: {out_file}", highlight=False, soft_wrap=True)
    if not batch.has_config and summary.boxes:
        from heatbox_workers.batch import config_path

        out().print(f"Label config for it:      {config_path(out_file)}", highlight=False, soft_wrap=True)
    if html is not None:
        out().print(f"Page to look at:          {html}", highlight=False, soft_wrap=True)
