"""Variants of a picture to learn from: as it is, mirrored, and cut out; its boxes go with it.

A variant depends on the picture's content and its number alone, so features of it can be kept.
"""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatbox.boxes import Box
from heatbox.datasets.examples import Example

__all__ = ["VARIANTS", "Variant", "variant"]

VARIANTS = 4
_SMALLEST_CUT = 0.7  # of a side
_VISIBLE = 0.4  # part of a box that must be left

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Variant:
    """How a picture is learnt from, without its pixels.

    Attributes:
        labels: what is in it, as far as is known.
        boxes: label and corners in parts of the variant's sides; None: nobody said where.
        cut: corners in parts of the picture's sides.
        is_mirrored: left and right are exchanged, after it was cut.
    """

    labels: tuple[str, ...]
    boxes: tuple[tuple[str, Corners], ...] | None
    cut: Corners
    is_mirrored: bool

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the variant's pixels: (h, w, 3) of the whole picture, perhaps reduced -> (h', w', 3), a view."""
        height, width = pixels.shape[:2]
        left, top, right, bottom = self.cut
        part = pixels[
            round(top * height) : round(bottom * height), round(left * width) : round(right * width)
        ]
        return part[:, ::-1] if self.is_mirrored else part


def variant(example: Example, number: int) -> Variant:
    """Return a variant: 0 as it is, 1 mirrored, else cut out at a place of its own, every other one mirrored.

    Args:
        example: knows the boxes, in pixels of the whole picture.
        number: from 0.
    """
    cut = _cut(example.sha256, number) if number > 1 else (0.0, 0.0, 1.0, 1.0)
    is_mirrored = number % 2 == 1
    if example.boxes is None:
        return Variant(example.labels, None, cut, is_mirrored)
    sides = example.width, example.height
    placed = [(one.label, _within(one.box, sides, cut)) for one in example.boxes]
    kept = tuple((label, corners) for label, corners in placed if corners is not None)
    lost = {label for label, _ in placed} - {label for label, _ in kept}
    labels = tuple(label for label in example.labels if label not in lost)
    if is_mirrored:
        kept = tuple((label, (1 - x2, y1, 1 - x1, y2)) for label, (x1, y1, x2, y2) in kept)
    return Variant(labels, kept, cut, is_mirrored)


def _cut(sha256: str, number: int) -> Corners:
    drawn = random.Random(f"{sha256} {number}")  # noqa: S311 - no secret
    side = _SMALLEST_CUT + (1 - _SMALLEST_CUT) * drawn.random()
    left, top = drawn.random() * (1 - side), drawn.random() * (1 - side)
    return left, top, left + side, top + side


def _within(box: Box, sides: tuple[int, int], cut: Corners) -> Corners | None:
    """Return the box in parts of the cut's sides; None where too little of it is left."""
    left, top, right, bottom = cut
    x1, x2 = ((x / sides[0] - left) / (right - left) for x in (box.x1, box.x2))
    y1, y2 = ((y / sides[1] - top) / (bottom - top) for y in (box.y1, box.y2))
    inside = tuple(min(max(side, 0.0), 1.0) for side in (x1, y1, x2, y2))
    area = max(inside[2] - inside[0], 0.0) * max(inside[3] - inside[1], 0.0)
    return inside if area > 0 and area >= _VISIBLE * (x2 - x1) * (y2 - y1) else None  # type: ignore[return-value]
