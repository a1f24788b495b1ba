"""Corrected pictures of which every reader can see whether a box is where it belongs: a red field in a blue picture."""

import io
from pathlib import Path

import pytest
from PIL import Image

from heatbox.corrections.corrected import Corrected, Placed
from heatbox.datasets.card import Target
from heatbox.datasets.collecting import collect
from heatbox.datasets.exporting import export
from heatbox.datasets.formats import ExportFormat
from heatbox.pictures.images import Limits

RED, BLUE = (255, 0, 0), (0, 0, 255)
SIDES = 64, 48
FIELD = 16, 8, 40, 24  # of the red pixels, xyxy: multiples of 8, so that JPEG keeps its edges
CORNERS = FIELD[0] / 64, FIELD[1] / 48, FIELD[2] / 64, FIELD[3] / 48

# How an upright picture is stored under each orientation: the inverse of what a viewer has to do.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def drawn(number: int) -> Image.Image:
    """Return a picture that no other number has."""
    image = Image.new("RGB", SIDES, BLUE)
    image.paste(RED, FIELD)
    for bit in range(12):
        if number >> bit & 1:
            image.paste((0, 255, 0), (4 * bit, 40, 4 * bit + 4, 44))
    return image


class Photos:
    """Picture files of one test, and what a person said about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corrected: list[Corrected] = []

    def save(self, name: str, orientation: int = 1) -> Path:
        """Store the next picture; its format is that of its name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image, method = drawn(len(self.corrected) + 1), STORED[orientation]
        stored = image if method is None else image.transpose(method)
        exif = Image.Exif()
        if orientation != 1:
            exif[0x0112] = orientation
        out = io.BytesIO()
        kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".tif": "TIFF"}[path.suffix]
        quality = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
        stored.save(out, kind, exif=exif, **quality, **({"lossless": True} if kind == "WEBP" else {}))
        path.write_bytes(out.getvalue())
        return path

    def add(self, name: str, label: str = "cat", orientation: int = 1, **more: object) -> Corrected:
        """Store a picture with a corrected and a predicted box of the red field."""
        return self.say(self.save(name, orientation), label, **more)

    def say(self, path: Path | str, label: str = "cat", **more: object) -> Corrected:
        """Say what is in a picture."""
        number = len(self.corrected) + 1
        known = {
            "labels": (label,),
            "boxes": (Placed(label, CORNERS),),
            "predicted": (Placed(label, CORNERS, 0.75),),
            "version": "heatbox-cam-m-0123456789",
            "annotation": number,
        }
        one = Corrected(1, number, str(path), **{**known, **more})
        self.corrected.append(one)
        return one

    def collect(self):
        """Yield examples and rejected ones."""
        return collect(self.corrected, lambda address, _: Path(address), Limits())

    def export(self, folder: Path, form: str = "jsonl", labels=("dog", "cat"), **more):
        """Write a data set and return what was written."""
        target = Target(folder, ExportFormat(form), labels, **{"project": 1, **more})
        return export(self.collect(), target, Limits())


@pytest.fixture
def photos(tmp_path):
    return Photos(tmp_path / "photos")


@pytest.fixture
def many(photos):
    """Two classes, all orientations, and formats that some readers do not know."""
    for number in range(16):
        photos.add(f"shelf/a{number}.jpg", ("cat", "dog")[number % 2], number % 8 + 1)
    for suffix in ("png", "webp", "gif", "tif"):
        photos.add(f"shelf/{suffix}.{suffix}")
    photos.add("shelf/empty.jpg", labels=(), boxes=())
    return photos
