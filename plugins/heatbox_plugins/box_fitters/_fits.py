"""What the box fitters share: option checks, components of a mask, and the order of a fit's boxes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatbox.contract import Fit
from heatbox.heatmaps import connected_components

__all__ = ["Component", "large_components", "ranked_fit", "require_count", "require_part", "require_trim"]


@dataclass(frozen=True)
class Component:
    """A part of a mask, cut out at its bounding box.

    Attributes:
        x: left edge of the cut in heatmap pixels.
        y: top edge of the cut in heatmap pixels.
        pixels: (h, w) bool, True where the component is.
    """

    x: int
    y: int
    pixels: NDArray[np.bool_]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The cut as xyxy in heatmap pixels, far edges exclusive."""
        height, width = self.pixels.shape
        return self.x, self.y, self.x + width, self.y + height

    def trimmed(self, part: float) -> tuple[int, int, int, int]:
        """Return the box without thin ends: a side moves in while at most this part of the pixels is behind it."""
        left, right = _thin_ends(self.pixels.sum(axis=0), part)
        top, bottom = _thin_ends(self.pixels.sum(axis=1), part)
        x1, y1, x2, y2 = self.box
        return x1 + left, y1 + top, x2 - right, y2 - bottom

    def peak(self, heatmap: NDArray[np.float32]) -> float:
        """Return the largest heat in the component; heatmap (H, W)."""
        x1, y1, x2, y2 = self.box
        return float(heatmap[y1:y2, x1:x2][self.pixels].max())


def large_components(mask: NDArray[np.bool_], min_area: float) -> Iterator[Component]:
    """Yield the 8-connected components of a mask (H, W) that cover at least `min_area` of it."""
    found = connected_components(mask)
    for index in np.flatnonzero(found.areas >= min_area * mask.size):
        x1, y1, x2, y2 = found.boxes[index].tolist()
        yield Component(x1, y1, found.labels[y1:y2, x1:x2] == index + 1)


def ranked_fit(mask: NDArray[np.bool_], rows: Iterable[tuple[float, ...]], max_boxes: int = 1) -> Fit:
    """Return a fit with the best boxes, ties by position.

    Args:
        mask: (H, W), what the boxes were fitted to.
        rows: (score, x1, y1, x2, y2) of each box.
        max_boxes: at most so many are kept.
    """
    ordered = sorted(rows, key=lambda row: (-row[0], row[2], row[1], row[4], row[3]))
    table = np.array(ordered[:max_boxes], dtype=np.float64).reshape(-1, 5)
    return Fit(mask, boxes=table[:, 1:], scores=table[:, 0])


def require_count(name: str, value: int) -> None:
    """Raise ValueError unless an option counts something: value >= 1."""
    if value < 1:
        msg = f"{name} must be at least 1, got {value!r}"
        raise ValueError(msg)


def require_part(name: str, value: float) -> None:
    """Raise ValueError unless an option is a part of one: 0 <= value < 1."""
    if not 0 <= value < 1:
        msg = f"{name} must be at least 0 and below 1, got {value!r}"
        raise ValueError(msg)


def require_trim(value: float) -> None:
    """Raise ValueError unless what two sides may leave outside is less than all: 0 <= value < 0.5."""
    if not 0 <= value < 0.5:  # noqa: PLR2004 - two sides
        msg = f"trim must be at least 0 and below 0.5, got {value!r}"
        raise ValueError(msg)


def _thin_ends(counts: NDArray[np.int64], part: float) -> tuple[int, int]:
    """Return how many columns at the left and at the right hold at most this part of all pixels; counts (w,)."""
    limit = part * counts.sum()
    return int((counts.cumsum() <= limit).sum()), int((counts[::-1].cumsum() <= limit).sum())
