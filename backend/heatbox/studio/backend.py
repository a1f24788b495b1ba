"""heatbox as Label Studio reaches it, and what it says about a project when it is asked as Label Studio would ask."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from heatbox.errors import ServiceError, SettingsError
from heatbox.studio.client import Project
from heatbox.studio.http import make_ssl_context

__all__ = ["Backend", "Setup", "ask", "backend_url"]

_SECONDS = httpx.Timeout(30.0, connect=5.0)
_OK, _UNAUTHORIZED = 200, 401


@dataclass(frozen=True)
class Backend:
    """heatbox as Label Studio reaches it: its address, and the user and password that it asks for, if any."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def webhook(self) -> str:
        """The address that Label Studio calls for events."""
        return f"{self.url}/webhook"

    @property
    def headers(self) -> dict[str, str]:
        """What the webhook must send: Label Studio does not send it the backend's user and password."""
        if not self.user:
            return {}
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def row(self, project: int, title: str) -> dict[str, Any]:
        """Return what the backend row is to be; a PATCH without url and project is answered with HTTP 500."""
        auth = {"auth_method": "NONE", "basic_auth_user": ""}
        if self.user:
            password = {"basic_auth_pass": self.password}
            auth = {"auth_method": "BASIC_AUTH", "basic_auth_user": self.user, **password}
        return {"url": self.url, "project": project, "title": title, "is_interactive": True, **auth}


@dataclass(frozen=True)
class Setup:
    """What heatbox says about a project: the version of its predictions, and warnings; asked at `url`."""

    url: str
    version: str
    warnings: tuple[str, ...] = ()


def ask(urls: Sequence[str], backend: Backend, project: Project, ca_file: Path | None = None) -> Setup:
    """Ask heatbox what it would annotate the project with, at the first of the addresses that answers.

    Args:
        urls: at which heatbox may be reached from here.
        backend: whose user and password are used.
        project: whose label config is sent, as Label Studio would.
        ca_file: further CA certificates (PEM) to trust.

    Raises:
        ServiceError: nothing answers, or what answers is not heatbox, or it refuses the project.
    """
    auth = (backend.user, backend.password) if backend.user else None
    silent, context = [], make_ssl_context(ca_file)
    with httpx.Client(timeout=_SECONDS, trust_env=False, auth=auth, verify=context) as client:
        for url in urls:
            try:
                health = client.get(f"{url}/health")
                _require_heatbox(url, health)
                body = {"project": str(project.id), "schema": project.label_config}
                return _setup(url, client.post(f"{url}/setup", json=body), project.id)
            except httpx.TransportError as error:
                silent.append(f"{url} ({str(error).rstrip('.') or type(error).__name__})")
    raise ServiceError(
        f"heatbox does not answer at {' nor at '.join(silent)}.",
        "Start it: heatbox up. Does it run elsewhere? Name the address with --backend.",
    )


def backend_url(url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        SettingsError: it is not an http address, or has a user in it.
    """
    remedy = (
        "Write it as http://HOST:PORT; user and password go into HEATBOX_BASIC_AUTH_USER and ..._PASSWORD."
    )
    try:
        parts = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise SettingsError("The address of heatbox is not one.", remedy) from error
    if (
        parts.scheme not in {"http", "https"}
        or not parts.host
        or parts.userinfo
        or parts.query
        or parts.fragment
    ):
        raise SettingsError("The address of heatbox is no plain http:// or https:// address.", remedy)
    return str(parts).rstrip("/")


def _require_heatbox(url: str, answer: httpx.Response) -> None:
    if answer.status_code == _UNAUTHORIZED:
        raise ServiceError(
            f"heatbox at {url} asks for a user and a password.",
            "Set HEATBOX_BASIC_AUTH_USER and HEATBOX_BASIC_AUTH_PASSWORD as they are set for heatbox.",
        )
    try:
        said = answer.json()
    except ValueError:
        said = None
    if answer.status_code != _OK or not isinstance(said, dict) or said.get("model_class") != "heatbox":
        raise ServiceError(
            f"What answers at {url}/health is not heatbox (HTTP {answer.status_code}).",
            "Name heatbox's address with --backend; `heatbox up` prints it.",
        )


def _setup(url: str, answer: httpx.Response, project: int) -> Setup:
    match answer.json() if answer.headers.get("content-type", "").startswith("application/json") else None:
        case {"model_version": str(version), "warnings": list(warnings)} if answer.status_code == _OK:
            return Setup(url, version, tuple(map(str, warnings)))
        case {"code": str(), "message": str(message), "remedy": str(remedy)}:
            if answer.status_code == _UNAUTHORIZED:
                _require_heatbox(url, answer)
            raise ServiceError(f"heatbox cannot annotate project {project}: {message}", remedy)
    raise ServiceError(
        f"heatbox at {url} gave no good answer to /setup (HTTP {answer.status_code}).", "Read its log."
    )
