"""Pascal VOC: one XML per picture, edges in whole pixels, the first pixel is 1 and both edges belong to the box.

Section 3 of the VOC2012 development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf. Its pictures
are JPEG files, so others are written anew as such.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from heatbox.boxes import Box
from heatbox.datasets.examples import SPLITS, Example, Marked
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.writing import Writer, append, write

__all__ = ["VocWriter", "voc_xml"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ROOT = Path("VOCdevkit") / "VOC2012"
_SETS = Path("ImageSets") / "Main"


class VocWriter(Writer):
    """Writes `VOCdevkit/VOC2012` with `JPEGImages`, `Annotations`, `Predicted` and `ImageSets/Main`."""

    accepted = frozenset({".jpg"})
    wants_boxes = True
    how = (
        "torchvision.datasets.VOCDetection(DIR, '2012', 'train'), or 'val' or 'trainval'; its reader knows no 'test'\n"
        "of 2012, whose names are in ImageSets/Main/test.txt. Predicted/ has what had been predicted, with scores.\n"
    )

    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write picture, boxes and predictions, and its name into the lists."""
        name, content = picture.file(self.accepted)
        root, stem = self.folder / _ROOT, Path(name).stem
        write(root / "JPEGImages" / name, content)
        size = example.width, example.height
        for folder, boxes in (("Annotations", example.boxes or ()), ("Predicted", example.predicted)):
            write(root / folder / f"{stem}.xml", voc_xml(name, size, _objects(boxes), "heatbox export"))
        for listed in (example.split, *(() if example.split == "test" else ("trainval",))):
            append(root / _SETS / f"{listed}.txt", f"{stem}\n")

    def finish(self) -> Mapping[str, Any]:
        """Make the lists that nothing is in."""
        for listed in (*SPLITS, "trainval"):
            append(self.folder / _ROOT / _SETS / f"{listed}.txt", "")
        return {}


def voc_xml(
    picture: str, size: tuple[int, int], objects: Iterable[tuple[str, Box, float | None]], source: str
) -> str:
    """Return the XML of a picture.

    Args:
        picture: file name.
        size: width and height in pixels.
        objects: labels, boxes and perhaps scores.
        source: what made the boxes.
    """
    width, height = size
    rows = "".join(_object(label, box, score, size) for label, box, score in objects)
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{_xml(picture)}</filename>\n"
        f"  <source><database>{_xml(source)}</database></source>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{rows}</annotation>\n"
    )


def _objects(boxes: Iterable[Marked]) -> Iterable[tuple[str, Box, float | None]]:
    return ((one.label, one.box, one.score) for one in boxes)


def _object(label: str, box: Box, score: float | None, size: tuple[int, int]) -> str:
    (xmin, xmax), (ymin, ymax) = (
        _edges(box.x1, box.x2, size[0]),
        _edges(box.y1, box.y2, size[1]),
    )
    scored = "" if score is None else f"    <score>{score:.6f}</score>\n"
    return (
        f"  <object>\n    <name>{_xml(label)}</name>\n    <pose>Unspecified</pose>\n"
        "    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
        f"    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>\n"
        f"{scored}  </object>\n"
    )


def _edges(near: float, far: float, side: int) -> tuple[int, int]:
    """Return the first and the last pixel of [near, far), counted from 1: at least one pixel."""
    first = min(round(near), side - 1) + 1
    return first, max(round(far), first)


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
