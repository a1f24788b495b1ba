"""Addresses in tasks that the service is sent: which local file one names, if the settings allow it at all.

Understood are absolute paths, `file:///...` and Label Studio's `/data/local-files/?d=...` (with or without a
host: Label Studio puts its own there when LABEL_STUDIO_HOST is set), percent-encoded or not. What they name
must lie in one of the allowed roots after every symbolic link is followed, and must be a regular file.

A client sees these errors: none repeats a root or a folder, and a file outside the roots is refused in the
same words whether it exists or not.
"""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from heatbox.errors import AddressRefusedError, PictureNotFoundError

__all__ = ["find", "is_cloud", "is_local_files", "is_remote", "local_name", "resolve"]

_ROOTS = "Set HEATBOX_LOCAL_ROOTS to the folders whose pictures tasks may name."
_CLOUD = re.compile(r"\s*(s3|gs|azure-blob)://", re.IGNORECASE)
_SCHEME = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
_LOCAL_ONLY = "Give a local file: pictures elsewhere are fetched only for the tasks of a Label Studio."


def resolve(address: str, roots: Sequence[Path]) -> Path:
    """Return the regular file that an address of a task names, symbolic links followed.

    Args:
        address: value of the task's data key.
        roots: folders (`Settings.local_roots`); what lies in none of them is refused.

    Raises:
        AddressRefusedError: the address is not local, leaves the roots, or is no regular file.
        PictureNotFoundError: it lies in a root, and nothing is there.
    """
    path = find(address, roots)
    if path is not None:
        return path
    shown = repr(local_name(address))
    if any(_contained(candidate, roots) for candidate in _candidates(address, roots)):
        raise PictureNotFoundError(f"There is no file {shown}.", "Check the address in the task.")
    if address.startswith("/data/upload/"):
        raise AddressRefusedError(
            f"{shown} is an upload inside Label Studio, which is not read.", _LOCAL_ONLY
        )
    raise AddressRefusedError(f"{shown} is not in an allowed folder.", _ROOTS)


def find(address: str, roots: Sequence[Path]) -> Path | None:
    """Return the file as `resolve` does, None where there is none in a root.

    Raises:
        AddressRefusedError: the address is not local, steps upwards, or is no regular file.
    """
    for candidate in _candidates(address, roots):
        path = _contained(candidate, roots)
        try:
            mode = path.stat().st_mode if path else None
        except OSError:
            continue
        if mode is not None and not stat.S_ISREG(mode):
            raise AddressRefusedError(
                f"{local_name(address)!r} is not a regular file.", "Name a picture file."
            )
        if mode is not None:
            return path
    return None


def is_remote(address: str) -> bool:
    """Return whether an address names no file of this machine: http, s3, data and the like."""
    return bool(_SCHEME.match(address)) and not is_local_files(address)


def is_cloud(address: str) -> bool:
    """Return whether an address is in a cloud storage, which Label Studio opens for one of its tasks."""
    return bool(_CLOUD.match(address))


def is_local_files(address: str) -> bool:
    """Return whether an address is one of Label Studio's local files."""
    parts = _split(address)
    return parts.scheme in {"", "http", "https"} and parts.path.rstrip("/").endswith("/data/local-files")


def local_name(address: str) -> str:
    """Return the file name in an address for a message: no folder, host or query, at most 100 characters."""
    if is_remote(address):
        return address.partition(":")[0][:20] + ":..."
    path = _query_path(address) if is_local_files(address) else address
    return PurePosixPath(path.replace("\0", "?")).name[:100]


def _candidates(address: str, roots: Sequence[Path]) -> list[Path]:
    """Return the paths that an address may mean, not yet checked against the roots."""
    if is_remote(address):
        scheme = address.partition(":")[0].casefold()[:20]
        raise AddressRefusedError(f"The picture is at a {scheme} address, which is not read.", _LOCAL_ONLY)
    if is_local_files(address):
        relative = _usable(_query_path(address)).lstrip("/")
        return [root / relative for root in roots]
    if address.casefold().startswith("file:"):
        host, _, path = address[5:].removeprefix("//").partition("/")
        if host.casefold() not in {"", "localhost"}:
            raise AddressRefusedError("The file address names another machine.", _LOCAL_ONLY)
        return [Path("/" + _usable(unquote(path)))]
    if not address.startswith("/"):
        raise AddressRefusedError(
            f"{local_name(address)!r} is not an absolute address.",
            "Give the whole path, or /data/local-files/?d=...",
        )
    return [Path(_usable(address)), Path(_usable(unquote(address)))]


def _usable(path: str) -> str:
    """Refuse a path that steps upwards or that no file can have."""
    shown = repr(PurePosixPath(path.replace("\0", "?")).name[:100])
    if ".." in PurePosixPath(path).parts:
        raise AddressRefusedError(f"The address of {shown} has '..' in it.", "Name the file without '..'.")
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise AddressRefusedError(f"{shown} has a character that no file name has.", "Correct the address.")
    return path


def _contained(path: Path, roots: Sequence[Path]) -> Path | None:
    """Return the path with every symbolic link followed if it then lies in a root, else None."""
    try:
        real = path.resolve()
        return real if any(real.is_relative_to(root.resolve()) for root in roots) else None
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None


def _query_path(address: str) -> str:
    """Return the decoded `d` of a local-files address, empty where there is none."""
    return parse_qs(_split(address).query).get("d", [""])[0]


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # a malformed host
        return SplitResult("", "", "", "", "")
