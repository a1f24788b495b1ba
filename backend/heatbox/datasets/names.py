"""Names that are safe on every file system: of pictures, made from their addresses, and of folders, made from labels.

Two names count as the same where a file system might take them for one: in upper or lower case, or composed otherwise.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from heatbox.pictures.images import PICTURE_SUFFIXES

__all__ = ["Names", "called", "folder_names", "stem_of"]

_MOST_BYTES = 120  # of a name before a hash is added; file systems take 255
_SHORT = 8  # hexadecimal digits of a hash that are usually enough
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # of Windows
_NOT_IN_STEMS = re.compile(r"[^\w-]+")  # a dot would end the key of a webdataset
_NOT_IN_FOLDERS = re.compile(r"[^\w .()+&',=@#-]+")


class Names:
    """Gives each picture a name that no other has, the same whatever the order they come in, as far as that goes.

    Args:
        addresses: of all pictures; where two lead to one name, both get a part of their content's hash.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        self._often = Counter(_form(stem_of(address)) for address in set(addresses))
        self._taken: set[str] = set()

    def name(self, address: str, sha256: str, suffix: str) -> str:
        """Return a name with the suffix; no other has its stem."""
        stem = stem_of(address)
        is_plain = self._often[_form(stem)] <= 1 and not _DEVICES.fullmatch(stem)
        found = _free(stem, sha256, self._taken, plain=is_plain)
        self._taken.add(_form(found))
        return found + suffix


def stem_of(address: str) -> str:
    """Return the file name in an address without its extension: letters, digits, `_` and `-`, never empty."""
    stem = PurePosixPath(_path(address).replace("\0", "")).stem
    cleaned = _NOT_IN_STEMS.sub("_", unicodedata.normalize("NFC", stem)).strip("_-")
    return _cut(cleaned) or "picture"


def called(address: str) -> str:
    """Return what a picture without a name of its own is called; nothing secret of its address is in it."""
    suffix = PurePosixPath(_path(address)).suffix.lower()
    return stem_of(address) + (suffix if suffix in PICTURE_SUFFIXES else "")


def folder_names(labels: Sequence[str]) -> dict[str, str]:
    """Return the folder of each label: the label itself where it can be one, else what is left of it and its hash.

    A label keeps its folder when others are appended.
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        cleaned = _cut(_NOT_IN_FOLDERS.sub("_", unicodedata.normalize("NFC", label))).strip(" .")
        is_plain = cleaned == label and not _DEVICES.fullmatch(label)
        digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()
        folders[label] = _free(cleaned or "label", digest, taken, plain=is_plain)
        taken.add(_form(folders[label]))
    return folders


def _free(name: str, digest: str, taken: set[str], *, plain: bool) -> str:
    return next(one for one in _candidates(name, digest, plain=plain) if _form(one) not in taken)


def _candidates(name: str, digest: str, *, plain: bool) -> Iterator[str]:
    if plain:
        yield name
    for length in range(_SHORT, len(digest) + 1):
        yield f"{name}-{digest[:length]}"


def _form(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _cut(name: str) -> str:
    return name.encode(errors="ignore")[:_MOST_BYTES].decode(errors="ignore")


def _path(address: str) -> str:
    """Return the path in an address, decoded; empty where the picture itself stands in it."""
    try:
        parts = urlsplit(address)
    except ValueError:  # a malformed host
        return ""
    if parts.scheme == "data":
        return ""
    named = parse_qs(parts.query).get("d") if parts.path.rstrip("/").endswith("/data/local-files") else None
    if named:
        return named[0]
    return unquote(parts.path) if parts.scheme else address
