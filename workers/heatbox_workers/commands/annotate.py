"""`heatbox annotate`: pictures in, Label Studio import JSON or another format's files and an HTML page out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from heatbox.cli.console import PARTLY, err, out, print_error
from heatbox.export import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heatbox_workers.batch import Annotated as AnnotatedSource
    from heatbox_workers.batch import Batch, Summary

__all__ = ["annotate"]

_SHOWN = 10  # labels in the summary
_WRITTEN = {
    Format.LABEL_STUDIO: "Label Studio import file:",
    Format.VOC: "Pascal VOC folder:",
    Format.COCO: "COCO file:",
    Format.YOLO: "YOLO folder:",
}


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
    ] = "fused_cam",
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
            help="Box threshold as part of the heatmap's maximum; default: the explainer's, the card's, then 0.2.",
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
    normalisation: Annotated[
        Literal["max", "minmax"],
        typer.Option(help="How heatmaps become [0, 1]: by their maximum, or from minimum to maximum."),
    ] = "max",
    min_mask_iou: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Reject boxes whose IoU with their part of the mask is lower; 0: not checked."
        ),
    ] = 0.0,
    min_crop_probability: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Reject boxes whose crop, classified again, has their label with less probability; 0: not checked.",
        ),
    ] = 0.0,
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
    form: Annotated[
        Format, typer.Option("--format", help="What to write: Label Studio's import JSON or a dataset.")
    ] = Format.LABEL_STUDIO,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="JSON to write, for voc and yolo a new folder; default: heatbox.json, or heatbox-FORMAT.",
        ),
    ] = None,
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
        normalisation=normalisation,
        min_mask_iou=min_mask_iou,
        min_crop_probability=min_crop_probability,
    )
    with err().status("Loading the model ..."):
        batch = prepare(request, settings)
    for warning in batch.warnings:
        err().print(f"[yellow]warning[/]: {escape(warning)}", highlight=False)
    written = out_file or Path(form.default_out)
    summary = batch.write(_with_progress(batch), written, html, form)
    _print_unkept(summary)
    _print_summary(batch, summary)
    _print_written(batch, summary, form, written, html)
    if summary.failed:
        raise typer.Exit(PARTLY)


def _with_progress(batch: "Batch") -> "Iterator[AnnotatedSource]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("annotating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        yield from progress.track(batch.annotate(), total=len(batch.sources))


def _print_unkept(summary: "Summary") -> None:
    """Print what failed with its remedy, and the boxes that the self-check rejected with its reasons."""
    from rich.markup import escape

    for name, error in summary.failed:
        err().print(f"[red]failed[/] {escape(name)}", highlight=False, soft_wrap=True)
        print_error(error)
    for name, rejected in summary.rejected:
        text = escape(f"{name}: {rejected.sentence}")
        err().print(f"[yellow]rejected[/] {text}", highlight=False, soft_wrap=True)


def _print_summary(batch: "Batch", summary: "Summary") -> None:
    counts = "; ".join(f"{label} {count}" for label, count in summary.boxes.most_common(_SHOWN))
    counts += "; ..." if len(summary.boxes) > _SHOWN else ""
    done = summary.pictures - len(summary.failed)
    rejected = f"{len(summary.rejected)} boxes rejected by the self-check, " if summary.rejected else ""
    out().print(
        f"{done} of {summary.pictures} pictures annotated with {batch.pipeline.version}: "
        f"{summary.boxes.total()} boxes{f' ({counts})' if counts else ''}, {rejected}"
        f"{summary.without_boxes} pictures without any.",
        highlight=False,
        soft_wrap=True,
    )


def _print_written(
    batch: "Batch", summary: "Summary", form: Format, written: Path, html: Path | None
) -> None:
    rows = [(_WRITTEN[form], written)]
    if form is Format.LABEL_STUDIO and not batch.has_config and summary.boxes:
        from heatbox.import_file import config_path

        rows.append(("Label config for it:", config_path(written)))
    if html is not None:
        rows.append(("Page to look at:", html))
    for name, path in rows:
        out().print(f"{name:25} {path}", highlight=False, soft_wrap=True)
