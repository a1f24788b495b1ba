"""Boxes: typed values in pixels of the upright picture, and the one conversion to Label Studio's percent.

A pixel has the extent 1 x 1: column 3 covers x in [3, 4). Boxes are xyxy with exclusive far edges, so width is x2 - x1.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "iou_matrix"]


@dataclass(frozen=True, order=True)
class Box:
    """An axis-parallel box in pixels, xyxy, far edges exclusive, never empty, inverted or without end."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        if not (0 <= self.x1 < self.x2 < math.inf and 0 <= self.y1 < self.y2 < math.inf):
            msg = f"not a box: x1={self.x1} y1={self.y1} x2={self.x2} y2={self.y2}"
            raise ValueError(msg)

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    def as_xyxy(self) -> tuple[float, float, float, float]:
        """Return (x1, y1, x2, y2) in pixels."""
        return self.x1, self.y1, self.x2, self.y2

    def iou(self, other: "Box") -> float:
        """Return intersection over union with another box, in [0, 1]."""
        return float(iou_matrix(np.array([self.as_xyxy()]), np.array([other.as_xyxy()]))[0, 0])

    @classmethod
    def clipped(cls, xyxy: tuple[float, float, float, float], width: float, height: float) -> Self | None:
        """Return the part of a raw box inside a width x height picture, or None where nothing is left."""
        x1, x2 = (min(max(float(x), 0.0), float(width)) for x in xyxy[0::2])
        y1, y2 = (min(max(float(y), 0.0), float(height)) for y in xyxy[1::2])
        return cls(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def as_percent(self, width: int, height: int) -> dict[str, float]:
        """Return x, y, width, height in percent of a width x height picture (Label Studio's region value).

        The result lies inside [0, 100] and x + width, y + height never exceed 100, also after rounding.
        """
        x, right = _percent(self.x1, width), _percent(self.x2, width)
        y, bottom = _percent(self.y1, height), _percent(self.y2, height)
        return {"x": x, "y": y, "width": _difference(right, x), "height": _difference(bottom, y)}

    @classmethod
    def from_percent(cls, value: dict[str, float], width: int, height: int) -> Self:
        """Return the box of a Label Studio region value in pixels of a width x height picture."""
        x, y = value["x"] * width / 100, value["y"] * height / 100
        return cls(x, y, x + value["width"] * width / 100, y + value["height"] * height / 100)


def iou_matrix(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return intersection over union of every pair, boxes xyxy: (A, 4), (B, 4) -> (A, B)."""
    a, b = first.astype(np.float64)[:, None, :], second.astype(np.float64)[None, :, :]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    overlap = sides.prod(axis=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    union = areas - overlap
    iou: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def _percent(pixels: float, side: int) -> float:
    """Return pixels as percent of a side, with the six decimals that keep a 100,000-pixel side exact to 0.001 pixel."""
    return round(min(max(100 * pixels / side, 0.0), 100.0), 6)


def _difference(far: float, near: float) -> float:
    """Return far - near such that near plus the result never exceeds far in floating point."""
    width = round(far - near, 6)
    return width if near + width <= far else width - math.ulp(far)
