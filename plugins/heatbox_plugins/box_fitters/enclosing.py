"""The smallest box that encloses all heat above a threshold: one box, also around several hot places.

The rule of the DAM project (https://github.com/MahanFathi/UnsupervisedObjectLocalization), which takes the
extent of all true pixels of its mask. One stray pixel widens the box; use it where one object shows several
hot parts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatbox.contract import Fit
from heatbox_plugins.box_fitters._fits import ranked_fit, require_part

__all__ = ["Enclosing"]


@dataclass(frozen=True)
class Enclosing:
    """The smallest box around all heat above a threshold.

    Attributes:
        threshold: the mask is heat above this part of the map's maximum.
    """

    threshold: float = 0.2

    def __post_init__(self) -> None:
        require_part("threshold", self.threshold)

    def __call__(self, heatmap: NDArray[np.float32]) -> Fit:
        """Fit one box to a heatmap (H, W) in [0, 1], none to an empty mask; its score is the map's peak."""
        mask = heatmap > self.threshold
        if not mask.any():
            return ranked_fit(mask, [])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return ranked_fit(mask, [(float(heatmap.max()), columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)])
