"""Heatmap arithmetic: from raw evidence to values in [0, 1], to another resolution, to connected components.

Normalisation changes boxes: at the same threshold the boxes of 'max' (the Grad-CAM paper, 15 % of the
maximum) and of 'minmax' (most toolkits) overlap with an IoU of only about 0.8, so it is a named option of
the pipeline.
"""

from dataclasses import dataclass
from typing import assert_never

import cv2
import numpy as np
from numpy.typing import NDArray

from heatbox.errors import EvidenceError
from heatbox.pipeline import Normalisation

__all__ = ["ConnectedComponents", "connected_components", "normalise", "resize"]

# Up to so many labels, looking at components one by one is up to 5 times faster than OpenCV's statistics of all.
_FEW = 16


@dataclass(frozen=True)
class ConnectedComponents:
    """The 8-connected components of a mask, in OpenCV's order, which is always the same for the same mask.

    Attributes:
        labels: (H, W) int32, 0 = background, i + 1 = component i.
        boxes: (K, 4) int64, xyxy in mask pixels, far edges exclusive.
        areas: (K,) int64, pixels of each component.
    """

    labels: NDArray[np.int32]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]


def normalise(heatmap: NDArray[np.floating], how: Normalisation) -> NDArray[np.float32]:
    """Bring a heatmap to [0, 1]: (h, w) -> (h, w).

    Args:
        heatmap: raw evidence of one target.
        how: 'max' clips negative evidence and divides by the maximum (all zeros where no value is positive);
            'minmax' is (m - min) / (max - min) (all zeros where the map is constant).

    Raises:
        EvidenceError: the heatmap is not a map, or holds a value that is not finite.
    """
    _check(heatmap)
    values = heatmap.astype(np.float64)
    match how:
        case "max":
            values = np.clip(values, 0.0, None)
        case "minmax":
            values -= values.min()
        case _:
            assert_never(how)
    peak = values.max()
    return (values / peak if peak > 0 else np.zeros_like(values)).astype(np.float32)


def resize(heatmap: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Interpolate a heatmap bicubically: (h, w) -> (height, width).

    Pixel centres are at half coordinates and edges are extended (`align_corners=False` in torch), so box
    coordinates scale with the plain ratio of the sides. No value leaves the range of the heatmap. Bicubic, as
    in the evaluation of Choe et al.: on 523 real pictures its boxes reach IoU 0.7 a little more often than
    bilinear ones (MaxBoxAcc .306 against .300, mobilenet_v2 at 320 pixels).
    """
    scaled = cv2.resize(heatmap, (width, height), interpolation=cv2.INTER_CUBIC)
    return scaled.clip(heatmap.min(), heatmap.max()).astype(np.float32, copy=False)


def connected_components(mask: NDArray[np.bool_]) -> ConnectedComponents:
    """Find the 8-connected components of a mask (H, W)."""
    pixels = mask.view(np.uint8)
    count, labels = cv2.connectedComponents(pixels, connectivity=8)
    if count <= _FEW:
        parts = [(labels == label).view(np.uint8) for label in range(1, count)]
        stats = np.array([(*cv2.boundingRect(part), cv2.countNonZero(part)) for part in parts]).reshape(-1, 5)
    else:
        stats = cv2.connectedComponentsWithStats(pixels, connectivity=8)[2][1:]
    stats = stats.astype(np.int64)
    corners, sides, areas = stats[:, :2], stats[:, 2:4], stats[:, 4]
    return ConnectedComponents(
        labels.astype(np.int32, copy=False), np.hstack([corners, corners + sides]), areas
    )


def _check(heatmap: NDArray[np.floating]) -> None:
    remedy = "Correct the explainer, or choose another one: `heatbox explainers` lists them."
    if heatmap.ndim != 2 or heatmap.size == 0:  # noqa: PLR2004 - height and width
        raise EvidenceError(
            f"A heatmap has height and width, this one has the shape {heatmap.shape}.", remedy
        )
    finite = np.isfinite(heatmap)
    if not finite.all():
        wrong = heatmap[~finite]
        raise EvidenceError(
            f"The heatmap holds {wrong.size} values that are not finite, {wrong[0]} first.", remedy
        )
