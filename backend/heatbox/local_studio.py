"""`heatbox studio up`: a Label Studio of one's own on this machine, heatbox connected to it, and a project to look at.

Everything may be started again on the same folders: login, project and predictions are those of the last time. Whatever
ends us ends both programs: they are children that die with their parent.
"""

import fcntl
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import httpx

from heatbox.activation import find_model
from heatbox.errors import ModelNotFoundError, ServiceError
from heatbox.import_file import local_files_address
from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.local_parts import (
    HOST,
    Part,
    Session,
    at_home,
    free_port,
    new_session,
    start_heatbox,
    start_label_studio,
)
from heatbox.models import Card
from heatbox.processes import spawn, stop
from heatbox.remote_store import open_store
from heatbox.settings import Settings
from heatbox.studio.backend import Backend, ask
from heatbox.studio.client import Project, Studio
from heatbox.studio.connection import connect, disconnect
from heatbox.studio.sample_project import Pictures, add_tasks, make_project, retrieve
from heatbox.supervisor import listen

__all__ = ["LocalStudio", "demo_settings", "interruptible"]

_MODEL = "demo"
_TITLE = "heatbox demo"
_MIN_PROBABILITY = 0.5  # the demo measures with it: fewer false boxes than with the default
_READY_SECONDS = 300.0  # the first start may make the database
_POLL_SECONDS = 0.2
_STOP_SECONDS = 20.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class LocalStudio:
    """What is started.

    Attributes:
        settings: of heatbox; without a model it is `demo`.
        environment: handed on to heatbox.
        program: of Label Studio.
        folder: where everything is kept.
        demo: folder with `pictures/` and `label_config.xml`, made by `heatbox demo` where it or its model is missing.
        port: of Label Studio; None: the one of the last time, else 8080, else a free one.
        say: told what is being done.
    """

    settings: Settings
    environment: Mapping[str, str]
    program: Path
    folder: Path
    demo: Path
    port: int | None
    say: Callable[[str], None]

    def run(self, on_ready: Callable[[Session], None]) -> None:
        """Start everything, prepare the project, and wait until somebody interrupts or a part ends.

        Args:
            on_ready: called once everything is there to be looked at.

        Raises:
            KeyboardInterrupt: by SIGINT, SIGTERM or SIGHUP; everything is down then.
            HeatboxError: something cannot be started or connected, or has ended; everything is down then.
        """
        with interruptible() as check, self._locked():
            before = Session.read(self.folder)
            self._make_demo(check)
            session = self._session(before or new_session())
            with self._started(session) as parts:
                self._wait_until_ready(session, parts, check)
                on_ready(self._prepare(session, before, check))
                while True:
                    check()
                    for part in parts:
                        part.require_alive()
                    time.sleep(_POLL_SECONDS)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ServiceError(
                    f"Another `heatbox studio up` uses {self.folder}.", "Stop it, or name another --folder."
                ) from error
            yield

    def _make_demo(self, check: Callable[[], None]) -> None:
        """Run `heatbox demo` where its pictures or its model are missing."""
        if self._has_model() and (self.demo / "pictures").is_dir():
            return
        self.say("Making the demo's pictures and training its classifier; this takes some minutes.")
        command = [sys.executable, "-P", "-m", "heatbox", "demo", "--out", str(self.demo)]
        process = spawn(command, self.environment, at_parents_death=signal.SIGTERM)
        try:
            while process.poll() is None:
                check()
                time.sleep(_POLL_SECONDS)
        finally:
            code = stop(process, _STOP_SECONDS)
        if code:
            raise ServiceError(f"`heatbox demo` ended with code {code}.", "Its own message is above.")

    def _has_model(self) -> bool:
        try:
            self._model()
        except ModelNotFoundError:
            if self.settings.model:
                raise
            return False
        return True

    def _session(self, known: Session) -> Session:
        if self.port is not None:
            listen(HOST, self.port).close()  # raises where it is taken
        port = free_port(known.studio_port) if self.port is None else self.port
        session = replace(known, studio_port=port, heatbox_port=free_port(known.heatbox_port))
        session.write(self.folder)
        return session

    @contextmanager
    def _started(self, session: Session) -> Iterator[Sequence[Part]]:
        self.say("Starting Label Studio and heatbox.")
        with ExitStack() as stack:
            studio = start_label_studio(self.program, self.folder, self.demo, session, self.environment)
            stack.callback(stop, studio.process, _STOP_SECONDS)
            heatbox = start_heatbox(
                demo_settings(self.settings, self.demo), self.folder, session, self.environment
            )
            stack.callback(stop, heatbox.process, _STOP_SECONDS)
            yield studio, heatbox

    def _wait_until_ready(self, session: Session, parts: Sequence[Part], check: Callable[[], None]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        waiting = [f"{session.url}/health", f"{session.heatbox_url}/readyz"]
        with httpx.Client(timeout=5, trust_env=False) as client:
            while waiting := [url for url in waiting if not _answers(client, url)]:
                check()
                for part in parts:
                    part.require_alive()
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"{waiting[0]} did not answer within {_READY_SECONDS:.0f} s.",
                        f"Read {' and '.join(str(part.log) for part in parts)}.",
                    )
                time.sleep(_POLL_SECONDS)

    def _prepare(self, session: Session, before: Session | None, check: Callable[[], None]) -> Session:
        """Make the project, connect it and retrieve predictions; what is there already is left alone."""
        with Studio(session.url, session.token, timeout=180) as studio:
            project = make_project(studio, session.project, _TITLE, self._label_config())
            session = replace(session, project=project.id)
            session.write(self.folder)
            if before and before.heatbox_url != session.heatbox_url:
                disconnect(studio, project.id, before.heatbox_url)
            count = add_tasks(studio, project.id, self._pictures())
            self.say(f"Project {project.id} has {count} tasks. Connecting it to heatbox.")
            version = self._connect(studio, project, session)

            def progress(done: int, total: int) -> None:
                check()
                self.say(f"Retrieving predictions: {done} of {total}.")

            have, tasks = retrieve(studio, project.id, version, progress)
            self.say(f"{have} of {tasks} tasks have predictions of {version}.")
            if have < tasks:
                self.say(f"Why the others have none stands in {self.folder / 'heatbox' / 'log.txt'}.")
            return session

    def _connect(self, studio: Studio, project: Project, session: Session) -> str:
        user, password = self.settings.basic_auth_user, self.settings.basic_auth_password
        backend = Backend(session.heatbox_url, user, password.get_secret_value())
        setup = ask([backend.url], backend, project)
        connection = connect(studio, project, backend, setup.version)
        for told in (*setup.warnings, *connection.problems):
            self.say(f"Warning: {told}")
        return setup.version

    def _label_config(self) -> str:
        path = self.demo / "label_config.xml"
        if path.exists():
            return path.read_text(encoding="utf-8")
        return make_label_config(self._model().labels)

    def _model(self) -> Card:
        """Return what heatbox will use, as its own ledger knows it."""
        ledger = Ledger(at_home(self.settings, self.folder).ledger_url)
        try:
            return find_model(open_store(self.settings), ledger, self.settings.model or _MODEL)
        finally:
            ledger.close()

    def _pictures(self) -> Pictures:
        folder = self.demo / "pictures"
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return Pictures(folder, [{"image": local_files_address(path, self.demo)} for path in files])


def demo_settings(settings: Settings, demo: Path) -> Settings:
    """Return settings as `heatbox demo` has them where nobody has said something else; only its folder may be read."""
    changes: dict[str, object] = {"local_roots": (demo,), "model": settings.model or _MODEL}
    if "min_probability" not in settings.model_fields_set:
        changes["min_probability"] = _MIN_PROBABILITY
    return settings.model_copy(update=changes)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).is_success
    except httpx.TransportError:
        return False


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Let the signals that end a program interrupt it, once: what it has started must be stopped in peace.

    Yields a check that interrupts too. Python loses an exception that a signal raises inside certain callbacks, such
    as those at the end of an import.
    """
    requested = False

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        nonlocal requested
        if not requested:
            requested = True
            raise KeyboardInterrupt

    def check() -> None:
        if requested:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
