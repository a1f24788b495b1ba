"""Evidence as numbers that rules compare: one tensor per target, how far two are apart, heat inside a box."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatbox.contract import Evidence
from heatbox.heatmaps import normalise, resize

__all__ = ["difference", "finite", "inside_and_outside", "rows_of", "stretched"]

_EDGE = 0.02  # of a mask, as 1 - IoU: a pixel on the threshold may fall to either side


def rows_of(evidence: Evidence) -> list[Tensor]:
    """Return one tensor per target: its heatmap, its mask, or its boxes beside their scores (B, 5)."""
    if evidence.heatmaps is not None:
        return list(evidence.heatmaps.detach())
    if evidence.masks is not None:
        return list(evidence.masks)
    pairs = zip(evidence.boxes or (), evidence.scores or (), strict=True)
    return [torch.cat([boxes, scores[:, None]], dim=1).detach() for boxes, scores in pairs]


def finite(row: Tensor) -> bool:
    """Return whether a row holds neither NaN nor infinity."""
    return bool(row.isfinite().all())


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the largest difference of any row: as part of the row's largest value, of masks as 1 - IoU.

    Masks that differ in a few pixels of their edge count as equal. Rows of different shapes, or with NaN, are
    infinitely far apart.
    """
    return max(_difference(a, b) for a, b in zip(first, second, strict=True))


def stretched(row: Tensor) -> Tensor:
    """Return a heatmap divided by its maximum: the same heat times a number is the same map; other rows as they are."""
    return row / row.amax().clamp_min(1e-12) if row.is_floating_point() and row.numel() else row


def inside_and_outside(
    evidence: Evidence, row: int, place: tuple[int, int, int, int], side: int
) -> tuple[float, float]:
    """Return the mean heat inside and outside a box (xyxy, input pixels) of a map stretched to [0, 1]."""
    heat = normalise(np.clip(_heat(evidence, row, side), 0, None), "minmax")
    x1, y1, x2, y2 = place
    inside = np.zeros(heat.shape, bool)
    inside[y1:y2, x1:x2] = True
    return float(heat[inside].mean()), float(heat[~inside].mean())


def _difference(first: Tensor, second: Tensor) -> float:
    if first.shape != second.shape or not (finite(first) and finite(second)):
        return float("inf")
    if first.numel() == 0:
        return 0.0
    if first.dtype == torch.bool:
        apart = float((first ^ second).sum()) / max(int((first | second).sum()), 1)
        return apart if apart > _EDGE else 0.0
    scale = max(float(first.abs().max()), float(second.abs().max()), 1e-12)
    return float((first - second).abs().max()) / scale


def _heat(evidence: Evidence, row: int, side: int) -> NDArray[np.float32]:
    """Return one target's evidence as a map of the input's size (side, side)."""
    values = rows_of(evidence)[row].float().cpu().numpy()
    if evidence.boxes is None:
        return resize(values, side, side)
    heat = np.zeros((side, side), np.float32)
    for *corners, score in values:
        x1, y1, x2, y2 = np.clip(np.round(corners), 0, side).astype(int)
        heat[y1:y2, x1:x2] = np.maximum(heat[y1:y2, x1:x2], score)
    return heat
