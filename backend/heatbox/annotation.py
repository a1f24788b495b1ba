"""What annotating one picture yields: regions in pixels of the upright picture, and the evidence they came from."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heatbox.boxes import Box

__all__ = ["Annotation", "Region", "TargetEvidence", "region_id"]


@dataclass(frozen=True)
class Region:
    """One box with its label.

    Attributes:
        id: deterministic, unique within the annotation.
        label: label of the project (after the label map).
        class_name: class of the classifier.
        box: pixels of the upright picture.
        score: evidence of this box in [0, 1]: class probability times the fitter's score.
    """

    id: str
    label: str
    class_name: str
    box: Box
    score: float


@dataclass(frozen=True)
class TargetEvidence:
    """The evidence of one target class of one picture.

    Attributes:
        label: label of the project.
        class_name: class of the classifier.
        probability: of the class, in [0, 1].
        heatmap: (h, w) float32 in [0, 1] at the resolution the boxes were fitted at; it covers the whole picture.
        mask: (h, w) bool, the binary image that the boxes were fitted to.
    """

    label: str
    class_name: str
    probability: float
    heatmap: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Annotation:
    """All regions of one upright picture of width x height pixels, best first."""

    width: int
    height: int
    regions: tuple[Region, ...]
    evidence: tuple[TargetEvidence, ...] = field(default=(), compare=False, repr=False)

    @property
    def score(self) -> float | None:
        """The lowest region score, so that sorting by it brings the most doubtful pictures first."""
        return min((region.score for region in self.regions), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready regions without the evidence (what travels through the queue)."""
        regions = [
            {
                "id": region.id,
                "label": region.label,
                "class_name": region.class_name,
                "box": region.box.as_xyxy(),
                "score": region.score,
            }
            for region in self.regions
        ]
        return {"width": self.width, "height": self.height, "regions": regions}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        regions = tuple(Region(**{**region, "box": Box(*region["box"])}) for region in value["regions"])
        return cls(value["width"], value["height"], regions)


def region_id(version: str, label: str, rank: int, box: Box) -> str:
    """Return a region's id: the same for the same version, label, rank and box."""
    text = "\n".join([version, label, str(rank), *(f"{side:.3f}" for side in box.as_xyxy())])
    return "hb" + hashlib.sha256(text.encode()).hexdigest()[:10]
