"""`heatbox labels`: the label map of a project, before anything is annotated with it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import err, out

if TYPE_CHECKING:
    from heatbox.serving import Serving
    from heatbox.settings import Settings

__all__ = ["labels"]

_KINDS = {
    "rectanglelabels": "rectangles",
    "polygonlabels": "polygons",
    "brushlabels": "brush masks",
    "choices": "choices",
}


def labels(
    ctx: typer.Context,
    project: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Project in Label Studio (LABEL_STUDIO_URL).")
    ] = None,
    label_config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A label config (XML) instead.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model; default: the project's, then the service's.")
    ] = None,
) -> None:
    """Print which classes of the classifier stand for which labels of a project, and what else it asks for.

    Labels without a class never get a box; the closest classes are named.
    """
    if (project is None) == (label_config is None):
        raise typer.BadParameter("Give one of --project NUMBER and --label-config FILE.", ctx)
    from heatbox.serving import with_choices
    from heatbox.settings import read_settings

    settings = with_choices(read_settings(os.environ), model=model)
    text = _config_of(settings, project) if project is not None else _read(label_config)
    _print(_serving(settings, text, frozenset({"model"} if model else ()), project))


def _config_of(settings: "Settings", project: int) -> str:
    from heatbox.runs.conducting import open_studio

    with err().status("Asking Label Studio ..."), open_studio(settings) as studio:
        return studio.project(project).label_config


def _read(path: Path | None) -> str:
    from heatbox.labelling.choice import read_label_config

    return read_label_config(path or Path())


def _serving(settings: "Settings", text: str, given: frozenset[str], project: int | None) -> "Serving":
    from contextlib import closing

    from heatbox.labelling.config import parse_label_config
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.serving import serve_project

    with closing(Ledger(settings.ledger_url)) as ledger:
        store, config = open_store(settings), parse_label_config(text)
        return serve_project(settings, store, ledger, config, given, project)


def _print(serving: "Serving") -> None:
    from rich.markup import escape
    from rich.table import Table

    pipeline, config = serving.pipeline, serving.config
    head = Table.grid(padding=(0, 2))
    filled = [f"{_KINDS[control.kind]} ({control.from_name})" for control in config.controls]
    head.add_row("version", pipeline.version)
    head.add_row("model", pipeline.model)
    head.add_row("explainer", f"{pipeline.explainer}, {pipeline.fitter}")
    head.add_row("fills", escape(", ".join(filled)))
    if pipeline.labels_from:
        head.add_row("told by the data", escape(f"data[{pipeline.labels_from!r}] says what is in a picture"))
    elif config.question is not None:
        head.add_row(
            "told by people", escape(f"answers to {config.question.from_name!r} say what is in a picture")
        )
    out().print(head)
    table = Table()
    has_ways = bool(pipeline.label_ways)
    ways = ["explainer"] if has_ways else []
    for column in ("label", "classes of the classifier", "score from", *ways, "box threshold"):
        table.add_column(column, overflow="fold")
    thresholds = dict(pipeline.label_thresholds)
    for label, names in serving.classes_by_label.items():
        way = pipeline.way_of(label)
        threshold = thresholds.get(label, way.fitter_options.get("threshold"))
        table.add_row(
            escape(label),
            escape(", ".join(names)) or "[yellow]none: never gets a box[/]",
            f"{pipeline.min_probability_of(label):g}",
            *([escape(f"{way.in_words}, {way.fitter}")] if has_ways else []),
            "the explainer's" if threshold is None else f"{float(threshold):g}",
        )
    out().print(table)
    for warning in serving.warnings:
        err().print(f"[yellow]warning[/]: {escape(warning)}", highlight=False, soft_wrap=True)
