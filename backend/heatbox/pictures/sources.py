"""What `heatbox annotate PATH...` walks over: files, folders, patterns and tasks files become sources.

A path or a task that names no picture becomes a source with an error, so that it costs only itself. Only a
tasks file that cannot be read as one stops everything: it is not what its owner thinks it is.

A tasks file is the JSON that Label Studio imports and exports (https://labelstud.io/guide/tasks): a list of
tasks `{"id": 7, "data": {"image": "..."}, ...}`, one such task, or the bare `data` objects.
"""

import glob
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from heatbox.errors import HeatboxError, PictureNotFoundError, PictureUnreadableError, TasksFileError
from heatbox.pictures import addresses
from heatbox.pictures.images import PICTURE_SUFFIXES

__all__ = ["Source", "find_pictures"]


@dataclass(frozen=True)
class Source:
    """One picture to annotate, or the reason why there is none.

    Attributes:
        name: what a person calls it: the path as given or found, for a task `file.json#id`.
        path: the file, None where there is an error; it need not be readable.
        task: the task that named it, as Label Studio would import it; None for plain files.
        error: why there is no path.
        more: the further pictures of a task with a list of them.
    """

    name: str
    path: Path | None = None
    task: Mapping[str, Any] | None = None
    error: HeatboxError | None = None
    more: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        printable = self.name.encode(errors="replace").decode()  # a file name may be no Unicode
        object.__setattr__(self, "name", printable)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All pictures, in the order in which the task names them."""
        return () if self.path is None else (self.path, *self.more)


@dataclass(frozen=True)
class _Reading:
    """How tasks are read; see `find_pictures`."""

    data_key: str | None
    roots: Sequence[Path]
    lists: bool


def find_pictures(
    paths: Sequence[str],
    *,
    data_key: str | None = None,
    document_roots: Sequence[Path] = (),
    lists: bool = False,
) -> list[Source]:
    """Return everything that the paths name, in their order; folders are walked in the order of names.

    In folders and for patterns such as `photos/**/*`, hidden files and those without the extension of a
    picture are passed over; a file that is named, also as `photos/*.dat`, is always tried. A plain file is
    returned once.

    Args:
        paths: files, folders, patterns that no shell has expanded, or tasks files (`*.json`).
        data_key: key of a task's data that holds the address; None: the first that looks right.
        document_roots: folders that `/data/local-files/?d=...` is relative to (its document root).
        lists: whether the data key may hold a list of addresses (`valueList`), all of one task.

    Raises:
        TasksFileError: a tasks file is not JSON, or not tasks.
    """
    reading = _Reading(data_key, document_roots, lists)
    found = (source for text in paths for source in _expand(text, reading))
    return list(_once(found))


def _once(sources: Iterable[Source]) -> Iterator[Source]:
    """Leave out plain files that came before; each task stays, because each wants its prediction."""
    seen: set[str] = set()
    for source in sources:
        if source.path is not None and source.task is None:
            real = os.path.realpath(source.path)
            if real in seen:
                continue
            seen.add(real)
        yield source


def _expand(text: str, reading: _Reading) -> Iterator[Source]:
    """Yield what one path of the command line names."""
    path = Path(text)
    mode = _mode(path)
    if mode is None:
        yield from _matches(text, reading) if glob.has_magic(text) else [_nothing(text)]
    elif stat.S_ISDIR(mode):
        yield from _folder(path)
    elif path.suffix.lower() == ".json":
        yield from (_task_source(path, *task, reading) for task in enumerate(_read_tasks(path), 1))
    else:
        yield Source(text, path)


def _mode(path: Path) -> int | None:
    """Return the file mode, None where nothing can be found under the path."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _nothing(text: str) -> Source:
    error = PictureNotFoundError(f"Nothing is named {Path(text).name!r}.", "Check the path.")
    return Source(text, error=error)


def _matches(pattern: str, reading: _Reading) -> Iterator[Source]:
    """Yield what a pattern matches; one that ends in an extension counts as naming its files."""
    suffix = Path(pattern).suffix
    named = bool(suffix) and not glob.has_magic(suffix)
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    walked = "**" not in pattern  # else each folder's content is in `found` too
    kept = [text for text in found if (walked if Path(text).is_dir() else named or _is_picture_name(text))]
    sources = [source for text in kept for source in _expand(text, reading)]
    yield from sources or [
        Source(pattern, error=PictureNotFoundError(f"No picture matches {pattern!r}.", "Check the pattern."))
    ]


