"""`heatbox plugins`: for the authors of explainers. Its commands need torch and live with the workers."""

import typer

from heatbox.cli.console import Sections

__all__ = ["app"]

app = typer.Typer(
    cls=Sections,
    help="Write an explainer of your own, and test one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Write an explainer of your own, and test one."""
