"""What annotating one picture yields: regions in pixels of the upright picture, and the evidence they came from."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heatbox.boxes import Box
from heatbox.masks import Mask

__all__ = ["Annotation", "Found", "Region", "Rejected", "TargetEvidence", "region_id"]


@dataclass(frozen=True)
class Region:
    """One box with its label.

    Attributes:
        id: deterministic, unique within the annotation.
        label: label of the project (after the label map).
        class_name: class of the classifier.
        box: pixels of the upright picture.
        score: of this box in [0, 1]: class probability times the fitter's score, calibrated where people's corrections
            have told what that is worth.
        raw_score: before the calibration; None: there was none.
        mask: the part of the mask in the box, over the whole picture; None where nobody asked for it.
        explainer: that found it, where the label has a way of its own; empty: the pipeline's.
    """

    id: str
    label: str
    class_name: str
    box: Box
    score: float
    mask: Mask | None = None
    raw_score: float | None = None
    explainer: str = ""


@dataclass(frozen=True)
class Found:
    """A label that was looked for in the picture, whether or not a box came of it, and its probability in [0, 1]."""

    label: str
    class_name: str
    probability: float


@dataclass(frozen=True)
class Rejected:
    """A region that the self-check did not keep.

    Attributes:
        region: as it would have been.
        reason: the limit that it misses, in words and figures.
        mask_iou: IoU of the box with its part of the mask, in [0, 1]; None where it was not measured.
        crop_probability: of the label in the crop alone, in [0, 1]; None where it was not measured.
    """

    region: Region
    reason: str
    mask_iou: float | None = None
    crop_probability: float | None = None

    @property
    def sentence(self) -> str:
        """What a person reads: label and score, corners in pixels, reason."""
        x1, y1, x2, y2 = (round(side) for side in self.region.box.as_xyxy())
        box = f"{self.region.label} {self.region.score:.2f} from ({x1}, {y1}) to ({x2}, {y2})"
        return f"{box}: {self.reason}"


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
    """What came of one upright picture.

    Attributes:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        regions: best first.
        evidence: that they came from; it does not travel.
        rejected: regions that the self-check did not keep.
        found: labels that were looked for, the most probable first.
        absence: how sure it is that the picture shows none of the labels, in [0, 1]: 1 - p / threshold of the label
            that came nearest to its threshold. None where a label was looked for.
    """

    width: int
    height: int
    regions: tuple[Region, ...]
    evidence: tuple[TargetEvidence, ...] = field(default=(), compare=False, repr=False)
    rejected: tuple[Rejected, ...] = ()
    found: tuple[Found, ...] = ()
    absence: float | None = None

    @property
    def score(self) -> float:
        """How sure the whole picture is, in [0, 1]; sorted by it, the most doubtful pictures come first.

        The lowest score of its regions; without any, how sure it is that there is nothing.
        """
        return min((region.score for region in self.regions), default=self.absence or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values without the evidence (what travels through the queue)."""
        rejected = [{**vars(one), "region": _region_dict(one.region)} for one in self.rejected]
        return {
            "width": self.width,
            "height": self.height,
            "regions": [_region_dict(region) for region in self.regions],
            "rejected": rejected,
            "found": [vars(one) for one in self.found],
            "absence": self.absence,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `as_dict` wrote, also in an older version of heatbox."""
        return cls(
            value["width"],
            value["height"],
            tuple(_region(one) for one in value["regions"]),
            rejected=tuple(
                Rejected(**{**one, "region": _region(one["region"])}) for one in value.get("rejected", ())
            ),
            found=tuple(Found(**one) for one in value.get("found", ())),
            absence=value.get("absence"),
        )


def region_id(version: str, label: str, rank: int, box: Box) -> str:
    """Return a region's id: the same for the same version, label, rank and box."""
    text = "\n".join([version, label, str(rank), *(f"{side:.3f}" for side in box.as_xyxy())])
    return "hb" + hashlib.sha256(text.encode()).hexdigest()[:10]


def _region_dict(region: Region) -> dict[str, Any]:
    plain = {**vars(region), "box": region.box.as_xyxy()}
    return {**plain, "mask": None if region.mask is None else vars(region.mask)}


def _region(value: dict[str, Any]) -> Region:
    mask = value.get("mask")
    counted = mask and Mask(**{**mask, "counts": tuple(mask["counts"])})
    return Region(**{**value, "box": Box(*value["box"]), "mask": counted})
