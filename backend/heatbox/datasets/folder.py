"""A folder that appears under its name only when it is whole, in place of a former one if that was asked for.

It is written as a hidden sibling, `.NAME.PID.part`, which its writer keeps locked (flock): what a killed one has left
is known by that and removed the next time. A former folder that is replaced is set aside as `.NAME.PID.old` first; if
the writer is killed between the two renames, the next one puts it back.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heatbox.errors import OutputError

__all__ = ["check_free", "new_folder"]


@contextmanager
def new_folder(folder: Path, may_replace: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """Give an empty folder to write into, and put it in its place when the block ends without an error.

    Args:
        folder: where it shall be; a link is followed.
        may_replace: whether a folder that is there, with something in it, may go.

    Raises:
        OutputError: it is taken, or cannot be written.
    """
    try:
        check_free(folder, may_replace)
        whole = folder.resolve()
        whole.parent.mkdir(parents=True, exist_ok=True)
        part = whole.with_name(f".{whole.name}.{os.getpid()}.part")
        part.mkdir()
        try:
            with _locked(part):
                yield part
                _put(part, whole)
        finally:
            shutil.rmtree(part, ignore_errors=True)  # the error that brought us here says more
    except OSError as error:
        raise _unwritable(folder, error) from error


def check_free(folder: Path, may_replace: Callable[[Path], bool] = lambda _: False) -> None:
    """Clear up what a killed writer has left, and raise where the folder is taken; see `new_folder`.

    Raises:
        OutputError: it is taken, or cannot be looked at.
    """
    try:
        whole = folder.resolve()
        _tidy(whole)
        if whole.exists() and not whole.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file")
        is_taken = whole.exists() and any(whole.iterdir()) and not may_replace(whole)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if is_taken:
        raise OutputError(
            f"The folder {folder} holds something already.",
            "Name a new folder. Only a former export is written anew, with --replace.",
        )


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"The folder {folder} cannot be written: {error.strerror or error}.",
        "Name a folder where there is space and you may write.",
    )


def _put(part: Path, whole: Path) -> None:
    """Rename the folder to its final name, the former one aside."""
    if not whole.exists():
        part.rename(whole)
        return
    old = whole.with_name(f".{whole.name}.{os.getpid()}.old")
    whole.rename(old)
    try:
        part.rename(whole)
    except OSError:
        old.rename(whole)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _tidy(whole: Path) -> None:
    """Remove what killed writers have left, and put a former folder back that nothing has come in place of."""
    pattern = re.compile(rf"\.{re.escape(whole.name)}\.[0-9]+\.(part|old)")
    beside = sorted(whole.parent.iterdir()) if whole.parent.is_dir() else []
    left = [path for path in beside if pattern.fullmatch(path.name)]
    for part in (path for path in left if path.suffix == ".part"):
        with _locked(part):  # raises while somebody writes into it
            shutil.rmtree(part, ignore_errors=True)
    for old in (path for path in left if path.suffix == ".old"):
        if whole.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(whole)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(errno.EBUSY, "another process writes it now") from error
    try:
        yield
    finally:
        os.close(descriptor)
