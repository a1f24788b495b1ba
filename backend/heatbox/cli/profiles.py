"""`heatbox profiles list|use|drop`: what tuning found, and which project is served with what."""

import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heatbox.cli.console import Sections, out
from heatbox.cli.options import ProjectNumber

if TYPE_CHECKING:
    from heatbox.profiles import Profile

__all__ = ["app"]

app = typer.Typer(
    cls=Sections,
    help="List what tuning found, and choose what a project is served with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_profiles(
    *, json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False
) -> None:
    """List the profiles, what they expect to gain, and which project uses which."""
    from heatbox import profiles
    from heatbox.ledger import Ledger
    from heatbox.settings import read_settings

    with closing(Ledger(read_settings(os.environ).ledger_url)) as ledger:
        known, uses = profiles.list_profiles(ledger), profiles.profile_uses(ledger)
    if json:
        rows = [
            {"studio_url": one.studio_url, "project": one.project, "profile": _as_json(one.profile)}
            for one in uses
        ]
        out().print_json(data={"profiles": [_as_json(one) for one in known], "projects": rows})
        return
    if not known:
        out().print("There is no profile. Make one: heatbox tune --project NUMBER.")
        return
    _print_profiles(known)
    newest = {one.id for one in known}
    for one in uses:
        older = "" if one.profile.id in newest else ", an older one of this name"
        where = f"project {one.project} of {one.studio_url or 'no Label Studio'}"
        out().print(f"{where} uses {one.profile.name}{older}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def use(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile that tuning made.")],
    project: ProjectNumber,
) -> None:
    """Let a project be served with the newest profile of a name, from its next request on."""
    _choose(project, name)


@app.command()
def drop(project: ProjectNumber) -> None:
    """Let a project be served without a profile again; the profile itself stays."""
    _choose(project, None)


def _choose(project: int, name: str | None) -> None:
    from heatbox.ledger import Ledger
    from heatbox.profiles import use_profile
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    with closing(Ledger(settings.ledger_url)) as ledger:
        use_profile(ledger, settings.studio_url, project, name)
    told = "has no profile any more" if name is None else f"is served with {name}"
    out().print(f"Project {project} {told}.", highlight=False, markup=False, soft_wrap=True)
    hint = f"Predictions get another version. Tell Label Studio: heatbox studio connect --project {project}"
    out().print(hint, highlight=False, soft_wrap=True)


def _print_profiles(known: "list[Profile]") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("profile", "made", "for", "labels", "box quality expected")
    for one in known:
        made = "" if one.created_at is None else f"{one.created_at:%Y-%m-%d %H:%M}"
        gain = "{before:.3f} to {after:.3f}".format(**one.expected) if "after" in one.expected else ""
        table.add_row(escape(one.name), made, one.model, escape(", ".join(one.labels)), gain)
    out().print(table)


def _as_json(profile: "Profile") -> dict[str, Any]:
    made = None if profile.created_at is None else profile.created_at.isoformat()
    return {"id": profile.id, "created_at": made, **profile.as_dict()}
