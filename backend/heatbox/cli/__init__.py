"""The command line: parse, call one library function, print.

Commands that need torch live with the workers and are found by the entry-point group `heatbox.commands`; a name with
a dot (`models.add`) joins the group before the dot. Nothing heavy is imported until a command runs; rich is, by
this measure, heavy, so help and usage errors are plain text.
"""

import importlib.metadata
import sys
from typing import Annotated

import typer

from heatbox.cli import (
    corrections,
    doctor,
    explainers,
    export,
    labels,
    models,
    plugins,
    profiles,
    run,
    runs,
    serving,
    studio,
    train,
    trainings,
)
from heatbox.cli.console import FAILED, Sections, print_error
from heatbox.errors import HeatboxError, ModelError

__all__ = ["app", "main"]

_SECTIONS = {
    "annotate": "Annotate",
    "calibrate": "Annotate",
    "demo": "Annotate",
    "evaluate": "Annotate",
    "fit": "Annotate",
    "map": "Learn",
    "next": "Learn",
    "tune": "Learn",
    "work": "Serve",
}
_TORCH_EXTRA = {"safetensors", "sklearn", "torch", "torchvision"}


app = typer.Typer(
    name="heatbox",
    cls=Sections,
    help="Get boxes without drawing them: a classifier says what is there, its explanation says where.",
    epilog="Start with `heatbox demo`, or `heatbox annotate PICTURES --model mobilenet_v2 --html boxes.html`.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - the form that typer calls
    if value:
        typer.echo(f"heatbox {importlib.metadata.version('heatbox')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Take the options that come before a command."""


def _mount_commands() -> None:
    app.command("explainers", rich_help_panel="Look")(explainers.explainers)
    app.command("labels", rich_help_panel="Look")(labels.labels)
    app.command("doctor", rich_help_panel="Look")(doctor.doctor)
    app.command("run", rich_help_panel="Runs")(run.run)
    for name in ("runs", "pause", "resume", "cancel", "retry"):
        app.command(name, rich_help_panel="Runs")(getattr(runs, name))
    app.command("export", rich_help_panel="Learn")(export.export)
    app.command("train", rich_help_panel="Learn")(train.train)
    app.command("trainings", rich_help_panel="Learn")(trainings.trainings)
    app.command("serve", rich_help_panel="Serve")(serving.serve)
    app.command("up", rich_help_panel="Serve")(serving.up)
    app.add_typer(studio.app, name="studio", rich_help_panel="Serve")
    app.add_typer(models.app, name="models", rich_help_panel="Look")
    app.add_typer(corrections.app, name="corrections", rich_help_panel="Learn")
    app.add_typer(profiles.app, name="profiles", rich_help_panel="Learn")
    app.add_typer(plugins.app, name="plugins", rich_help_panel="Extend")
    groups = {"": app, "models": models.app, "plugins": plugins.app}
    entries = importlib.metadata.entry_points(group="heatbox.commands")
    for entry in sorted(entries, key=lambda entry: entry.name):
        group, _, name = entry.name.rpartition(".")
        try:
            groups[group].command(name, rich_help_panel=_SECTIONS.get(entry.name))(entry.load())
        except Exception as error:  # noqa: BLE001 - an edge: one broken command must not cost the others
            typer.echo(f"warning: the command {entry.name!r} cannot be loaded: {error!r}", err=True)


def main() -> None:
    """Run the command line; a `HeatboxError` becomes its sentence, its remedy and exit code 3."""
    _mount_commands()
    try:
        app(prog_name="heatbox")
    except HeatboxError as error:
        print_error(error)
        sys.exit(FAILED)
    except ModuleNotFoundError as error:
        if error.name not in _TORCH_EXTRA:
            raise
        sentence = f"This command works with classifiers, and {error.name} is not installed."
        print_error(ModelError(sentence, "Install it: pip install 'heatbox[torch]'."))
        sys.exit(FAILED)