def _folder(folder: Path) -> Iterator[Source]:
    """Yield the pictures in and below a folder; hidden ones are left out, links to folders not followed."""
    failed: list[OSError] = []
    empty = True
    for where, folders, files in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_picture_name(name):
                empty = False
                yield Source(str(Path(where, name)), Path(where, name))
    for error in failed:
        sentence = f"The folder {Path(error.filename).name!r} cannot be read: {error.strerror}."
        yield Source(str(error.filename), error=PictureUnreadableError(sentence, "Check its permissions."))
    if empty and not failed:
        sentence = f"The folder {folder.resolve().name!r} has no picture in it."
        yield Source(
            str(folder), error=PictureNotFoundError(sentence, "Look for JPEG, PNG, WebP, BMP, TIFF or GIF.")
        )


def _is_picture_name(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURE_SUFFIXES


def _read_tasks(file: Path) -> list[Any]:
    """Return the tasks of a tasks file, each not yet looked at."""
    remedy = "Give a JSON export of Label Studio, or a list of tasks with their data."
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise TasksFileError(f"{file.name!r} is not JSON: {error.msg} at {place}.", remedy) from error
    except UnicodeDecodeError as error:
        raise TasksFileError(f"{file.name!r} is not UTF-8 text: byte {error.start}.", remedy) from error
    except (OSError, RecursionError, ValueError) as error:  # nested too deeply; a number of too many digits
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TasksFileError(f"{file.name!r} cannot be read: {reason}.", remedy) from error
    if isinstance(content, dict) and (isinstance(content.get("data"), dict) or _picture_key(content)):
        return [content]
    if not isinstance(content, list):
        raise TasksFileError(
            f"{file.name!r} holds no list of tasks, but {_kind(content)} at its top.", remedy
        )
    if not content:
        raise TasksFileError(f"{file.name!r} holds no task.", remedy)
    return content


def _task_source(file: Path, number: int, task: object, reading: _Reading) -> Source:
    """Return the pictures of one task, or what is wrong with this task (the number counts from 1)."""
    name = f"{file.name}#{number}"
    if not isinstance(task, dict):
        sentence = f"Task {number} of {file.name!r} is {_kind(task)}, not an object."
        return Source(name, error=TasksFileError(sentence, "Write it as an object with data."))
    whole = task if isinstance(task.get("data"), dict) else {"data": task}
    name = f"{file.name}#{task.get('id', number)}"
    try:
        named = _addresses(name, whole["data"], reading)
        first, *more = [_task_path(address, file.parent, reading.roots) for address in named]
        return Source(name, first, whole, more=tuple(more))
    except HeatboxError as error:
        return Source(name, task=whole, error=error)


def _addresses(name: str, data: Mapping[str, Any], reading: _Reading) -> list[str]:
    """Return the addresses of a task's pictures: one, except in a list."""
    key = reading.data_key or _picture_key(data)
    if key is None:
        keys = ", ".join(map(repr, list(data)[:8])) or "none"
        raise TasksFileError(
            f"{name}: no value looks like a picture's address (keys: {keys}).", "Name the data key."
        )
    value = data.get(key)
    listed = value if isinstance(value, list) and reading.lists else [value]
    addresses = [one.strip() for one in listed if isinstance(one, str) and one.strip()]
    if not addresses or len(addresses) < len(listed):
        raise TasksFileError(f"{name}: data[{key!r}] is not an address.", "Name the data key that holds one.")
    return addresses


def _picture_key(data: Mapping[str, Any]) -> str | None:
    """Return the first key whose value ends like a picture's name, else the first that is any address."""
    texts = {key: value.strip() for key, value in data.items() if isinstance(value, str)}
    for looks_right in (_names_picture, _is_address):
        for key, value in texts.items():
            if looks_right(value):
                return key
    return None


def _names_picture(value: str) -> bool:
    return any(_is_picture_name(part) for part in (value, value.partition("?")[0]))


def _is_address(value: str) -> bool:
    schemes = ("file:", "http:", "https:", "s3:", "gs:", "azure-blob:", "data:image/")
    return addresses.is_local_files(value) or value.startswith((*schemes, "/data/upload/"))


def _task_path(address: str, folder: Path, roots: Sequence[Path]) -> Path:
    """Return the file that a task of the user's own file names; unlike in the service, it lies anywhere."""
    if addresses.is_local_files(address) or addresses.is_remote(address):
        return addresses.resolve(address, roots)
    if address.startswith("file:"):
        return addresses.resolve(address, [Path("/")])
    for text in (address, unquote(address)):
        if _mode(folder / text) is not None:
            return folder / text
    raise PictureNotFoundError(
        f"There is no file {addresses.local_name(address)!r}.",
        "Check the address in the task; it is relative to the tasks file.",
    )


def _kind(value: object) -> str:
    """Return what JSON calls a value."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
