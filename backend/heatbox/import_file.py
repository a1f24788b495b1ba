"""Label Studio's import file: a JSON list of tasks, written as the tasks come and put in place when it is whole."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from heatbox.errors import OutputError

__all__ = ["TasksWriter", "atomic_text", "config_path", "local_files_address", "write_tasks"]


class TasksWriter:
    """Appends tasks to an open JSON list."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.count = 0

    def add(self, task: Mapping[str, Any]) -> None:
        """Append one task."""
        self._file.write(("[\n" if self.count == 0 else ",\n") + json.dumps(task, ensure_ascii=False))
        self.count += 1

    def finish(self) -> None:
        """Close the list."""
        self._file.write("[]\n" if self.count == 0 else "\n]\n")


@contextmanager
def write_tasks(path: Path) -> Iterator[TasksWriter]:
    """Write a tasks file; it appears under its name only when the block ends without an error.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_text(path) as file:
        writer = TasksWriter(file)
        yield writer
        writer.finish()


@contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """Open a text file beside its final name and rename it when the block ends without an error.

    A pipe or a device, such as /dev/stdout, is written where it is. A half of a surrogate pair, as in a file
    name that is not UTF-8, is written as JSON's escape for it.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with _in_place(path) if path.exists() and not path.is_file() else _renamed(path) as file:
            yield file
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}.", "Free some space, or choose another place."
        ) from error


def config_path(out: Path) -> Path:
    """Return where the label config that belongs to an import file is written."""
    return out.with_suffix(".config.xml")


def local_files_address(path: Path, document_root: Path) -> str:
    """Return the address under which Label Studio serves a file below its local-files document root."""
    absolute, root = path.resolve(), document_root.resolve()
    if not absolute.is_relative_to(root):
        raise OutputError(
            f"{path} is not below the document root {document_root}.",
            "Name Label Studio's LOCAL_FILES_DOCUMENT_ROOT with --document-root.",
        )
    return f"/data/local-files/?d={quote(os.fsencode(absolute.relative_to(root)))}"


@contextmanager
def _in_place(path: Path) -> Iterator[TextIO]:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield file


@contextmanager
def _renamed(path: Path) -> Iterator[TextIO]:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _in_place(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):  # the error that brought us here says more
            part.unlink()
