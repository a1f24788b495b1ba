"""`heatbox calibrate`: people's corrections in, scores that say how often such a box is kept out."""

import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import err, out
from heatbox.cli.options import ProjectNumber

if TYPE_CHECKING:
    from heatbox.calibration import Judgement
    from heatbox.ledger import Ledger
    from heatbox.pipeline import Pipeline
    from heatbox.settings import Settings
    from heatbox.studio.client import Studio
    from heatbox_workers.calibrate import Calibration

__all__ = ["calibrate"]


def calibrate(
    project: ProjectNumber,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print, and store nothing.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Go back to raw scores.")] = False,
) -> None:
    """Let scores say how often people keep such a box, by what they made of a project's predictions.

    Nothing in Label Studio is changed. Calibrated scores are another version, so predictions are asked for again.
    """
    if dry_run and forget:
        raise typer.BadParameter("Give one of --dry-run and --forget.")
    from heatbox.ledger import Ledger
    from heatbox.runs.conducting import open_studio
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    with closing(Ledger(settings.ledger_url)) as ledger, open_studio(settings) as studio:
        pipeline = _pipeline(settings, ledger, studio, project)
        if forget:
            _forget(ledger, project, pipeline)
            return
        found = _learnt(ledger, studio, project, pipeline)
        if not dry_run:
            _store(ledger, project, pipeline, found)


def _pipeline(settings: "Settings", ledger: "Ledger", studio: "Studio", project: int) -> "Pipeline":
    """Return what the service annotates the project with.

    Raises:
        CalibrationError: it has no rectangles.
    """
    from heatbox.errors import CalibrationError
    from heatbox.labelling.config import parse_label_config
    from heatbox.remote_store import open_store
    from heatbox.serving import serve_project

    config = parse_label_config(studio.project(project).label_config)
    if "rectanglelabels" not in config.kinds:
        raise CalibrationError(
            f"Project {project} has no rectangles, by which scores are calibrated.",
            "Add <RectangleLabels> to its label config.",
        )
    return serve_project(settings, open_store(settings), ledger, config, project=project).pipeline


def _learnt(ledger: "Ledger", studio: "Studio", project: int, pipeline: "Pipeline") -> "Calibration":
    from heatbox.calibration import judge, known_versions
    from heatbox.studio.corrections import answered_tasks
    from heatbox_workers import calibrate as fitting

    with err().status("Reading what people made of the predictions ..."):
        judgement = judge(answered_tasks(studio, project), known_versions(ledger, project, pipeline))
    _print_skipped(judgement)
    found = fitting.calibrate(judgement.boxes)
    _print(found, project)
    return found


def _store(ledger: "Ledger", project: int, pipeline: "Pipeline", found: "Calibration") -> None:
    from heatbox.calibration import calibrated, store_calibration

    new = store_calibration(ledger, project, pipeline, found.pairs, found.boxes)
    version = calibrated(ledger, project, pipeline).version
    if not new:
        out().print(f"Nothing new: the version stays {version}.", highlight=False, soft_wrap=True)
        return
    out().print(f"Scores are calibrated. The version is {version}.", highlight=False, soft_wrap=True)
    _print_connect(project)


def _forget(ledger: "Ledger", project: int, pipeline: "Pipeline") -> None:
    from heatbox.calibration import forget_calibration, uncalibrated

    version = uncalibrated(pipeline).version
    new = forget_calibration(ledger, project, pipeline)
    told = "Scores are raw again" if new else "Nothing to forget: scores are raw"
    out().print(f"{told}. The version is {version}.", highlight=False, soft_wrap=True)
    if new:
        _print_connect(project)


def _print_connect(project: int) -> None:
    out().print(
        f"Tell Label Studio: heatbox studio connect --project {project}", highlight=False, soft_wrap=True
    )


def _print_skipped(judgement: "Judgement") -> None:
    if judgement.skipped:
        told = f"{judgement.skipped} predictions of other versions do not count: their scores mean something else."
        err().print(f"[yellow]skipped[/]: {told}", highlight=False, soft_wrap=True)


def _print(found: "Calibration", project: int) -> None:
    from rich.table import Table

    title = f"Project {project}: people kept {found.kept} of {found.boxes} boxes in {found.tasks} tasks"
    table = Table(
        "raw score", "boxes", "kept", "mean raw score", "calibrated", title=title, title_justify="left"
    )
    for one in found.bins:
        row = (f"{one.kept:.2f}", f"{one.raw:.2f}", f"{one.calibrated:.2f}")
        table.add_row(f"{one.low:.1f} to {one.high:.1f}", str(one.boxes), *row)
    out().print(table)
    errors = f"{found.error_before:.3f} before, {found.error_after:.3f} after, on tasks that were held out"
    out().print(f"Expected calibration error: {errors}.", highlight=False)
    if found.error_after > found.error_before:
        told = "calibrated scores are no better than raw ones here; more corrections may change that."
        err().print(f"[yellow]warning[/]: {told}", highlight=False, soft_wrap=True)
