"""The parts of `heatbox studio up`: what is kept from one start to the next, and the two processes.

FOLDER/session.json     login, token, ports and the project's number, for the owner alone
FOLDER/label-studio/    Label Studio's data folder and its log
FOLDER/heatbox/         heatbox's home, apart from the usual one: its runs belong to this Label Studio
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr

from heatbox.errors import ServiceError
from heatbox.processes import spawn
from heatbox.settings import Settings, as_environment
from heatbox.studio.switches import switches

__all__ = [
    "HOST",
    "Part",
    "Session",
    "at_home",
    "data_folder",
    "new_session",
    "start_heatbox",
    "start_label_studio",
]

HOST = "127.0.0.1"
_QUIET = {
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}
_INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR")
_NOT_INHERITED = ("HEATBOX_", "LABEL_STUDIO_", "REDIS_URL", "BASIC_AUTH_")


@dataclass(frozen=True)
class Session:
    """What is kept from one start to the next."""

    username: str
    password: str
    token: str
    studio_port: int
    heatbox_port: int
    project: int | None = None

    @property
    def url(self) -> str:
        """Of Label Studio."""
        return f"http://{HOST}:{self.studio_port}"

    @property
    def heatbox_url(self) -> str:
        """Of heatbox."""
        return f"http://{HOST}:{self.heatbox_port}"

    @classmethod
    def read(cls, folder: Path) -> "Session | None":
        """Return what was written last, None where there was nothing.

        Raises:
            ServiceError: it is damaged, or Label Studio's data are there without it.
        """
        remedy = f"Delete {folder}, or name another --folder."
        try:
            return cls(**json.loads((folder / "session.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            if not data_folder(folder).exists():
                return None
            raise ServiceError(f"The login of the Label Studio in {folder} is lost.", remedy) from None
        except (ValueError, TypeError) as error:
            raise ServiceError(f"{folder / 'session.json'} is damaged.", remedy) from error

    def write(self, folder: Path) -> None:
        """Write it down, readable by its owner only."""
        new = folder / "session.json.new"
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump(asdict(self), file, indent=1)
        new.replace(folder / "session.json")


def new_session() -> Session:
    """Return a session with a password and a token that nobody knows yet."""
    return Session("demo@heatbox.example", secrets.token_urlsafe(12), secrets.token_hex(20), 8080, 9090)


def free_port(wanted: int) -> int:
    """Return the port if it is free, else another one."""
    for port in (wanted, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise ServiceError(f"No port of {HOST} is free.", "Stop some programs.")


@dataclass(frozen=True)
class Part:
    """A process and where it writes what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Raise where it has ended.

        Raises:
            ServiceError: with its last words.
        """
        code = self.process.poll()
        if code is not None:
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise ServiceError(
                f"{self.name} ended with code {code}: {' / '.join(line.strip() for line in last)}",
                f"All that it said is in {self.log}.",
            )


def data_folder(folder: Path) -> Path:
    """Return Label Studio's data folder."""
    return folder / "label-studio" / "data"


def start_label_studio(
    program: Path, folder: Path, served: Path, session: Session, environment: Mapping[str, str]
) -> Part:
    """Start Label Studio on the session's port, with its user; it serves files below one folder.

    It inherits next to nothing, calls no private address but ours, and lets nobody sign up.
    """
    data, empty = data_folder(folder), program.parent.parent / "empty"
    if not data.exists() and empty.is_dir():  # a migrated database, made by `make studio-env`
        shutil.copytree(empty, data)
    data.mkdir(parents=True, exist_ok=True)
    variables = {
        **{name: environment[name] for name in _INHERITED if name in environment},
        **_QUIET,
        **switches(HOST),
        "HOME": str(data.parent),
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": session.username,
        "LABEL_STUDIO_PASSWORD": session.password,
        "LABEL_STUDIO_USER_TOKEN": session.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(served),
    }
    options = ["--no-browser", "--internal-host", HOST, "--port", str(session.studio_port)]
    return _start("Label Studio", [str(program), "start", *options], variables, data.parent / "log.txt")


def at_home(settings: Settings, folder: Path) -> Settings:
    """Return the settings with the home, and so the ledger, that heatbox has here; the models are the usual ones."""
    changes = {
        "home": folder / "heatbox",
        "store": settings.store or settings.store_path,
        "database_url": "",
        "redis_url": "",
    }
    return settings.model_copy(update=changes)


def start_heatbox(settings: Settings, folder: Path, session: Session, environment: Mapping[str, str]) -> Part:
    """Start `heatbox up` with a home of its own, on the session's port, told where Label Studio is."""
    own = at_home(settings, folder)
    own.home.mkdir(exist_ok=True)
    changes = {
        "public_url": "",
        "host": HOST,
        "port": session.heatbox_port,
        "studio_url": session.url,
        "studio_api_key": SecretStr(session.token),
    }
    kept = {name: value for name, value in environment.items() if not name.startswith(_NOT_INHERITED)}
    variables = {**kept, **as_environment(own.model_copy(update=changes))}
    return _start("heatbox", [sys.executable, "-P", "-m", "heatbox", "up"], variables, own.home / "log.txt")


def _start(name: str, command: list[str], environment: Mapping[str, str], log: Path) -> Part:
    with log.open("wb") as output:
        return Part(name, spawn(command, environment, output=output), log)
