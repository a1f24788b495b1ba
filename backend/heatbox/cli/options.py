"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ProjectNumber", "Roots"]

ProjectNumber = Annotated[
    int,
    typer.Option(
        "--project", "-p", min=1, metavar="NUMBER", help="Project in Label Studio (LABEL_STUDIO_URL)."
    ),
]
Roots = Annotated[
    list[Path] | None,
    typer.Option(
        "--root",
        metavar="DIR",
        exists=True,
        file_okay=False,
        resolve_path=True,
        help="Folder whose pictures tasks may name, besides HEATBOX_LOCAL_ROOTS; may be repeated.",
    ),
]
