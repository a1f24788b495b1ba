"""A real Label Studio for the tests marked `studio`: its own process, port, SQLite and user, gone at the end.

The fixtures of background runs are here too: a home of heatbox that knows this Label Studio, and a `heatbox up`.

`make studio-env` installs it into `.venv-studio`; where that is missing the tests are skipped visibly. The
server runs with the strict switch, so that one wrong region is refused, and may call an ML backend on this
machine.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from fixtures_proxy import StudioProxy, studio_proxy
from fixtures_runs import Heatbox, Project, Up
from PIL import Image

from heatbox.settings import Settings

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


class OwnStudio:
    """A Label Studio that is started, killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, _free_port()
        self.server = StudioServer(f"http://127.0.0.1:{self._port}", TOKEN, folder / "log.txt")
        (folder / "home").mkdir()
        if EMPTY.exists():
            shutil.copytree(EMPTY, folder / "data")

    def start(self, **switches: str) -> None:
        """Start it, with some environment variables changed, and wait until it answers."""
        self._process = _start(self._folder, self._port, self.server.log, switches)
        _wait(self._process, self.server)

    def kill(self) -> None:
        """End it as a lost machine would."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioServer]:
    """Start a Label Studio for the whole session."""
    with _started(tmp_path_factory.mktemp("studio")) as own:
        yield own.server


@pytest.fixture
def own_studio(tmp_path: Path) -> Iterator[OwnStudio]:
    """A Label Studio of one test, which may kill it."""
    (tmp_path / "studio").mkdir()
    with _started(tmp_path / "studio") as own:
        yield own


@contextmanager
def _started(folder: Path) -> Iterator[OwnStudio]:
    if not PROGRAM.exists():
        pytest.skip("no Label Studio: run make studio-env")
    own = OwnStudio(folder)
    try:
        own.start()
        yield own
    finally:
        own.kill()


@pytest.fixture
def studio(studio_server: StudioServer) -> Iterator[httpx.Client]:
    """Return a client with the server's address and the user's Authorization header."""
    with httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def run_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sixty pictures of noise, 00.png to 59.png."""
    folder = tmp_path_factory.mktemp("run-pictures")
    for number in range(60):
        noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def make_heatbox(tiny_store: Path, run_pictures: Path, poison_plugin: Path) -> Callable[..., Heatbox]:
    """Make a home of heatbox in a folder that is there; the pictures take as long as HEATBOX_EXPLAINER_OPTIONS says."""

    def make(folder: Path, server: StudioServer, **changes: object) -> Heatbox:
        settings = Settings(
            home=folder / "home",
            store=tiny_store,
            model="tiny",
            explainer="poison",
            explainer_options=("seconds=0.1",),
            min_probability=0,
            threads=1,
            port=0,
            local_roots=(run_pictures,),
            picture_seconds=3,
            job_memory=1_500 * 2**20,
            predict_deadline=4,
        )
        found = os.pathsep.join(filter(None, [str(poison_plugin), os.environ.get("PYTHONPATH")]))
        variables = {
            "PYTHONPATH": found,
            "LABEL_STUDIO_URL": server.url,
            "LABEL_STUDIO_API_KEY": server.token,
        }
        return Heatbox(settings.model_copy(update=changes), folder, variables)

    return make


@pytest.fixture(scope="session")
def proxy(studio_server: StudioServer) -> Iterator[StudioProxy]:
    """What the shared `heatbox up` takes for Label Studio."""
    with studio_proxy(studio_server.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def heatbox(
    tmp_path_factory: pytest.TempPathFactory,
    studio_server: StudioServer,
    make_heatbox: Callable[..., Heatbox],
) -> Heatbox:
    """The home of the shared `heatbox up`; commands reach Label Studio without the proxy."""
    return make_heatbox(tmp_path_factory.mktemp("shared"), studio_server)


@pytest.fixture(scope="session")
def up(heatbox: Heatbox, proxy: StudioProxy) -> Iterator[Up]:
    """A `heatbox up` that is shared, and goes on whatever becomes of its children."""
    with heatbox.up(studio_url=proxy.url) as up:
        yield up


@pytest.fixture
def make_project(studio: httpx.Client) -> Callable[..., Project]:
    """Make a project with a task for each of so many pictures, and for others that are named."""

    def make(count: int, *others: str, **options: object) -> Project:
        return Project(studio, [*(f"{number:02}.png" for number in range(count)), *others], **options)

    return make


def _start(folder: Path, port: int, log: Path, switches: Mapping[str, str]) -> subprocess.Popen[bytes]:
    home = folder / "home"
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    own = {"HOME": str(home), "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data")}
    command = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=home,
            env={**inherited, **SETTINGS, **switches, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
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
