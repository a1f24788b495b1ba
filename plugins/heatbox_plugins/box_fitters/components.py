"""Threshold and connected components: one box for each separate hot place.

CAM (Zhou et al., CVPR 2016, https://arxiv.org/abs/1512.04150) and Grad-CAM (Selvaraju et al., ICCV 2017,
https://arxiv.org/abs/1610.02391) keep the largest component only; a picture to annotate may hold several
objects, so every component that is large and hot enough gets its box here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatbox.contract import Fit
from heatbox_plugins.box_fitters._fits import (
    large_components,
    ranked_fit,
    require_count,
    require_part,
    require_trim,
)

__all__ = ["Components"]


@dataclass(frozen=True)
class Components:
    """A box around each connected component of the heat above a threshold.

    Attributes:
        threshold: the mask is heat above this part of the map's maximum.
        min_area: smaller components are dropped, as part of the map's area.
        min_score: components with a lower peak are dropped, as part of the map's maximum.
        max_boxes: at most so many boxes, the hottest first.
        trim: each side of a box moves in as long as at most this part of the component's pixels is left outside it, so
            that a thin arm of heat does not widen the box; below 0.5, and 0 keeps the whole component in its box.
    """

    threshold: float = 0.2
    min_area: float = 0.005
    min_score: float = 0.0
    max_boxes: int = 10
    trim: float = 0.02

    def __post_init__(self) -> None:
        require_part("threshold", self.threshold)
        require_part("min_area", self.min_area)
        require_part("min_score", self.min_score)
        require_count("max_boxes", self.max_boxes)
        require_trim(self.trim)

    def __call__(self, heatmap: NDArray[np.float32]) -> Fit:
        """Fit boxes to a heatmap (H, W) in [0, 1]; a box's score is the peak of its component."""
        mask = heatmap > self.threshold
        found = (
            (part.peak(heatmap), *part.trimmed(self.trim)) for part in large_components(mask, self.min_area)
        )
        return ranked_fit(mask, (row for row in found if row[0] >= self.min_score), self.max_boxes)
