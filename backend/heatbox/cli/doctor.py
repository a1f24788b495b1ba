"""`heatbox doctor`: is everything that heatbox stands on there and in order?"""

import os
from typing import Annotated

import typer

from heatbox.cli.console import PARTLY, out

__all__ = ["doctor"]


def doctor(
    *, json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False
) -> None:
    """Check versions, device, threads, Redis, ledger, model store and plugins; exit code 1 where something is wrong."""
    from dataclasses import asdict

    from heatbox.checks import run_checks
    from heatbox.settings import read_settings

    checks = run_checks(read_settings(os.environ))
    if json:
        out().print_json(data=[asdict(check) for check in checks])
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table("", "check", "found", "what to do")
        marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}
        for check in checks:
            table.add_row(marks[check.state], check.name, escape(check.found), escape(check.remedy))
        out().print(table)
    if any(check.state == "error" for check in checks):
        raise typer.Exit(PARTLY)
