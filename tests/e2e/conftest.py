"""A real Label Studio for the tests marked `studio`: its own process, port, SQLite and user, gone at the end.

`make studio-env` installs it into `.venv-studio`; where that is missing the tests are skipped visibly. The
server runs with the strict switch, so that one wrong region is refused, and may call an ML backend on this
machine.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ENVIRONMENT = Path(__file__).parents[2] / ".venv-studio"
PROGRAM = ENVIRONMENT / "bin" / "label-studio"
EMPTY = ENVIRONMENT / "empty"
"""A data folder with a migrated, empty database, made by `make studio-env`: the start takes 3 s, not 20."""

TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105 - of a server that lives as long as the tests
START_SECONDS = 180.0

SETTINGS = {
    "LABEL_STUDIO_USERNAME": "test@heatbox.example",
    "LABEL_STUDIO_PASSWORD": "heatbox-test",
    "LABEL_STUDIO_USER_TOKEN": TOKEN,
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    # An ML backend on a loopback address is refused without both of these.
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    # The strict switch: predictions are checked against the label config.
    "fflag_feat_utc_210_prediction_validation_15082025": "true",
    # Nothing leaves this machine.
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}


@dataclass(frozen=True)
class StudioServer:
    """A running Label Studio."""

    url: str
    token: str
    log: Path

    @property
    def headers(self) -> Mapping[str, str]:
        """Authorization of the user whom the server started with."""
        return {"Authorization": f"Token {self.token}"}


@pytest.fixture(scope="session")
def studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioServer]:
    """Start a Label Studio for the whole session."""
    if not PROGRAM.exists():
        pytest.skip("no Label Studio: run make studio-env")
    folder = tmp_path_factory.mktemp("studio")
    port = _free_port()
    server = StudioServer(f"http://127.0.0.1:{port}", TOKEN, folder / "log.txt")
    process = _start(folder, port, server.log)
    try:
        _wait(process, server)
        yield server
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def studio(studio_server: StudioServer) -> Iterator[httpx.Client]:
    """Return a client with the server's address and the user's Authorization header."""
    with httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as client:
        yield client


def _start(folder: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    home = folder / "home"
    home.mkdir()
    if EMPTY.exists():
        shutil.copytree(EMPTY, folder / "data")
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    own = {"HOME": str(home), "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data")}
    command = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=home, env={**inherited, **SETTINGS, **own}, stdout=output, stderr=subprocess.STDOUT
        )


def _wait(process: subprocess.Popen[bytes], server: StudioServer) -> None:
    """Wait until the server answers; its end before that is an error."""
    steps = int(START_SECONDS / 0.2)
    for _ in range(steps):
        try:
            if httpx.get(f"{server.url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue
        break
    pytest.fail(f"Label Studio did not start:\n{server.log.read_text(errors='replace')[-3000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
