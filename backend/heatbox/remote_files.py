"""Files on a shared place that a URL names, such as s3://bucket/folder: the one door to fsspec.

https://filesystem-spec.readthedocs.io; which URLs there are and which package each needs stands there. Credentials
are read by those packages from where they always read them; no message of this module has one.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any, BinaryIO

from heatbox.errors import HeatboxError, SettingsError, StoreUnavailableError
from heatbox.models import unwritable

__all__ = ["Listing", "RemoteFiles", "without_credentials"]

log = logging.getLogger(__name__)

_BLOCK = 8 << 20  # bytes
_LONGEST_REASON = 200
_LISTED_SECONDS = 5.0  # what another machine registers is seen so late at most
_TROUBLE_SECONDS = 30.0  # a place that did not answer is asked again


class RemoteFiles:
    """The files under a URL, by their names relative to it; each method raises `StoreUnavailableError`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: tuple[Any, str] | None = None

    def names(self) -> frozenset[str]:
        """Return the names of all files; none where the folder is not there yet."""
        with self._told("read"):
            system, root = self._open()
            system.invalidate_cache()
            return frozenset(path.removeprefix(root).lstrip("/") for path in system.find(root))

    def get(self, name: str, target: Path) -> None:
        """Download a file.

        Raises:
            OutputError: the target cannot be written.
        """
        with self._told("read"):
            system, root = self._open()
            with system.open(f"{root}/{name}", "rb") as source:
                _blocks_into(source, target)

    def put(self, source: Path, name: str) -> None:
        """Upload a file whole, in the place of one of that name."""
        with self._told("written"):
            system, root = self._open()
            try:
                system.put_file(str(source), f"{root}/{name}")
            except FileNotFoundError:  # only some places have folders
                system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                system.put_file(str(source), f"{root}/{name}")
            system.invalidate_cache()

    def modified(self, name: str) -> int | None:
        """Return when a file was written in nanoseconds since 1970; None where the place does not know."""
        with self._told("read"):
            system, root = self._open()
            try:
                moment = system.modified(f"{root}/{name}")
            except NotImplementedError:
                return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1e9)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(self._url)
            self._opened = system, root.rstrip("/")
        return self._opened

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        """Tell whatever a place's package raises as the store's error."""
        place = _hosts_only(self._url)
        try:
            yield
        except HeatboxError:
            raise
        except ImportError as error:
            raise StoreUnavailableError(
                f"The model store {place} needs a package that is not installed: {_reason(error)}.",
                f"Run: pip install {_package(self._url)}.",
            ) from error
        except Exception as error:  # each package has errors of its own, and none of them is ours
            if isinstance(error, ValueError) and self._opened is None:
                raise SettingsError(
                    f"HEATBOX_STORE cannot be {place}: {_reason(error)}.",
                    "Name a folder, or a URL that fsspec knows: s3://, gs://, abfs://, sftp://, file://.",
                ) from error
            raise StoreUnavailableError(
                f"The model store {place} cannot be {done}: {_reason(error)}.",
                "Check HEATBOX_STORE, the network and the credentials; `heatbox doctor` tries again.",
            ) from error


class Listing:
    """The names of a place's files, remembered for seconds; asked for in a thread that nobody needs to wait for."""

    def __init__(self, ask: Callable[[], frozenset[str]]) -> None:
        self._ask = ask
        self._lock = Lock()
        self._asking: Thread | None = None
        self._names: frozenset[str] | None = None
        self._trouble: HeatboxError | None = None
        self._due = 0.0
        self._asked = 0.0

    def names(self, patience: float | None = None, *, fresh: bool = False) -> frozenset[str] | None:
        """Return the names, the last ones known where the place does not answer; None: there never were any.

        Args:
            patience: seconds that an answer may take since it was asked for; None: as long as it takes.
            fresh: ask now.
        """
        with self._lock:
            if self._asking is None or not self._asking.is_alive():
                if not fresh and time.monotonic() < self._due:
                    return self._names
                self._asking = Thread(target=self._run, name="model store", daemon=True)
                self._asking.start()
                self._asked = time.monotonic()
            asking, asked = self._asking, self._asked
        left = None if patience is None else max(0.0, asked + patience - time.monotonic())
        asking.join(left)
        if left and asking.is_alive():  # told once, and nobody waits for it again
            log.warning(
                "The shared model store has not answered for %g s; going on with what is here.", patience
            )
        return self._names

    def require(self) -> None:
        """Raise where the last answer was none."""
        trouble = self._trouble
        if (
            trouble is not None
        ):  # a new one each time: what is raised again keeps every frame that it went through
            raise type(trouble)(trouble.sentence, trouble.remedy) from None

    def forget(self) -> None:
        """Ask again at the next look."""
        self._due = 0.0

    def _run(self) -> None:
        try:
            self._names, self._trouble = self._ask(), None
            self._due = time.monotonic() + _LISTED_SECONDS
        except HeatboxError as error:
            log.warning("%s Going on with what is here.", error.sentence)
            self._trouble = error
            self._due = time.monotonic() + _TROUBLE_SECONDS


def without_credentials(text: str) -> str:
    """Return a text with URLs without login and query, in which passwords and signatures stand."""
    return re.sub(r"://[^/\s]*@", "://", re.sub(r"(://[^\s?]*)\?\S*", r"\1", text))


def _hosts_only(text: str) -> str:
    """Return what may be said in an answer of the service: no URL has a path or credentials."""
    return re.sub(r"(://[^/\s\"']*)[^\s\"']*", r"\1", without_credentials(text))


def _reason(error: Exception) -> str:
    """Return one line on what went wrong, without credentials."""
    strerror = error.strerror if isinstance(error, OSError) else None
    line = _hosts_only(strerror or next(iter(str(error).splitlines()), ""))[:_LONGEST_REASON].rstrip(". ")
    return (
        line
        if isinstance(error, OSError | ImportError) and line
        else f"{type(error).__name__} {line}".strip()
    )


def _package(url: str) -> str:
    """Return the name of the package that reads a URL."""
    from fsspec.registry import known_implementations

    protocol = re.split("::|://", url)[0]
    package = str(known_implementations.get(protocol, {}).get("class", protocol)).partition(".")[0]
    return "'fsspec[full]'" if package == "fsspec" else package


def _blocks_into(source: BinaryIO, target: Path) -> None:
    """Copy a stream into a new file; the file's failures are those of this disk, the stream's of the place."""
    with _told_here():
        file = target.open("wb", buffering=0)
    with file:
        for block in iter(partial(source.read, _BLOCK), b""):
            left = memoryview(block)
            while left:
                with _told_here():
                    left = left[file.write(left) :]


@contextmanager
def _told_here() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(error.strerror) from error
