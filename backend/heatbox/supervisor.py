"""`heatbox up`: Redis, workers and the web service as children of one process that keeps them running.

It holds the listening socket itself and hands it on, so a taken port is known before anything starts and no
request is refused while the web service is started again. It has one thread, and no torch.
"""

import errno
import http.client
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

from heatbox.errors import PortTakenError, ServiceError, SettingsError
from heatbox.hosts import is_loopback
from heatbox.processes import spawn, stop
from heatbox.queueing.limits import JobLimits
from heatbox.queueing.queues import listening_pids
from heatbox.queueing.redis_server import private_redis
from heatbox.serving import check_choices
from heatbox.settings import Settings, as_environment, own_url

__all__ = ["exposure", "listen", "supervise"]

log = logging.getLogger(__name__)

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.1
_WEB_STOP_SECONDS = 4.0
_WORKER_STOP_SECONDS = 6.0  # a job that takes longer is killed; nobody is left to wait for it
_STEADY_SECONDS = 60.0  # a child that lived so long is started again at once
_LONGEST_DELAY = 30.0
_TRAINER = "worker for trainings"  # on its own: who waits for a prediction must not wait for a training


@dataclass
class _Child:
    """A process that is started again when it ends, later each time when it ends soon."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    _started: float = field(default_factory=time.monotonic)
    _delay: float = 0.25
    _due: float | None = None

    def keep_running(self) -> None:
        code, now = self.process.poll(), time.monotonic()
        if code is None:
            return
        if self._due is None:
            steady = now - self._started > _STEADY_SECONDS
            self._delay = 0.5 if steady else min(self._delay * 2, _LONGEST_DELAY)
            self._due = now + self._delay
            log.warning("%s ended with code %d; it is started again in %.1f s", self.name, code, self._delay)
        elif now >= self._due:
            self.process, self._started, self._due = self.start(), now, None


def _started(name: str, start: Callable[[], subprocess.Popen[bytes]]) -> _Child:
    return _Child(name, start, start())


@dataclass
class _Stop:
    """Whether somebody asked us to stop; a plain flag, because a signal handler must not take a lock."""

    requested: bool = False


def supervise(
    settings: Settings, environment: Mapping[str, str], on_ready: Callable[[str, str], None]
) -> None:
    """Run everything until SIGTERM, SIGINT or SIGHUP, then take it down in order.

    Args:
        settings: of all processes; without `redis_url` a private Redis is started.
        environment: handed on to the children, with the settings in it.
        on_ready: called once with the service's address and the Redis URL.

    Raises:
        HeatboxError: the settings name something that is not there; nothing was started (see `check_choices`).
        PortTakenError: another program listens on the port; nothing was started.
        RedisUnavailableError: no Redis can be started, or another `heatbox up` uses this home.
        ServiceError: a part ended, or was not ready in time, while everything was started.
    """
    check_choices(settings)
    if told := exposure(settings):
        log.warning("%s", told)
    with _stop_signals() as stopping, listen(settings.host, settings.port) as listener:
        redis_context = nullcontext() if settings.redis_url else private_redis(settings.home)
        with redis_context as server:
            url = server.url if server else settings.redis_url
            own = settings.model_copy(update={"redis_url": url})
            watched = [_Child("redis", server.start, server.process)] if server and server.process else []
            with _programs(own, environment, listener) as children:
                host, port = listener.getsockname()[:2]
                address = own_url(host, port)
                _wait_until_ready(address, url, children, stopping)
                if not stopping.requested:
                    on_ready(address, url)
                while not stopping.requested:
                    time.sleep(_POLL_SECONDS)
                    for child in (*watched, *children):
                        child.keep_running()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        PortTakenError: another program does.
        SettingsError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as closing:
            listener = closing.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
            closing.pop_all()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"Another program listens on {host}:{port}.",
                "Stop it (is it another `heatbox up`?), or choose another port with --port.",
            ) from error
        raise SettingsError(
            f"Nothing can listen on {host}:{port}: {error.strerror}.", "Check --host and --port."
        ) from error
    return listener


def exposure(settings: Settings) -> str:
    """Return what a person should read where other machines reach the service and no password is set, else ""."""
    if settings.basic_auth_user or is_loopback(settings.host):
        return ""
    return (
        f"Without a password everybody who reaches {settings.host} can use the service. "
        "Set HEATBOX_BASIC_AUTH_USER and HEATBOX_BASIC_AUTH_PASSWORD, or listen on 127.0.0.1."
    )


@contextmanager
def _programs(
    settings: Settings, environment: Mapping[str, str], listener: socket.socket
) -> Iterator[Sequence[_Child]]:
    """Start the web service and the workers, in this order; stop them in this order at the end."""
    kept = {key: value for key, value in environment.items() if not key.startswith("HEATBOX_")}
    variables = {**kept, **as_environment(_with_shares(settings))}

    def start(*arguments: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        return spawn([sys.executable, "-P", "-m", "heatbox", *arguments], variables, pass_fds=pass_fds)

    descriptor = listener.fileno()
    web = _started("web service", lambda: start("serve", "--fd", str(descriptor), pass_fds=[descriptor]))
    workers = [_started(f"worker {index + 1}", lambda: start("work")) for index in range(settings.workers)]
    trainer = _started(_TRAINER, lambda: start("work", "--queue", "train"))
    try:
        yield [web, *workers, trainer]
    finally:
        stop(web.process, _WEB_STOP_SECONDS)
        for worker in (*workers, trainer):
            worker.process.terminate()
        for worker in (*workers, trainer):
            stop(worker.process, _WORKER_STOP_SECONDS)


def _with_shares(settings: Settings) -> Settings:
    """Return the settings with a share of the memory for each worker, the one for trainings included."""
    limits = JobLimits.for_machine(settings.picture_seconds, settings.job_memory, settings.workers + 1)
    return settings.model_copy(update={"job_memory": limits.memory})


def _wait_until_ready(address: str, redis_url: str, children: Sequence[_Child], stopping: _Stop) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    workers = {child.process.pid for child in children[1:] if child.name != _TRAINER}
    while not (stopping.requested or (_is_up(address) and workers <= listening_pids(redis_url))):
        for child in children:
            code = child.process.poll()
            if code is not None:
                raise ServiceError(
                    f"The {child.name} ended with code {code} while it was started.",
                    "Its own message is above; `heatbox doctor` looks at what it needs.",
                )
        if time.monotonic() > deadline:
            raise ServiceError(
                f"heatbox was not ready after {_READY_SECONDS:.0f} s.", "Run `heatbox doctor`."
            )
        time.sleep(_POLL_SECONDS)


def _is_up(address: str) -> bool:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    stopping = _Stop()

    def note(_signum: int, _frame: FrameType | None) -> None:
        stopping.requested = True

    before = {
        number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
