"""Pictures in, the one door to Pillow: a file becomes upright 8-bit RGB pixels, or a PictureError tells why.

The header is checked before anything is decoded: a small file that announces 400 megapixels costs nothing.
"Upright" is what a browser shows, because people correct the boxes there: the EXIF orientation (CIPA DC-008,
Exif 2.32, tag 0x0112) of JPEG, PNG and WebP is applied once, one in XMP is not. Pillow turns TIFF upright.

Pillow and not OpenCV: it reads CMYK, 16 bit, GIF, palettes and EXIF. ICC profiles are not applied.
"""

import io
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

# The imports of the plugins register the formats; without them Pillow would load every decoder that it has.
from PIL import (
    BmpImagePlugin,  # noqa: F401 - registers BMP
    GifImagePlugin,  # noqa: F401 - registers GIF
    Image,
    JpegImagePlugin,  # noqa: F401 - registers JPEG
    PngImagePlugin,  # noqa: F401 - registers PNG
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401 - registers WebP
)

from heatbox.errors import (
    HeatboxError,
    PictureError,
    PictureFormatError,
    PictureNotFoundError,
    PictureTooLargeError,
    PictureUnreadableError,
)
from heatbox.settings import Settings

__all__ = ["PICTURE_SUFFIXES", "Limits", "Picture", "read_picture", "read_picture_bytes"]

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_SUPPORTED = "Convert it to JPEG, PNG, WebP, BMP, TIFF or GIF."
_CHECK = "Check that it opens in an image viewer, or fetch it again."

