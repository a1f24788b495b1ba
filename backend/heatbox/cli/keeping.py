"""Corrections for commands: read before they are used, and kept before predictions are replaced."""

from contextlib import closing
from typing import TYPE_CHECKING

from heatbox.cli.console import err, print_problems

if TYPE_CHECKING:
    from heatbox.corrections.corrected import Corrected
    from heatbox.labelling.tags import LabelConfig
    from heatbox.ledger import Ledger
    from heatbox.settings import Settings

__all__ = ["keep_predicted", "read_corrections"]


def read_corrections(
    settings: "Settings", ledger: "Ledger", project: int, *, new: bool
) -> "tuple[list[Corrected], LabelConfig]":
    """Return the corrected pictures of a project and its label config, and tell what was not understood.

    Args:
        settings: name Label Studio.
        ledger: keeps the corrections.
        project: number in Label Studio.
        new: whether Label Studio is asked for what has come since the last time.
    """
    from heatbox.corrections import pulling
    from heatbox.corrections.records import Corrections
    from heatbox.labelling.config import parse_label_config
    from heatbox.runs.conducting import open_studio

    corrections = Corrections(ledger)
    with open_studio(settings) as studio:
        config = parse_label_config(studio.project(project).label_config)
        if new:
            with err().status("Reading what people made of the predictions ..."):
                pulling.pull(studio, corrections, project)
    print_problems(corrections.problems(corrections.place(settings.studio_url, project)))
    return corrections.pictures(settings.studio_url, project), config


def keep_predicted(settings: "Settings", project: int) -> None:
    """Pull a project's corrections; where that fails it is told, and no more: the run is not lost."""
    from rich.markup import escape

    from heatbox.corrections.pulling import pull
    from heatbox.corrections.records import Corrections
    from heatbox.errors import HeatboxError
    from heatbox.ledger import Ledger
    from heatbox.runs.conducting import open_studio

    try:
        with (
            err().status("Keeping what people made of the predictions ..."),
            closing(Ledger(settings.ledger_url)) as ledger,
            open_studio(settings, patient=False) as studio,
        ):
            pulled = pull(studio, Corrections(ledger), project, whole=False)
    except HeatboxError as error:
        told = (
            f"corrections were not pulled: {error.sentence} Of tasks that are annotated by now it may not be known "
            "later what people were shown."
        )
        err().print(f"[yellow]warning[/]: {escape(told)}", highlight=False, soft_wrap=True)
        return
    if pulled.new or pulled.changed:
        told = f"Corrections were pulled first: {pulled.new} new, {pulled.changed} changed."
        err().print(told, highlight=False, soft_wrap=True)
