"""`heatbox export`: a project's corrections as a data set that others read."""

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, bar, err, out
from heatbox.cli.keeping import read_corrections
from heatbox.cli.options import ProjectNumber, Roots
from heatbox.datasets.formats import ExportFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heatbox.corrections.corrected import Corrected
    from heatbox.datasets.card import Target
    from heatbox.datasets.exporting import Exported
    from heatbox.settings import Settings

__all__ = ["export"]

_MOST_REASONS = 5


def export(
    project: ProjectNumber,
    form: Annotated[ExportFormat, typer.Option("--format", "-f", help="What to write.")],
    folder: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; it appears when it is whole.")
    ],
    *,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Write a former export anew; the order of its classes stays."),
    ] = False,
    pull: Annotated[
        bool,
        typer.Option("--pull/--no-pull", help="Whether to read new corrections from Label Studio first."),
    ] = True,
    root: Roots = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
) -> None:
    """Write what people made of a project as a data set: pictures, labels, boxes, and what had been predicted.

    Each picture is in train, val or test by its content. Bad pictures are left out and listed. The exit code is 1
    where a picture could not be had.
    """
    from heatbox.datasets.card import Target
    from heatbox.datasets.exporting import check_place
    from heatbox.ledger import Ledger
    from heatbox.settings import read_settings

    check_place(folder, replace=replace)  # before anything is asked for
    settings = read_settings(os.environ)
    settings = settings.model_copy(update={"local_roots": (*settings.local_roots, *(root or ()))})
    with closing(Ledger(settings.ledger_url)) as ledger:
        corrected, config = read_corrections(settings, ledger, project, new=pull)
    exported = _written(settings, corrected, Target(folder, form, config.label_names, project, replace))
    if json:
        out().print_json(data=exported.as_dict())
    else:
        _print(exported)
    if exported.lost:
        raise typer.Exit(PARTLY)


def _written(settings: "Settings", corrected: "Sequence[Corrected]", target: "Target") -> "Exported":
    from heatbox.datasets import exporting
    from heatbox.datasets.collecting import collect
    from heatbox.pictures.fetching import Fetcher
    from heatbox.pictures.images import Limits

    limits = Limits.from_settings(settings)
    with closing(Fetcher(settings)) as fetcher, bar("pictures", len(corrected)) as told:

        def fetch(address: str, task: int | None) -> Path:
            told()
            return fetcher.fetch(address, task)

        return exporting.export(collect(corrected, fetch, limits), target, limits)


def _print(exported: "Exported") -> None:
    from rich.markup import escape
    from rich.table import Table

    counts, splits = exported.counts, list(exported.as_dict()["splits"])
    title = f"{exported.target.form.value}: {counts.pictures.total()} pictures, {counts.boxes.total()} boxes"
    table = Table("pictures (boxes)", *splits, title=title, title_justify="left")
    for name in exported.classes:
        cells = (f"{counts.of_class[split, name]} ({counts.boxes[split, name]})" for split in splits)
        table.add_row(escape(name), *cells)
    table.add_section()
    table.add_row("all", *(str(counts.pictures[split]) for split in splits))
    out().print(table)
    for code, number in exported.reasons()[:_MOST_REASONS]:
        told = escape(next(one.reason for one in exported.rejected if one.code == code))
        err().print(f"[yellow]left out[/]: {number} x {code}: {told}", highlight=False, soft_wrap=True)
    if exported.rejected:
        err().print("All of them: rejected.jsonl", highlight=False)
    out().print(f"{exported.target.folder}: written.", markup=False, highlight=False, soft_wrap=True)
