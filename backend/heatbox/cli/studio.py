"""`heatbox studio`: connect a project of Label Studio, take it off again, or have a Label Studio of one's own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import PARTLY, Sections, err, out

if TYPE_CHECKING:
    from heatbox.local_parts import Session
    from heatbox.settings import Settings
    from heatbox.studio.backend import Backend, Setup
    from heatbox.studio.client import Project
    from heatbox.studio.connection import Connection

__all__ = ["app"]

_INTERRUPTED = 130

app = typer.Typer(
    cls=Sections,
    help="Connect heatbox to Label Studio, or start both together.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProjectNumber = Annotated[
    int, typer.Option("--project", "-p", min=1, metavar="NUMBER", help="Project in Label Studio.")
]
Url = Annotated[str | None, typer.Option("--url", help="Label Studio's address; default: LABEL_STUDIO_URL.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="TOKEN",
        help="A personal access token; default: LABEL_STUDIO_API_KEY, which is better: other users of this machine"
        " see the options of commands.",
    ),
]
BackendUrl = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="URL",
        help="heatbox's address as Label Studio reaches it; default: http://HOST:PORT of the settings.",
    ),
]


@app.command()
def connect(project: ProjectNumber, url: Url = None, api_key: Key = None, backend: BackendUrl = None) -> None:
    """Connect a project: backend, model version and webhook are made, or repaired where they are wrong.

    heatbox must run. A second time changes nothing. The exit code is 1 where something keeps the connection from
    working wholly; what it is and what to do is printed.
    """
    from heatbox.runs.conducting import open_studio
    from heatbox.studio.backend import ask
    from heatbox.studio.connection import connect as connected

    settings = _settings(url, api_key)
    reached = _backend(settings, backend)
    with open_studio(settings) as studio:
        found = studio.project(project)
        setup = ask(_addresses(settings, reached.url), reached, found, settings.ca_file)
        connection = connected(studio, found, reached, setup.version)
    _print_connection(found, setup, connection)
    if connection.problems:
        raise typer.Exit(PARTLY)


@app.command()
def disconnect(
    project: ProjectNumber, url: Url = None, api_key: Key = None, backend: BackendUrl = None
) -> None:
    """Remove heatbox from a project, with the webhook that Label Studio would leave; predictions stay."""
    from heatbox.runs.conducting import open_studio
    from heatbox.studio.connection import disconnect as disconnected

    settings = _settings(url, api_key)
    address = _backend(settings, backend).url
    with open_studio(settings) as studio:
        found = studio.project(project)
        changes = disconnected(studio, project, address)
    for change in changes or (f"Project {found.title!r} has no backend {address}: nothing was changed.",):
        out().print(change, markup=False, highlight=False, soft_wrap=True)


@app.command()
def switches(
    address: Annotated[
        str, typer.Argument(help="heatbox's IP address for Label Studio, or a network.")
    ] = "127.0.0.1",
) -> None:
    """Print the variables with which Label Studio calls one private address, and no other.

    For the shell that starts it: eval "$(heatbox studio switches 127.0.0.1)".
    """
    from heatbox.studio.switches import switches as variables

    for name, value in variables(address).items():
        typer.echo(f"export {name}={value}")


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Label Studio's port; default: as last time, 8080, or a free one."
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where login, Label Studio's data and heatbox's are kept.")
    ] = Path(".studio"),
    demo: Annotated[
        Path, typer.Option(metavar="DIR", help="What `heatbox demo` wrote; it is run where that is missing.")
    ] = Path("demo-out"),
    program: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The program label-studio; default: .venv-studio/bin/label-studio, or as in PATH.",
        ),
    ] = None,
) -> None:
    """Start a Label Studio of your own with heatbox connected, and a project with the demo's pictures and boxes.

    Prints address and login. Both listen on 127.0.0.1. Ctrl-C stops everything; the next start finds the same
    project. `make studio` installs Label Studio first.
    """
    from heatbox.local_studio import LocalStudio
    from heatbox.settings import read_settings

    ready = False

    def on_ready(session: "Session") -> None:
        nonlocal ready
        ready = True
        _print_session(session)

    def say(text: str) -> None:
        err().print(text, markup=False, highlight=False, soft_wrap=True)

    settings, found = read_settings(os.environ), _label_studio(program)
    local = LocalStudio(settings, os.environ, found, folder.resolve(), demo.resolve(), port, say)
    try:
        local.run(on_ready)
    except KeyboardInterrupt:
        say("Everything is stopped.")
        raise typer.Exit(0 if ready else _INTERRUPTED) from None


def _label_studio(given: Path | None) -> Path:
    import shutil

    from heatbox.errors import ServiceError

    own, installed = Path(".venv-studio/bin/label-studio"), shutil.which("label-studio")
    program = given or (own if own.exists() else Path(installed or ""))
    if not program.is_file():
        raise ServiceError(
            f"{given} is not there." if given else "No Label Studio is installed here.",
            "Install it in an environment of its own (`make studio-env`), and name its program with --program.",
        )
    return program.absolute()


def _settings(url: str | None, api_key: str | None) -> "Settings":
    from pydantic import SecretStr

    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    given = {"studio_url": url, "studio_api_key": SecretStr(api_key) if api_key else None}
    return settings.model_copy(update={name: value for name, value in given.items() if value})


def _backend(settings: "Settings", url: str | None) -> "Backend":
    from heatbox.studio.backend import Backend, backend_url

    password = settings.basic_auth_password.get_secret_value()
    return Backend(backend_url(url or _own_url(settings)), settings.basic_auth_user, password)


def _addresses(settings: "Settings", url: str) -> list[str]:
    """Return where heatbox may be asked from here: where Label Studio reaches it, then where it listens."""
    return list(dict.fromkeys([url, *([_own_url(settings)] if settings.port else [])]))


def _own_url(settings: "Settings") -> str:
    from heatbox.settings import own_url

    return own_url(settings.host, settings.port)


def _print_connection(project: "Project", setup: "Setup", connection: "Connection") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("project", f"{project.id}, {escape(project.title)}")
    table.add_row("backend", f"{connection.row}, {connection.state}")
    table.add_row("version", f"[bold]{escape(connection.title)}[/]")
    table.add_row("webhook", escape(connection.webhook) or "[yellow]none[/]")
    table.add_row("warnings", escape("\n".join(setup.warnings)) or "none")
    table.add_row("done", escape("\n".join(connection.changes)) or "Nothing: it was connected already.")
    out().print(table, highlight=False)
    for problem in connection.problems:
        err().print(f"[yellow]warning[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if not connection.problems:
        out().print("Next: open the Data Manager, select tasks, and choose Actions, Retrieve Predictions.")


def _print_session(session: "Session") -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("Label Studio", f"[bold]{session.url}[/]")
    table.add_row("project", f"[bold]{session.url}/projects/{session.project}/data[/]")
    table.add_row("user", session.username)
    table.add_row("password", session.password)
    table.add_row("heatbox", session.heatbox_url)
    out().print(table, highlight=False)
    out().print("Ctrl-C stops everything.")
