"""Masks: which pixels of a picture belong to a find, small enough to travel, and the polygon around them.

A mask has the resolution that its boxes were fitted at and covers the whole picture. It is kept as run lengths in the
order of rows, the first of zeros, as in COCO's uncompressed form (there in the order of columns).
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Mask"]

_TOLERANCE = 0.003  # of the contour's length: how far a polygon may leave it
_CORNERS = 3
_SIDE = 512  # a contour is traced at least this large, so that its steps are small


@dataclass(frozen=True)
class Mask:
    """A bool image as run lengths.

    Attributes:
        width: in cells.
        height: in cells.
        counts: lengths of the runs, of zeros and ones in turn; their sum is width x height.
    """

    width: int
    height: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.counts) != self.width * self.height or min(self.counts, default=0) < 0:
            msg = f"{len(self.counts)} runs are no mask of {self.width} x {self.height}"
            raise ValueError(msg)

    @classmethod
    def of(cls, pixels: NDArray[np.bool_]) -> Self:
        """Return the mask of an image (h, w)."""
        flat = pixels.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        ends = [0, *changes.tolist(), flat.size]
        runs = [end - start for start, end in pairwise(ends)]
        return cls(pixels.shape[1], pixels.shape[0], (0, *runs) if flat[:1].any() else tuple(runs))

    def array(self) -> NDArray[np.bool_]:
        """Return the image (height, width)."""
        flat = np.zeros(self.width * self.height, np.bool_)
        for index, (start, end) in enumerate(pairwise(accumulate(self.counts, initial=0))):
            flat[start:end] = index % 2 == 1
        return flat.reshape(self.height, self.width)

    def scaled(self, width: int, height: int) -> NDArray[np.bool_]:
        """Return the image at another size, (height, width)."""
        pixels = cv2.resize(self.array().astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return pixels.astype(np.bool_)

    def polygon(self) -> list[tuple[float, float]]:
        """Return the outline of the largest part: x, y in parts of width and height, in [0, 1]; empty without one."""
        scale = max(1, -(-_SIDE // max(self.width, self.height)))
        width, height = self.width * scale, self.height * scale
        contours, _ = cv2.findContours(
            self.scaled(width, height).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        if not contours:
            return []
        largest = max(contours, key=cv2.contourArea)
        corners = cv2.approxPolyDP(largest, _TOLERANCE * cv2.arcLength(largest, closed=True), closed=True)
        if len(corners) < _CORNERS:
            return []
        # A contour runs through the middles of its pixels.
        return [((x + 0.5) / width, (y + 0.5) / height) for x, y in corners.reshape(-1, 2).tolist()]
