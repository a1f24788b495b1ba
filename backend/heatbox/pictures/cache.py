"""Fetched pictures on this machine's disk, shared by its threads and processes.

Each picture has a folder named after the SHA-256 of its key, with the picture under its own name and `answer.json`:
what the host said about its version, and a digest of what was asked. Nothing else about an address is on the disk.

Whoever looks at a picture holds its lock, so two readers fetch once. Content is written beside and renamed, so a
reader sees the old or the new one, whole. Without an `answer.json` that fits, a picture counts as not there: it goes
before the content is replaced and comes after. The least recently used go first when there is too much, or when they
leave too little of the disk to others, but none that was handed out a few minutes ago: somebody may be about to
read it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from heatbox.errors import PictureCacheError
from heatbox.pictures.deadline import Deadline

__all__ = ["CachedPicture", "PictureCache", "is_full"]

_FRESH_SECONDS = 60.0
_KEPT_SECONDS = 600.0  # since it was handed out last
_SWEEP_SECONDS = 300.0
_SHORT_SWEEP_SECONDS = 10.0  # while the disk is nearly full
_FREE_PART, _MOST_FREE = 0.05, 2**30  # of the disk, which stays free
_PARTIAL_SECONDS = 3600.0  # an unfinished file that is older belongs to a process that died
_POLL_SECONDS = 0.02
_ANSWER = "answer.json"


@dataclass
class CachedPicture:
    """What is kept of one picture, for whoever holds its lock.

    Attributes:
        folder: of this picture alone.
        path: where its content is, or will be.
        partial: folder of unfinished files.
    """

    folder: Path
    path: Path
    partial: Path

    def __post_init__(self) -> None:
        self._answer = self._read()

    @property
    def is_there(self) -> bool:
        """Whether there is content."""
        return bool(self._answer)

    def is_fresh(self, asked: str) -> bool:
        """Return whether it can be used without a request: it came a moment ago, by the same question."""
        if not self._answer or self._answer["asked"] != _digest(asked):
            return False
        with _told():
            return 0 <= time.time() - (self.folder / _ANSWER).stat().st_mtime < _FRESH_SECONDS

    def condition(self) -> dict[str, str]:
        """Return the headers that ask for it only if it has changed."""
        names = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
        return {header: self._answer[name] for name, header in names.items() if self._answer.get(name)}

    def confirm(self, asked: str) -> None:
        """Remember that it has not changed."""
        with _told():
            self._write({**self._answer, "asked": _digest(asked)})

    def replace(self, content: Iterable[bytes], validators: Mapping[str, str], asked: str) -> int:
        """Keep this content from now on; return its bytes. Nothing changes where the content breaks off."""
        with _told():
            partial = self._partial(content)
            try:
                (self.folder / _ANSWER).unlink(missing_ok=True)
                self.folder.mkdir(parents=True, exist_ok=True)
                size = partial.stat().st_size
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)
            self._write({"asked": _digest(asked), "size": size, **validators})
        return size

    def used(self) -> Path:
        """Return the path of the content, which now counts as used."""
        with _told():
            os.utime(self.path)
        return self.path

    def _read(self) -> dict[str, Any]:
        """Return what the host said, empty where that or the content is missing or does not fit."""
        try:
            answer = json.loads((self.folder / _ANSWER).read_bytes())
            fits = self.path.stat().st_size == answer["size"] and isinstance(answer["asked"], str)
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return answer if fits else {}

    def _write(self, answer: Mapping[str, object]) -> None:
        partial = self._partial([json.dumps(answer).encode()])
        partial.replace(self.folder / _ANSWER)

    def _partial(self, content: Iterable[bytes]) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self.partial)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(content)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name)


class PictureCache:
    """The pictures below one folder.

    Args:
        folder: made where it is missing.
        most_bytes: of pictures; more are kept only while somebody may be about to read them. On a disk that is nearly
            full, fewer.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._partial, self._locks = folder / "partial", folder / "locks"
        self._most_bytes = most_bytes
        self._counting = Lock()
        self._stored = 0  # bytes since the last sweep
        self._next_sweep = self._next_short_sweep = 0.0

    @contextmanager
    def picture(self, key: str, name: str, deadline: Deadline) -> Iterator[CachedPicture]:
        """Hold the lock of a picture for the time of the block.

        Args:
            key: names the picture, whatever is asked to get it.
            name: of the file; the same for the same key.
            deadline: by which somebody else must be done with it.

        Raises:
            PictureSlowError: somebody else was not.
            PictureCacheError: the disk is full, or cannot be written.
        """
        digest = _digest(key)
        folder = self._folder / digest[:2] / digest[2:]
        with _told():
            for needed in (self._folder, self._partial, self._locks):
                needed.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(digest, deadline):
            yield CachedPicture(folder, folder / name, self._partial)

    def stored(self, size: int) -> None:
        """Count bytes that were stored, and sweep when it is time."""
        with self._counting:
            self._stored += size
            now = time.monotonic()
            is_due = now >= self._next_sweep or self._stored > max(self._most_bytes // 20, 2**26)
            if is_due or (now >= self._next_short_sweep and self._spare() < 0):
                is_due = True
                self._stored, self._next_sweep = 0, now + _SWEEP_SECONDS
                self._next_short_sweep = now + _SHORT_SWEEP_SECONDS
        if is_due:
            self.sweep()

    def make_room(self) -> bool:
        """Remove the least recently used half, for a disk that is full; return whether anything went."""
        kept = sorted(self._contents())
        return self._shrink(kept, sum(size for _, size, _ in kept) // 2) > 0

    def sweep(self) -> None:
        """Remove the least recently used until a tenth of the allowed bytes is free."""
        now = time.time()
        for path in self._partial.glob("*"):
            with suppress(OSError):
                if now - path.stat().st_mtime > _PARTIAL_SECONDS:
                    path.unlink()
        kept = sorted(self._contents())
        total = sum(size for _, size, _ in kept)
        allowed = min(self._most_bytes, total + self._spare())
        if total > allowed:
            self._shrink(kept, int(allowed * 0.9))

    def _shrink(self, kept: Sequence[tuple[float, int, Path]], least: int) -> int:
        """Remove the first of these pictures until so many bytes are left, or they are too new; return what went."""
        now, gone = time.time(), 0
        total = sum(size for _, size, _ in kept)
        for used, size, folder in kept:
            if total - gone <= least or now - used < _KEPT_SECONDS:
                break
            if self._remove(folder):
                gone += size
        return gone

    def _spare(self) -> int:
        """Return the bytes that the disk has free beyond those that stay free; negative: so many are lacking."""
        try:
            disk = shutil.disk_usage(self._folder)
        except OSError:
            return 0
        return disk.free - min(int(disk.total * _FREE_PART), _MOST_FREE)

    def _contents(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each picture was used last, its bytes and its folder."""
        for folder in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):
                files = [path.stat() for path in folder.iterdir()]
                yield (
                    max((file.st_mtime for file in files), default=0.0),
                    sum(file.st_size for file in files),
                    folder,
                )

    def _remove(self, folder: Path) -> bool:
        """Remove a picture, unless somebody holds its lock."""
        lock = self._try_lock(folder.parent.name + folder.name)
        with suppress(OSError, PictureCacheError), lock as is_held:
            if is_held:
                for path in sorted(folder.iterdir(), key=lambda path: path.name != _ANSWER):
                    path.unlink()
                folder.rmdir()
                return True
        return False

    @contextmanager
    def _locked(self, digest: str, deadline: Deadline) -> Iterator[None]:
        while True:
            with self._try_lock(digest) as is_held:
                if is_held:
                    yield
                    return
            time.sleep(min(_POLL_SECONDS, deadline.left()))

    @contextmanager
    def _try_lock(self, digest: str) -> Iterator[bool]:
        """Give whether the lock is held during the block; its file is there for that time only."""
        path = self._locks / digest
        with _told():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        is_held = False
        try:
            with _told():
                is_held = _flock(descriptor) and _is_at(descriptor, path)
            yield is_held
        finally:
            if is_held:
                with suppress(OSError):  # it may stay: nobody holds it
                    path.unlink()
            os.close(descriptor)


def is_full(error: PictureCacheError) -> bool:
    """Return whether the disk, or somebody's share of it, has no room."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in {errno.ENOSPC, errno.EDQUOT}


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether this open file still has its name: whoever held the lock before has removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PictureCacheError(
            f"A fetched picture cannot be kept on the disk: {error.strerror}.",
            "Free some space below HEATBOX_HOME, or lower HEATBOX_CACHE_BYTES.",
        ) from error
