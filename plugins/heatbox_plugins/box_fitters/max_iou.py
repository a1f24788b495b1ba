"""The rectangle that agrees best with the mask: no other rectangle has a larger IoU with it.

    R* = argmax_R I / (|M| + N),    M mask, R rectangle, I = |R & M|, N = |R - M| (pixels)

Exact, in whole numbers. With p / q the best IoU so far, a rectangle is better if and only if its weight q I
- p N exceeds p |M| (Dinkelbach, On Nonlinear Fractional Programming, 1967). The heaviest columns of a strip
of rows come from Kadane's rule, for many strips at once. Strips are searched from coarse to fine: a block
of strips is dropped when even I of its tallest and N of its shortest strip make no better rectangle (the
bound of Lampert et al., Efficient Subwindow Search, TPAMI 2009). The best IoU only grows, so what was
dropped stays dropped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatbox.contract import Fit
from heatbox_plugins.box_fitters._fits import (
    Component,
    large_components,
    ranked_fit,
    require_count,
    require_part,
)

__all__ = ["MaxIoU", "max_iou_rectangle"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MaxIoU:
    """Exact maximum-IoU rectangle of the mask, or of each of its components.

    Attributes:
        threshold: the mask is heat above this part of the map's maximum.
        per_component: fit one rectangle to each connected component instead of one to the whole mask.
        min_area: smaller components are dropped, as part of the map's area; only with `per_component`.
        max_boxes: at most so many boxes; only with `per_component`.
    """

    threshold: float = 0.2
    per_component: bool = False
    min_area: float = 0.005
    max_boxes: int = 10

    def __post_init__(self) -> None:
        require_part("threshold", self.threshold)
        require_part("min_area", self.min_area)
        require_count("max_boxes", self.max_boxes)

    def __call__(self, heatmap: NDArray[np.float32]) -> Fit:
        """Fit rectangles to a heatmap (H, W) in [0, 1]; a score is the peak of what the box was fitted to."""
        mask = heatmap > self.threshold
        if self.per_component:
            parts = list(large_components(mask, self.min_area))
        else:
            parts = [Component(0, 0, mask)] if mask.any() else []
        return ranked_fit(mask, [_row(part, heatmap) for part in parts], self.max_boxes)


def max_iou_rectangle(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the rectangle with the largest IoU with a mask (H, W) that is not empty, xyxy."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    part = mask[y : rows[-1] + 1, x : columns[-1] + 1]
    if part.shape[0] <= part.shape[1]:  # pairs of rows are searched: fewer rows, fewer pairs
        best = _search(part)
        return x + best.left, y + best.top, x + best.right, y + best.bottom
    best = _search(part.T)
    return x + best.top, y + best.left, x + best.bottom, y + best.right


def _row(part: Component, heatmap: NDArray[np.float32]) -> tuple[float, ...]:
    x1, y1, x2, y2 = max_iou_rectangle(part.pixels)
    return part.peak(heatmap), part.x + x1, part.y + y1, part.x + x2, part.y + y2


@dataclass(frozen=True)
class _Rectangle:
    """Rows top to bottom, columns left to right (far edges exclusive), and its IoU with the mask, p / q."""

    top: int
    bottom: int
    left: int
    right: int
    p: int
    q: int


@dataclass(frozen=True)
class _Counts:
    """Mask pixels: `above[x, y]` of them in column x above row y, `before[y, x]` in row y before column x."""

    above: Ints
    before: Ints
    total: int


def _search(mask: NDArray[np.bool_]) -> _Rectangle:
    above, before = (np.pad(m.cumsum(axis=1), ((0, 0), (1, 0))) for m in (mask.T, mask))
    counts = _Counts(np.ascontiguousarray(above), np.ascontiguousarray(before), int(mask.sum()))
    height, width = mask.shape
    best = _climb(counts, _Rectangle(0, height, 0, width, counts.total, mask.size), 0, height)
    step = 1 << max(0, height.bit_length() - 4)
    tops, bottoms = (axis.ravel() for axis in np.mgrid[0 : height + 1 : step, 0 : height + 1 : step])
    while True:
        weights = _heaviest(counts, best, tops, bottoms, step)
        kept = weights > best.p * counts.total
        if not kept.any():
            return best
        heaviest = int(weights.argmax())
        best = _climb(counts, best, int(tops[heaviest]), min(int(bottoms[heaviest]) + step - 1, height))
        tops, bottoms = tops[kept], bottoms[kept]
        if step > 1:
            step //= 2
            tops, bottoms = _split(tops, bottoms, step, height)


def _heaviest(counts: _Counts, best: _Rectangle, tops: Ints, bottoms: Ints, step: int) -> Ints:
    """Bound the weight of every rectangle in blocks of strips; exact where the step is 1.

    Args:
        counts: of the mask.
        best: sets the weights, q for a mask pixel and -p for another.
        tops: (B,) a block's strips begin at rows top ... top + step - 1.
        bottoms: (B,) and end before rows bottom ... bottom + step - 1.
        step: rows of a block's side.

    Returns:
        (B,) weights; 0 for the empty rectangle.
    """
    last = counts.before.shape[0]
    outer = tops, np.minimum(bottoms + step - 1, last)
    inner = np.minimum(tops + step - 1, bottoms), bottoms
    gains, losses = best.q * counts.above, best.p * (np.arange(last + 1) - counts.above)
    running, heaviest = np.zeros((2, len(tops)), dtype=np.int64)
    for gain, loss in zip(gains, losses, strict=True):
        np.maximum(running, 0, out=running)
        running += gain[outer[1]] - gain[outer[0]] - loss[inner[1]] + loss[inner[0]]
        np.maximum(heaviest, running, out=heaviest)
    return heaviest


def _split(tops: Ints, bottoms: Ints, step: int, height: int) -> tuple[Ints, Ints]:
    """Split each block into the four of half its side, without those that hold no strip."""
    tops = np.concatenate([tops, tops, tops + step, tops + step])
    bottoms = np.concatenate([bottoms, bottoms + step, bottoms, bottoms + step])
    held = (bottoms <= height) & (np.minimum(bottoms + step - 1, height) > tops)
    return tops[held], bottoms[held]


def _climb(counts: _Counts, best: _Rectangle, top: int, bottom: int) -> _Rectangle:
    """Improve on the best rectangle from a strip of rows: best columns, best rows for them, and so on."""
    while True:
        column = counts.above[:, bottom] - counts.above[:, top]
        left, right = _heaviest_span(best.q * column - best.p * (bottom - top - column))
        row = counts.before[:, right] - counts.before[:, left]
        top, bottom = _heaviest_span(best.q * row - best.p * (right - left - row))
        inside = int(row[top:bottom].sum())
        union = counts.total + (bottom - top) * (right - left) - inside
        if inside * best.q <= best.p * union:
            return best
        best = _Rectangle(top, bottom, left, right, inside, union)


def _heaviest_span(weights: Ints) -> tuple[int, int]:
    """Return begin and end of the heaviest run of consecutive weights (Kadane), far end exclusive."""
    sums = np.concatenate([[0], weights.cumsum()])
    end = int((sums - np.minimum.accumulate(sums)).argmax())
    return int(sums[: end + 1].argmin()), end
