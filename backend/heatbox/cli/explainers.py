"""`heatbox explainers`: what is registered, with its options, or why it cannot be used."""

from typing import Annotated

import typer

from heatbox.cli.console import out

__all__ = ["explainers"]


def explainers(
    *, json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False
) -> None:
    """List explainers and box fitters with their options and defaults; broken ones with their error."""
    from dataclasses import asdict

    from heatbox.plugins import BOX_FITTERS, EXPLAINERS, describe_plugins

    found = {group: describe_plugins(group) for group in (EXPLAINERS, BOX_FITTERS)}
    if json:
        out().print_json(
            data={group: [asdict(plugin) for plugin in plugins] for group, plugins in found.items()},
            default=str,  # the default of a foreign option may be anything
        )
        return
    from rich.markup import escape
    from rich.table import Table

    for group, plugins in found.items():
        table = Table(title=group, title_justify="left", title_style="bold")
        for column in ("name", "distribution", "version", "options (defaults)", "state"):
            table.add_column(column, overflow="fold")
        for plugin in plugins:
            options = "\n".join(
                f"{option.name}: {option.type} = {option.default!r}" for option in plugin.options
            )
            ready = "[green]ok[/], after heatbox fit" if plugin.learns else "[green]ok[/]"
            state = ready if plugin.error is None else f"[red]{escape(plugin.error)}[/]"
            table.add_row(plugin.name, plugin.distribution, plugin.version, escape(options), state)
        out().print(table)
