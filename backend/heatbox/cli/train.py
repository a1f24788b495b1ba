"""`heatbox train`: let a classifier learn from corrections and folders, and lose nothing on the way."""

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from heatbox.cli.console import err, out
from heatbox.trainings.order import TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heatbox.settings import Settings
    from heatbox.trainings.preparing import Prepared

__all__ = ["train"]

_DEFAULTS = TrainingOptions()


def train(
    project: Annotated[
        int | None,
        typer.Option(
            "--project", "-p", min=1, metavar="NUMBER", help="Learn from this project's corrected pictures."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            resolve_path=True,
            help="Learn from a folder of labelled pictures, as `heatbox fit` reads them (repeatable).",
        ),
    ] = None,
    labels_only: Annotated[  # noqa: FBT002 - the form that typer calls
        bool, typer.Option("--labels-only", help="Leave the boxes of --data aside.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            help="A class to learn (repeatable); default: those of the project, else of the data.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Model that is begun from; default: what the project is served with."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new model; default: that of the base.")
    ] = None,
    fit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPLAINER",
            help="Let this explainer learn about the new model (repeatable); default: those that have learnt about "
            "the one before, and box_regression where there are corrected boxes.",
        ),
    ] = None,
    head: Annotated[
        Literal["keep", "softmax", "sigmoid", "arcface"] | None,
        typer.Option(help=f"Head: one class a picture, several, or an embedding; default: {_DEFAULTS.head}."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help=f"Passes over the pictures, at most; default: {_DEFAULTS.epochs}."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Epochs without a lower error after which it ends; default: {_DEFAULTS.patience}."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-8, help=f"The highest of the schedule; default: {_DEFAULTS.learning_rate:g}."),
    ] = None,
    unfreeze: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"How many of the network's last stages learn too, 0: its head alone; default: {_DEFAULTS.unfreeze}.",
        ),
    ] = None,
    box_weight: Annotated[
        float | None,
        typer.Option(
            min=0, help=f"How much corrected boxes count, 0: not at all; default: {_DEFAULTS.box_weight:g}."
        ),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment", help="Learn from mirrored and cut pictures too; default: --augment."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help=f"Of all that is drawn; default: {_DEFAULTS.seed}.")
    ] = None,
    resume: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="ID", help="Go on with a training that was left, failed or was cancelled."
        ),
    ] = None,
    dry_run: Annotated[  # noqa: FBT002 - the form that typer calls
        bool,
        typer.Option(
            "--dry-run", help="Say what would be learnt from, and write nothing but what was pulled."
        ),
    ] = False,
    follow: Annotated[  # noqa: FBT002 - the form that typer calls
        bool, typer.Option("--follow/--no-follow", help="Stay until it has ended, and show how far it is.")
    ] = True,
    activate: Annotated[  # noqa: FBT002 - the form that typer calls
        bool, typer.Option("--activate/--no-activate", help="Let the new model serve where it is better.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,  # noqa: FBT002 - typer
) -> None:
    """Let a classifier learn from what people corrected, and use it where it is better than the one before.

    While `heatbox up` works on the same ledger, or HEATBOX_REDIS_URL names a Redis, a worker does it; otherwise this
    command does. Killed and taken up again it ends the same. The new model serves only where it measures better.
    """
    if resume is None and project is None and not data:
        raise typer.BadParameter("What is to be learnt from? Give --project NUMBER, --data DIR, or both.")
    from heatbox.settings import read_settings
    from heatbox.trainings.request import TrainingRequest

    settings = read_settings(os.environ)
    if resume is not None:
        _resume(settings, resume, follow=follow, json=json)
        return
    chosen: Mapping[str, Any] = {
        "head": head,
        "epochs": epochs,
        "patience": patience,
        "learning_rate": learning_rate,
        "unfreeze": unfreeze,
        "box_weight": box_weight,
        "augment": augment,
        "seed": seed,
    }
    request = TrainingRequest(
        project,
        tuple(map(str, data or ())),
        tuple(dict.fromkeys(label or ())),
        labels_only,
        base or "",
        name or "",
        None if fit is None else tuple(dict.fromkeys(fit)),
        TrainingOptions(**{one: value for one, value in chosen.items() if value is not None}),
        activate,
    )
    _start(settings, request, dry_run=dry_run, follow=follow, json=json)


def _start(settings: "Settings", request: Any, *, dry_run: bool, follow: bool, json: bool) -> None:  # noqa: ANN401 - see train
    from heatbox.cli.training import attend, opened
    from heatbox.runs.conducting import open_studio
    from heatbox.trainings.preparing import prepare

    with opened(settings) as trainings:
        with err().status("Asking for what there is to learn ..."):
            prepared = prepare(settings, trainings.ledger, request, lambda: open_studio(settings))
            split = _split(settings, prepared) if dry_run else {}
        if dry_run or not json:
            _print_prepared(prepared, split, json=json)
        if dry_run:
            return
        number, is_new = trainings.create(prepared.new)
        told = "is in the ledger" if is_new else "is the same, and on its way"
        err().print(f"Training {number} {told}. Look at it: heatbox trainings {number}", highlight=False)
        attend(settings, trainings, number, follow=follow, json=json)


def _resume(settings: "Settings", number: int, *, follow: bool, json: bool) -> None:
    from heatbox.cli.training import attend, opened

    with opened(settings) as trainings:
        trainings.resume(number)
        err().print(f"Training {number} goes on.", highlight=False)
        attend(settings, trainings, number, follow=follow, json=json)


def _split(settings: "Settings", prepared: "Prepared") -> "dict[str, int]":
    from heatbox.trainings.counting import split_counts

    return split_counts(settings, prepared.order)


def _print_prepared(prepared: "Prepared", split: "Mapping[str, int]", *, json: bool) -> None:
    order = prepared.order
    counts = {
        "pictures": len(order.corrected),
        "labels": prepared.pictures_by_label,
        "boxes": prepared.boxes,
        "split": dict(split),
    }
    if json:
        options = {one.name: getattr(order.options, one.name) for one in fields(order.options)}
        about = {"base": order.base, "name": order.name, "champion": order.champion, "data": list(order.data)}
        out().print_json(data={**about, **counts, "fit": list(order.fit), "options": options})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("learn from", escape(prepared.new.title))
    table.add_row("begin from", order.base)
    table.add_row("compare with", order.champion or "nothing: no model serves these labels")
    table.add_row("corrected", f"{len(order.corrected):,} pictures, {prepared.boxes:,} boxes")
    shown = [f"{label}: {count:,}" for label, count in prepared.pictures_by_label.items()]
    table.add_row("labels", escape(", ".join(shown)) if shown else "those of the data")
    if split:
        table.add_row("split", ", ".join(f"{name} {count:,}" for name, count in split.items()))
    if order.fit:
        table.add_row("explainers that learn", ", ".join(order.fit))
    out().print(table, highlight=False)
