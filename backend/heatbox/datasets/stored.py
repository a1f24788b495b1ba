"""How a picture file is stored, and what of it is handed on: the file itself, or its upright pixels written anew.

Boxes are of the upright picture. A reader that heeds the orientation of a file and one that does not must both see
that, so a file goes on as it is only where nothing in it speaks of another orientation: EXIF, XMP or a TIFF's tag.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from heatbox.boxes import Box
from heatbox.datasets.examples import Example
from heatbox.errors import PictureNotFoundError, PictureUnreadableError
from heatbox.pictures.images import Limits, read_picture_bytes

__all__ = ["ANY", "OpenPicture", "digest_of", "stored_as"]

ANY = frozenset({".jpg", ".png", ".webp", ".bmp", ".tif"})
"""What readers of picture folders know; GIF is not among it."""

_SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
}
_FORMATS = [name for name in _SUFFIXES if name != "MPO"]  # a JPEG with further pictures behind it
_ORIENTATION = 0x0112
_QUALITY = 95


def stored_as(path: Path) -> tuple[str, bool]:
    """Return the suffix of a readable picture's format, and whether nothing in it says that it is to be turned.

    A file with metadata that a reader may stumble over counts as one to be turned: it is written anew without them.
    """
    with Image.open(path, formats=_FORMATS) as image:
        suffix = _SUFFIXES[image.format or ""]
        try:
            with warnings.catch_warnings(action="error"):
                return suffix, image.getexif().get(_ORIENTATION, 1) == 1
        except Exception:  # noqa: BLE001 - the edge to the decoders: damaged metadata make them raise almost anything
            return suffix, False


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex.

    Raises:
        PictureUnreadableError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PictureUnreadableError(
            f"{path.name!r} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error


@dataclass(frozen=True)
class OpenPicture:
    """The content of an example's file.

    Attributes:
        example: whose it is.
        content: of the file.
        limits: for decoding it.
    """

    example: Example
    content: bytes
    limits: Limits

    @classmethod
    def read(cls, example: Example, limits: Limits) -> "OpenPicture":
        """Read the file.

        Raises:
            PictureNotFoundError: it is gone, or has another content than when it was looked at.
        """
        try:
            content = example.path.read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != example.sha256:
            raise PictureNotFoundError(
                f"{example.name!r} is gone, or has changed while the data set was written.", "Try again."
            )
        return cls(example, content, limits)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Upright: (h, w, 3) RGB."""
        return read_picture_bytes(self.content, self.limits, name=self.example.name).pixels

    def file(self, accepted: frozenset[str] = ANY) -> tuple[str, bytes]:
        """Return the name and content to write: as it is where that can be, else upright as JPEG or PNG.

        Args:
            accepted: suffixes that the readers of the data set know, `.jpg` at least.
        """
        name = PurePath(self.example.name)
        if self.example.is_upright and name.suffix in accepted:
            return name.name, self.content
        suffix = ".jpg" if name.suffix == ".jpg" or ".png" not in accepted else ".png"
        return name.with_suffix(suffix).name, _encoded(self.pixels, suffix)

    def crop(self, box: Box) -> tuple[str, bytes]:
        """Return the suffix and content of what is inside a box, pixels that it only touches included."""
        x1, y1, x2, y2 = (int(edge) for edge in (box.x1, box.y1, np.ceil(box.x2), np.ceil(box.y2)))
        suffix = ".png" if self.example.name.endswith(".png") else ".jpg"
        return suffix, _encoded(self.pixels[y1:y2, x1:x2], suffix)


def _encoded(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """Return pixels as JPEG, colours at full resolution, or as PNG."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    if suffix == ".jpg":
        image.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    else:
        image.save(out, "PNG")
    return out.getvalue()
