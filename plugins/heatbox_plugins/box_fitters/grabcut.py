"""GrabCut: boxes of hot components, refined by the colours of the picture."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from heatbox.boxes import iou_matrix
from heatbox.contract import Fit
from heatbox_plugins.box_fitters._fits import (
    Component,
    large_components,
    ranked_fit,
    require_count,
    require_part,
    require_trim,
)

__all__ = ["GrabCut"]

_SEED = 0  # of the colour clusters, which OpenCV draws from its own generator


@dataclass(frozen=True)
class GrabCut:
    """A box between the hot component and what GrabCut makes of it (Rother, Kolmogorov, Blake, SIGGRAPH 2004).

    Of every component of the heat above the threshold, GrabCut is told: outside its widened box is background, its
    hottest cells are foreground, the rest of it probably foreground, the rest of the widened box probably background.
    One iteration, as in LayerCAM's localisation, cuts the picture at its colour edges. The new box is the mean of both
    boxes, thin ends of both taken off; where they overlap too little, GrabCut ran away and the component's box stays.

    Source: GrabCut: interactive foreground extraction using iterated graph cuts, https://doi.org/10.1145/1015706.1015720

    Attributes:
        threshold: the mask is heat above this part of the map's maximum.
        min_area: smaller components are dropped, as part of the map's area.
        max_boxes: at most so many boxes, the hottest first.
        trim: see `components`.
        core: heat above this part of the maximum is foreground for sure.
        padding: the component's box is widened by this part of its sides.
        agreement: IoU of both boxes below which the component's box stays.
        side: of the square that is cut, in pixels; the time grows with its square.
    """

    threshold: float = 0.2
    min_area: float = 0.005
    max_boxes: int = 10
    trim: float = 0.02
    core: float = 0.8
    padding: float = 0.3
    agreement: float = 0.4
    side: int = 112
    needs_picture: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("threshold", "min_area", "core", "padding", "agreement"):
            require_part(name, getattr(self, name))
        require_trim(self.trim)
        require_count("max_boxes", self.max_boxes)
        require_count("side", self.side)

    def __call__(self, heatmap: NDArray[np.float32], picture: NDArray[np.uint8]) -> Fit:
        """Fit boxes to a heatmap (H, W) in [0, 1] over its picture (H, W, 3) RGB; a score is its component's peak."""
        size = min(self.side, *heatmap.shape)
        small = cv2.resize(heatmap, (size, size), interpolation=cv2.INTER_AREA)
        heat = (small / max(float(small.max()), 1e-12)).astype(np.float32)
        colours = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        scale = np.array([heatmap.shape[1], heatmap.shape[0]] * 2) / size
        rows = []
        for part in large_components(heat > self.threshold, self.min_area):
            box = self._refined(part, heat, colours)
            rows.append((part.peak(heat), *(box * scale).tolist()))
        return ranked_fit(heatmap > self.threshold, rows, self.max_boxes)

    def _refined(
        self, part: Component, heat: NDArray[np.float32], colours: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Return the mean of a component's box and of the box that GrabCut finds from it."""
        own = np.array(part.trimmed(self.trim), dtype=np.float64)
        labels = self._told(part, heat)
        if not np.isin(labels, (cv2.GC_BGD, cv2.GC_PR_BGD)).any():  # the component is the whole picture
            return own
        cv2.setRNGSeed(_SEED)
        nowhere = (0, 0, 0, 0)  # no rectangle is needed where a mask is given
        cv2.grabCut(colours, labels, nowhere, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
        foreground = large_components((labels & 1).astype(bool), 0.0)
        cut = max(foreground, key=lambda one: int(one.pixels.sum()), default=part)
        found = np.array(cut.trimmed(self.trim), dtype=np.float64)
        return (own + found) / 2 if _iou(own, found) >= self.agreement else own

    def _told(self, part: Component, heat: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return what GrabCut is told of each pixel: (side, side)."""
        labels = np.full(heat.shape, cv2.GC_BGD, np.uint8)
        x1, y1, x2, y2 = part.box
        wide, high = round(self.padding * (x2 - x1)), round(self.padding * (y2 - y1))
        labels[max(0, y1 - high) : y2 + high, max(0, x1 - wide) : x2 + wide] = cv2.GC_PR_BGD
        inside, hot = labels[y1:y2, x1:x2], heat[y1:y2, x1:x2]
        inside[part.pixels] = cv2.GC_PR_FGD
        inside[part.pixels & (hot > self.core * part.peak(heat))] = cv2.GC_FGD
        return labels


def _iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(iou_matrix(first[None], second[None])[0, 0])
