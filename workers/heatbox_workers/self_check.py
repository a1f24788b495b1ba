"""The self-check: a box is kept only where its mask and the classifier agree with it; the others are told with reasons.

    IoU(B, M_B) = |B & M_B| / |B | M_B|  >=  min_mask_iou
    p(label | crop of B)                 >=  min_crop_probability

B is the filled box, M_B its part of the mask: every component with more than half of its pixels in B. A box around a
thin arc or a few scattered spots holds much that its mask does not. The crop is B's part of the picture alone, squashed
and classified as a picture is; its label is as probable as the likeliest of the classes that stand for it.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heatbox.annotation import Annotation, Region, Rejected
from heatbox.boxes import Box
from heatbox.heatmaps import connected_components
from heatbox.pictures.images import Picture
from heatbox_workers.classifier import TorchClassifier

__all__ = ["check_crops", "check_masks", "mask_iou"]

_CROPS = 32  # in the network at once, so that memory does not grow with the number of boxes


def check_masks(annotation: Annotation, min_iou: float, drawn: Container[str] = ()) -> Annotation:
    """Reject the regions of an annotation that do not agree with the mask they were fitted to.

    Args:
        annotation: with evidence.
        min_iou: in [0, 1]; 0 = not checked.
        drawn: labels whose boxes came ready: there is no mask that they were fitted to.
    """
    if not min_iou:
        return annotation
    masks = {(one.label, one.class_name): one.mask for one in annotation.evidence}
    scale = 1 / annotation.width, 1 / annotation.height
    found: list[Region | Rejected] = []
    for region in annotation.regions:
        if region.label in drawn:
            found.append(region)
            continue
        overlap = mask_iou(masks[region.label, region.class_name], _scaled(region.box, *scale))
        reason = f"its IoU with its mask is {overlap:.3f}, below {min_iou:g}"
        found.append(region if overlap >= min_iou else Rejected(region, reason, mask_iou=overlap))
    return _divided(annotation, found)


def check_crops(
    pairs: Sequence[tuple[Picture, Annotation]],
    classifier: TorchClassifier,
    known: Mapping[str, Sequence[int]],
    min_probability: float,
) -> list[Annotation]:
    """Reject the regions of a batch of pictures whose crop the classifier does not take for their label.

    Args:
        pairs: pictures as they were read, with their annotations.
        classifier: that chose or was given the labels.
        known: class indices by label.
        min_probability: in [0, 1]; 0 = not checked.
    """
    if not min_probability:
        return [annotation for _, annotation in pairs]
    crops = [(_crop(picture, one.box), known[one.label]) for picture, each in pairs for one in each.regions]
    probabilities = _probabilities(classifier, crops)
    checked = []
    for _, annotation in pairs:
        found: list[Region | Rejected] = []
        for region in annotation.regions:
            value = next(probabilities)
            reason = f"its crop is {region.label} with probability {value:.3f}, below {min_probability:g}"
            is_kept = value >= min_probability
            found.append(region if is_kept else Rejected(region, reason, crop_probability=value))
        checked.append(_divided(annotation, found))
    return checked


def mask_iou(mask: NDArray[np.bool_], box: Box) -> float:
    """Return IoU(B, M_B) of a box with its part of a mask, in [0, 1]; 0 where no component belongs to the box.

    Args:
        mask: (h, w) that covers the whole picture.
        box: in parts of the picture's width and height.
    """
    height, width = mask.shape
    components = connected_components(mask)
    inside = np.outer(_covered(box.y1, box.y2, height), _covered(box.x1, box.x2, width))
    shared = np.bincount(components.labels.ravel(), inside.ravel(), len(components.areas) + 1)[1:]
    own = 2 * shared > components.areas
    overlap = float(shared[own].sum())
    union = float(inside.sum() + components.areas[own].sum()) - overlap
    return overlap / union


def _covered(near: float, far: float, count: int) -> NDArray[np.float64]:
    """Return how much of each pixel lies between two places in [0, 1]: (count,)."""
    edges = np.arange(count + 1)
    return np.diff(np.clip(edges, near * count, far * count))


def _scaled(box: Box, x: float, y: float) -> Box:
    return Box(box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y)


def _crop(picture: Picture, box: Box) -> NDArray[np.uint8]:
    """Return the box's part of the picture as it was read, at least one pixel."""
    height, width = picture.pixels.shape[:2]
    part = _scaled(box, width / picture.width, height / picture.height)
    x1, y1 = min(round(part.x1), width - 1), min(round(part.y1), height - 1)
    return picture.pixels[y1 : max(round(part.y2), y1 + 1), x1 : max(round(part.x2), x1 + 1)]


def _probabilities(
    classifier: TorchClassifier, crops: Sequence[tuple[NDArray[np.uint8], Sequence[int]]]
) -> Iterator[float]:
    """Yield the highest probability of each crop's own classes."""
    for first in range(0, len(crops), _CROPS):
        some = crops[first : first + _CROPS]
        logits = classifier.logits(classifier.preprocess([pixels for pixels, _ in some]))
        rows = classifier.probabilities(logits).cpu()
        for row, (_, classes) in zip(rows, some, strict=True):
            yield float(row[list(classes)].max())


def _divided(annotation: Annotation, found: Sequence[Region | Rejected]) -> Annotation:
    kept = tuple(one for one in found if isinstance(one, Region))
    rejected = tuple(one for one in found if isinstance(one, Rejected))
    return replace(annotation, regions=kept, rejected=(*annotation.rejected, *rejected))