# What the first bytes say about files that are pictures, but none of ours.
_FOREIGN = (
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypavi", "AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = frozenset({5, 6, 7, 8})  # orientations that exchange width and height

# Once, at import, for the whole process: our limits replace Pillow's bomb check, which would fire below them,
# and Pillow's remarks about odd metadata say nothing to a person who annotates pictures.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class Limits:
    """The largest picture that is read: bytes of the file, pixels, and pixels of the longer side."""

    max_bytes: int = Settings.model_fields["max_bytes"].default
    max_pixels: int = Settings.model_fields["max_pixels"].default
    max_side: int = Settings.model_fields["max_side"].default

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the limits that the settings name."""
        return cls(settings.max_bytes, settings.max_pixels, settings.max_side)


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, contiguous, writable; the whole picture, perhaps at a reduced size.
        width: of the upright picture before reduction, in pixels.
        height: of the upright picture before reduction, in pixels.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def read_picture(path: Path, limits: Limits, *, at_least: int | None = None) -> Picture:
    """Read a picture file upright, in 8-bit RGB.

    Args:
        path: a file; JPEG, PNG, WebP, BMP, TIFF (first page) or GIF (first frame).
        limits: checked before anything is decoded.
        at_least: side in pixels that the network needs. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size
            where its shorter side stays as long as that; sides are rounded up, so the scale is exact to one
            reduced pixel. None: every pixel.

    Raises:
        PictureError: the file cannot be used; the message has its name without the folder.
    """
    name = path.name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise PictureUnreadableError(f"{name!r} is {kind}.", "Name a picture file.")
        _check_bytes(status.st_size, limits, name)
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureNotFoundError(f"There is no file {name!r}.", "Check the path.") from error
    except OSError as error:
        raise PictureUnreadableError(
            f"{name!r} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    return read_picture_bytes(content, limits, at_least=at_least, name=name)


def read_picture_bytes(
    content: bytes, limits: Limits, *, at_least: int | None = None, name: str = "picture"
) -> Picture:
    """Read the content of a picture file; `name` stands in the messages. See `read_picture`."""
    _check_bytes(len(content), limits, name)
    canvas = _webp_canvas(content)
    if canvas:  # Pillow allocates a WebP's canvas before it tells its size
        _check_size(canvas, limits, name)
    with _told(name, content), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        size = image.size
        _check_size(size, limits, name)
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile may be larger than its picture
            _check_size((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)), limits, name)
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        reduced = image.size != size
        image.load()
        size = size if reduced else image.size  # loading turns a TIFF upright
        orientation = _orientation(image)
        rgb = _rgb(image) if orientation == 1 else _rgb(image).transpose(_UPRIGHT[orientation])
        width, height = reversed(size) if orientation in _LYING else size
        return Picture(np.array(rgb), width, height)


@contextmanager
def _told(name: str, content: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile or damaged bytes into a PictureError."""
    try:
        yield
    except HeatboxError:
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(name, content) from error
    except MemoryError as error:
        raise PictureTooLargeError(
            f"{name!r} needs more memory than there is.", "Reduce it, or lower HEATBOX_MAX_PIXELS."
        ) from error
    except Exception as error:  # the edge to the decoders: damaged bytes make them raise almost anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise PictureUnreadableError(f"{name!r} is damaged or cut off: {reason}.", _CHECK) from error


def _unidentified(name: str, content: bytes) -> PictureError:
    """Say why no decoder took the file."""
    if not content:
        return PictureUnreadableError(f"{name!r} is empty.", _CHECK)
    for offset, magic, kind in _FOREIGN:
        if content.startswith(magic, offset):
            return PictureFormatError(f"{name!r} is {kind}, which is not supported.", _SUPPORTED)
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return PictureFormatError(
            f"{name!r} is a TIFF whose pixel type is not supported, or whose header is damaged.",
            "Save it with 8 or 16 bits per channel.",
        )
    return PictureUnreadableError(f"{name!r} is not a picture, or its header is damaged.", _CHECK)


def _check_bytes(count: int, limits: Limits, name: str) -> None:
    """Refuse a file that is too long."""
    if count > limits.max_bytes:
        raise PictureTooLargeError(
            f"{name!r} has {count:,} bytes; the limit is {limits.max_bytes:,}.",
            "Reduce the picture, or raise HEATBOX_MAX_BYTES.",
        )


def _check_size(size: tuple[int, int], limits: Limits, name: str) -> None:
    """Refuse a width and height in pixels that are too large."""
    width, height = size
    reasons = (
        (width * height, limits.max_pixels, "pixels", "HEATBOX_MAX_PIXELS"),
        (max(size), limits.max_side, "pixels on its longer side", "HEATBOX_MAX_SIDE"),
    )
    for value, limit, unit, setting in reasons:
        if value > limit:
            raise PictureTooLargeError(
                f"{name!r} is {width} x {height}: {value:,} {unit}, and the limit is {limit:,}.",
                f"Reduce the picture, or raise {setting}.",
            )


def _webp_canvas(content: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels from a WebP header (RFC 9649, section 2), None for other files."""
    kind = content[12:16] if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else b""
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        sides = int.from_bytes(content[26:28], "little"), int.from_bytes(content[28:30], "little")
        return sides[0] & 0x3FFF, sides[1] & 0x3FFF
    return None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or the block is damaged.

    Read here and not by `Image.getexif`, which warns and raises on damaged blocks and falls back to XMP. A
    TIFF has no such block: it came upright from `load`.
    """
    block = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, start)
        for position in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", block, position)
            if (tag, kind, count) == (0x0112, 3, 1):
                return int(value) if value in _UPRIGHT else 1
    except struct.error:
        pass
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB: alpha on white, 16-bit grey by its high byte, 32-bit grey by its extremes."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        return Image.fromarray(_stretched(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretched(values: NDArray[np.int32] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Spread values of no known range over 0 to 255; what is not finite, and a constant picture, become 0."""
    finite = np.isfinite(values)
    known = values[finite].astype(np.float64)
    low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
    stretched = np.zeros(values.shape, np.uint8)
    if high > low:
        stretched[finite] = ((known - low) * (255 / (high - low))).round()
    return stretched
