"""`heatbox up` and `heatbox serve`: the service, with or without everything around it."""

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heatbox.cli.console import out
from heatbox.cli.options import Roots

if TYPE_CHECKING:
    from heatbox.settings import Settings

__all__ = ["serve", "up"]

log = logging.getLogger(__name__)

Host = Annotated[str | None, typer.Option(help="Address to listen on; default: HEATBOX_HOST or 127.0.0.1.")]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on, 0: a free one; default: HEATBOX_PORT or 9090."),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="Model, name or name@version; default: the active one.")
]
Explainer = Annotated[
    str | None, typer.Option(metavar="NAME", help="See `heatbox explainers`; default: HEATBOX_EXPLAINER.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; default: HEATBOX_WORKERS or 1.")]


def up(
    host: Host = None,
    port: Port = None,
    root: Roots = None,
    model: Model = None,
    explainer: Explainer = None,
    workers: Workers = None,
) -> None:
    """Start all of heatbox on this machine: a private Redis, workers and the web service.

    Connect Label Studio to the address that it prints. Ctrl-C or SIGTERM takes everything down. With
    HEATBOX_REDIS_URL that Redis is used instead.
    """
    settings = _settings(root, host=host, port=port, model=model, explainer=explainer, workers=workers)
    from heatbox.logs import log_to_stderr
    from heatbox.supervisor import supervise

    log_to_stderr(settings.log_level, "up", settings.log_format)
    supervise(settings, os.environ, lambda address, redis_url: _print_summary(settings, address, redis_url))
    out().print("heatbox is down.")


def serve(
    host: Host = None,
    port: Port = None,
    model: Model = None,
    explainer: Explainer = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="Descriptor of a socket that listens.")] = None,
) -> None:
    """Run the web service alone, against the Redis of HEATBOX_REDIS_URL and workers started elsewhere.

    Which folders tasks may name is decided by the HEATBOX_LOCAL_ROOTS of the workers.
    """
    settings = _settings(None, host=host, port=port, model=model, explainer=explainer)
    from heatbox.logs import log_to_stderr
    from heatbox.service.app import create_app
    from heatbox.service.server import Server
    from heatbox.supervisor import exposure, listen

    log_to_stderr(settings.log_level, "web", settings.log_format)
    if fd is None and (told := exposure(settings)):  # with one, `heatbox up` has said it
        log.warning("%s", told)
    app = create_app(settings)
    listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
    Server(app).run(sockets=[listener])


def _settings(roots: list[Path] | None, **options: Any) -> "Settings":  # noqa: ANN401 - the options' own types
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    given = {name: value for name, value in options.items() if value is not None}
    return settings.model_copy(update={"local_roots": (*settings.local_roots, *(roots or ())), **given})


def _print_summary(settings: "Settings", address: str, redis_url: str) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("heatbox is up", f"[bold]{address}[/]")
    table.add_row("model", _model(settings))
    table.add_row("explainer", f"{settings.explainer}, {settings.fitter}")
    table.add_row("tasks may name", "\n".join(map(str, settings.local_roots)) or "no local files; see --root")
    table.add_row("login", _login(settings))
    table.add_row("workers", str(settings.workers))
    table.add_row("redis", "of HEATBOX_REDIS_URL" if settings.redis_url else redis_url)
    out().print(table)


def _login(settings: "Settings") -> str:
    from rich.markup import escape

    from heatbox.supervisor import exposure

    if settings.basic_auth_user:
        return escape(settings.basic_auth_user)
    told = exposure(settings)
    return f"[yellow]{escape(told)}[/]" if told else "none; only this machine reaches it"


def _model(settings: "Settings") -> str:
    from rich.markup import escape

    from heatbox.errors import ModelError
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.serving import serving_model

    try:
        return serving_model(settings, open_store(settings), Ledger(settings.ledger_url)).id
    except ModelError as error:
        return f"[yellow]{escape(error.sentence)}[/] {escape(error.remedy)}"
