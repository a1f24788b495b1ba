"""`heatbox run`: annotate a project, or files, in the background, and lose nothing on the way."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from heatbox.cli.console import err, out
from heatbox.cli.keeping import keep_predicted
from heatbox.cli.options import Roots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heatbox.runs.files import FilesRequest
    from heatbox.runs.start import Prepared, ProjectRequest
    from heatbox.settings import Settings

__all__ = ["run"]

_SHOWN = 12  # labels with their classes
_CLASSES = 3  # of one label
_DEFAULT_OUT = Path("heatbox.jsonl")


def run(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Pictures, folders, patterns, or a Label Studio tasks JSON."),
    ] = None,
    project: Annotated[
        int | None,
        typer.Option(
            "--project", "-p", min=1, metavar="NUMBER", help="Project in Label Studio, instead of PATHs."
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="WORD",
            help="Tasks that are taken: unlabelled, unpredicted, view=12 or ids=3,7-20 (repeatable: all must hold).",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tasks or pictures.")] = None,
    replace: Annotated[  # noqa: FBT002 - the form that typer calls
        bool, typer.Option("--replace", help="Remove heatbox's own older predictions of the tasks.")
    ] = False,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=f"JSON lines to write for PATHs; default: {_DEFAULT_OUT}."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="NAME[@VERSION] in the store; default: HEATBOX_MODEL, then the active model.",
        ),
    ] = None,
    explainer: Annotated[
        str | None,
        typer.Option("--explainer", "-e", help="See `heatbox explainers`; default: HEATBOX_EXPLAINER."),
    ] = None,
    explainer_option: Annotated[
        list[str] | None,
        typer.Option(
            "--explainer-option", metavar="NAME=VALUE", help="An option of the explainer (repeatable)."
        ),
    ] = None,
    fitter: Annotated[
        str | None,
        typer.Option("--fitter", "-f", help="See `heatbox explainers`; default: HEATBOX_FITTER."),
    ] = None,
    fitter_option: Annotated[
        list[str] | None,
        typer.Option(
            "--fitter-option", metavar="NAME=VALUE", help="An option of the box fitter (repeatable)."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            min=0.001,
            max=0.999,
            help="Box threshold as part of the heatmap's maximum; default: HEATBOX_THRESHOLD, then the explainer's.",
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Classes below are not explained; default: HEATBOX_MIN_PROBABILITY."),
    ] = None,
    max_labels: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many classes per picture; default: HEATBOX_MAX_LABELS."),
    ] = None,
    normalisation: Annotated[
        Literal["max", "minmax"] | None,
        typer.Option(help="How heatmaps become [0, 1]; default: HEATBOX_NORMALISATION."),
    ] = None,
    min_mask_iou: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Reject boxes whose IoU with their part of the mask is lower; default: HEATBOX_MIN_MASK_IOU.",
        ),
    ] = None,
    min_crop_probability: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Reject boxes whose crop has their label less probably; default: HEATBOX_MIN_CROP_PROBABILITY.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            help="For PATHs: look for this label in every picture (repeatable); default: what the classifier sees.",
        ),
    ] = None,
    label_config: Annotated[
        Path | None,
        typer.Option(
            help="For PATHs: a label config (XML) whose labels and names are used; default: one is written beside OUT."
        ),
    ] = None,
    data_key: Annotated[
        str | None, typer.Option(help="For PATHs: key of the task data that holds the picture's address.")
    ] = None,
    document_root: Annotated[
        Path | None,
        typer.Option(
            help="For PATHs: Label Studio's LOCAL_FILES_DOCUMENT_ROOT, relative to which files are named; default: /."
        ),
    ] = None,
    root: Roots = None,
    dry_run: Annotated[  # noqa: FBT002 - the form that typer calls
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
    ] = False,
    follow: Annotated[  # noqa: FBT002 - the form that typer calls
        bool, typer.Option("--follow", help="Stay until the run has ended, and show how far it is.")
    ] = False,
) -> None:
    """Annotate a project of Label Studio, or files, as a run that survives whatever happens to the machine.

    While `heatbox up` or `heatbox serve` works on the same ledger, it does the work and this command ends at once;
    otherwise this command does it. What was done is never done again: stop and start as you like.
    """
    _check_usage(
        ctx,
        asked={"PATHs": paths, "--project": project},
        for_project={"--filter": filters, "--replace": replace or None},
        for_paths={
            "--out": out_file,
            "--label": label,
            "--label-config": label_config,
            "--data-key": data_key,
            "--document-root": document_root,
        },
    )
    from heatbox.runs.files import FilesRequest
    from heatbox.runs.start import ProjectRequest
    from heatbox.serving import with_choices
    from heatbox.settings import read_settings
    from heatbox.studio.task_filter import parse_filter

    settings = read_settings(os.environ)
    choices = {
        "model": model,
        "explainer": explainer,
        "explainer_options": tuple(explainer_option or ()) or None,
        "fitter": fitter,
        "fitter_options": tuple(fitter_option or ()) or None,
        "threshold": threshold,
        "min_probability": min_probability,
        "max_labels": max_labels,
        "normalisation": normalisation,
        "min_mask_iou": min_mask_iou,
        "min_crop_probability": min_crop_probability,
    }
    given = {name: value for name, value in choices.items() if value is not None}
    settings = with_choices(settings, **given, local_roots=(*settings.local_roots, *(root or ())))
    elsewhere = _is_conducted(settings)
    if project is not None:
        request = ProjectRequest(project, parse_filter(filters or []), limit, replace, frozenset(given))
        prepared = _prepare_project(settings, request, dry_run=dry_run)
    else:
        prepared = _prepare_files(
            settings,
            FilesRequest(
                tuple(paths or ()),
                out_file or _DEFAULT_OUT,
                labels=tuple(dict.fromkeys(label or ())),
                label_config=label_config,
                data_key=data_key,
                document_root=document_root or Path("/"),
                most=limit,
                roots=settings.local_roots if elsewhere or settings.redis_url else None,
                given=frozenset(given),
            ),
        )
    _print_prepared(prepared)
    if dry_run:
        out().print("Nothing was written (--dry-run).")
    elif not prepared.taken:
        out().print("There is nothing to do.")
    else:
        if project is not None and replace:
            keep_predicted(settings, project)
        _start(settings, prepared, elsewhere=elsewhere, follow=follow)


def _check_usage(
    ctx: typer.Context,
    asked: "Mapping[str, Any]",
    for_project: "Mapping[str, Any]",
    for_paths: "Mapping[str, Any]",
) -> None:
    """Refuse what was asked for twice, not at all, or does not belong to what was asked for."""
    given = [name for name, value in asked.items() if value]
    if len(given) != 1:
        raise typer.BadParameter("Give one of PATHs and --project NUMBER.", ctx)
    for owner, options in (("PATHs", for_paths), ("--project", for_project)):
        for name, value in options.items():
            if value and given != [owner]:
                raise typer.BadParameter(f"{name} goes with {owner} only.", ctx)


def _prepare_project(settings: "Settings", request: "ProjectRequest", *, dry_run: bool) -> "Prepared":
    from heatbox.runs.conducting import open_studio
    from heatbox.runs.start import prepare_project_run

    with err().status("Asking Label Studio ..."), open_studio(settings) as studio:
        return prepare_project_run(settings, studio, request, count_known=dry_run)


def _prepare_files(settings: "Settings", request: "FilesRequest") -> "Prepared":
    from heatbox.runs.files import prepare_files_run

    with err().status("Looking for pictures ..."):
        return prepare_files_run(settings, request)


def _print_prepared(prepared: "Prepared") -> None:
    from rich.markup import escape
    from rich.table import Table

    pipeline = prepared.new.pipeline
    table = Table.grid(padding=(0, 2))
    table.add_row("run over", escape(prepared.new.title))
    table.add_row("version", pipeline.version)
    table.add_row("model", pipeline.model)
    table.add_row("explainer", f"{pipeline.explainer}, {pipeline.fitter}")
    table.add_row("labels", escape(_labels(prepared)))
    table.add_row("tasks" if prepared.new.project is not None else "pictures", _counts(prepared))
    out().print(table)
    for warning in prepared.warnings:
        err().print(f"[yellow]warning[/]: {escape(warning)}", highlight=False, soft_wrap=True)


def _labels(prepared: "Prepared") -> str:
    if not prepared.new.pipeline.label_map:
        return f"every class of the model ({len(prepared.config.label_names)})"
    rows = list(prepared.classes_by_label.items())
    texts = [f"{label}: {_few(names)}" for label, names in rows[:_SHOWN]]
    return "\n".join([*texts, f"and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else texts)


def _few(names: tuple[str, ...]) -> str:
    if not names:
        return "no class, so no box"
    more = f" and {len(names) - _CLASSES} more" if len(names) > _CLASSES else ""
    return ", ".join(names[:_CLASSES]) + more


def _counts(prepared: "Prepared") -> str:
    parts = [str(prepared.total)]
    if prepared.taken != prepared.total:
        parts.append(f"{prepared.taken} are taken")
    if prepared.known:
        parts.append(f"{prepared.known} have a prediction of this version and are left as they are")
    if prepared.wrong:
        parts.append(f"{prepared.wrong} cannot be tried")
    return ", ".join(parts)


def _start(settings: "Settings", prepared: "Prepared", *, elsewhere: bool, follow: bool) -> None:
    from heatbox.cli.foreground import conduct, opened

    with opened(settings) as (ledger, runs):
        number = prepared.create(runs)
        out().print(f"Run {number} is in the ledger. Look at it: heatbox runs {number}", highlight=False)
        if follow or not elsewhere:
            conduct(settings, ledger, runs, number, elsewhere=elsewhere)


def _is_conducted(settings: "Settings") -> bool:
    from heatbox.runs.conducting import is_conducted

    return is_conducted(settings)
