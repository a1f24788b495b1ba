"""`heatbox plugins new|test`: start an explainer of your own, and ask the conformance kit about one."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, err, out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heatbox_workers.conformance import Finding

__all__ = ["new", "test"]


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What people will type, such as edge_cam or my_method.")
    ],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write; default: heatbox-NAME, here.")
    ] = None,
) -> None:
    """Write the package of a new explainer: it works, its test runs the conformance kit, and it is yours to change."""
    from rich.markup import escape

    from heatbox_workers.plugin_package import plugin_package, write_package

    package = plugin_package(name)
    place = folder or Path(package.distribution)
    for path in write_package(package, place):
        out().print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    quoted = escape(shlex.quote(str(place)))
    for step in (
        "",
        "Next:",
        f"  python -m pip install -e {quoted}",
        f"  heatbox plugins test {name}",
        f"  python -m pytest {quoted}",
        f"Then change {escape(str(place / package.module))}.py.",
    ):
        out().print(step, highlight=False, soft_wrap=True)


def test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An explainer; see `heatbox explainers`.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of the explainer (repeatable)."),
    ] = None,  # noqa: PT028 - a command, not a test
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,  # noqa: PT028 - as above
) -> None:
    """Ask the conformance kit whether an explainer keeps the plugin contract; exit code 1 where it does not."""
    from dataclasses import asdict

    from heatbox.plugins import make_explainer, parse_options
    from heatbox.settings import read_settings
    from heatbox_workers.process import prepare_process

    prepare_process(read_settings(os.environ).threads, 1)
    with err().status(f"Asking {name} ..."):
        explainer = make_explainer(name, parse_options(option or []))
        from heatbox_workers.conformance import check_explainer

        findings = check_explainer(explainer)
    if json:
        out().print_json(data=[asdict(finding) for finding in findings])
    else:
        _print_findings(repr(explainer), findings)
    if not all(finding.passed for finding in findings):
        raise typer.Exit(PARTLY)


def _print_findings(title: str, findings: "Sequence[Finding]") -> None:
    from rich.markup import escape
    from rich.table import Table

    from heatbox_workers.conformance import RULES

    found = {finding.rule: finding for finding in findings}
    table = Table(
        "", "rule", "what the contract says, and what came", title=escape(title), title_justify="left"
    )
    for rule in RULES:
        if rule.id not in found:
            missing = [need for need in rule.needs if need not in found or not found[need].passed]
            table.add_row("[yellow]not asked[/]", rule.id, f"needs {' and '.join(missing)}")
            continue
        finding = found[rule.id]
        mark = "[green]kept[/]" if finding.passed else "[red]broken[/]"
        remedy = f"\nHow to mend it: {finding.remedy}" if finding.remedy else ""
        table.add_row(mark, rule.id, escape(finding.message + remedy))
    out().print(table)
    kept = sum(finding.passed for finding in findings)
    out().print(f"{kept} of {len(RULES)} rules are kept.", highlight=False)
