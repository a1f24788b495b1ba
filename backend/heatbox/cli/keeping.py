"""Before predictions are replaced: what people were shown goes into the ledger; nobody can be asked for it later."""

from contextlib import closing
from typing import TYPE_CHECKING

from heatbox.cli.console import err

if TYPE_CHECKING:
    from heatbox.settings import Settings

__all__ = ["keep_predicted"]


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
