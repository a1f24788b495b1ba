"""How good boxes are: MaxBoxAcc over thresholds, and the agreement of predicted boxes with true ones.

MaxBoxAcc follows "Evaluating Weakly Supervised Object Localization Methods Right" (Choe et al., CVPR 2020,
https://arxiv.org/abs/2001.07437), MaxBoxAccV2 its journal version (https://arxiv.org/abs/2007.04178)::

    BoxAcc(t, d)  = share of pictures whose box at threshold t has IoU >= d with a true box
    MaxBoxAcc(d)  = max over t of BoxAcc(t, d)
    MaxBoxAccV2   = mean of MaxBoxAcc(d) over d in {0.3, 0.5, 0.7}

The first version takes the box of the largest component, the second the best of the boxes of all components.
Boxes are xyxy with exclusive far edges; IoU does not change when boxes and map are scaled together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heatbox.boxes import iou_matrix
from heatbox.heatmaps import connected_components

__all__ = [
    "IOU_LEVELS",
    "THRESHOLDS",
    "Agreement",
    "BoxAccuracy",
    "agreement",
    "box_accuracy",
    "match",
    "threshold_ious",
]

IOU_LEVELS = (0.3, 0.5, 0.7)
THRESHOLDS = tuple(step / 100 for step in range(100))

Boxes = NDArray[np.floating | np.integer]


@dataclass(frozen=True)
class BoxAccuracy:
    """MaxBoxAcc of a set of pictures, one entry per IoU level.

    Attributes:
        levels: IoU from which a box counts as right.
        best: MaxBoxAcc in [0, 1].
        thresholds: where it is reached; the lowest of several.
        pictures: how many were measured.
    """

    levels: tuple[float, ...]
    best: tuple[float, ...]
    thresholds: tuple[float, ...]
    pictures: int

    @property
    def mean(self) -> float:
        """Mean over the levels (MaxBoxAccV2 when all components were taken)."""
        return sum(self.best) / len(self.best)


@dataclass(frozen=True)
class Agreement:
    """How predicted boxes agree with true boxes over a set of pictures.

    Attributes:
        pictures: how many were compared.
        truths: number of true boxes.
        predictions: number of predicted boxes.
        matched: number of one-to-one matches.
        mean_iou: mean over the true boxes of the IoU with the picture's best predicted box, 0 without truth.
    """

    pictures: int
    truths: int
    predictions: int
    matched: int
    mean_iou: float

    @property
    def found(self) -> float:
        """Share of the true boxes that were matched (recall), 0 without truth."""
        return self.matched / self.truths if self.truths else 0.0

    @property
    def precision(self) -> float:
        """Share of the predicted boxes that were matched, 0 without predictions."""
        return self.matched / self.predictions if self.predictions else 0.0

    @property
    def false_boxes(self) -> float:
        """Predicted boxes without a match, per picture, 0 without pictures."""
        return (self.predictions - self.matched) / self.pictures if self.pictures else 0.0


def threshold_ious(
    heatmap: NDArray[np.float32],
    truth: Boxes,
    thresholds: Sequence[float] = THRESHOLDS,
    components: Literal["largest", "all"] = "largest",
) -> NDArray[np.float64]:
    """Return the IoU that one picture's heatmap reaches at each threshold: (T,).

    Args:
        heatmap: (h, w) in [0, 1].
        truth: (G, 4) true boxes in heatmap pixels, at least one; the best counts.
        thresholds: (T,) the mask is heat above.
        components: whose boxes count, those of the largest component by pixels, or the best of all.
    """
    found = [_component_boxes(heatmap > threshold, components) for threshold in thresholds]
    best = np.zeros(len(thresholds))
    rows = np.repeat(np.arange(len(thresholds)), [len(boxes) for boxes in found])
    np.maximum.at(best, rows, _overlaps(np.concatenate(found), truth).max(axis=1, initial=0.0))
    return best


def box_accuracy(
    ious: NDArray[np.float64],
    thresholds: Sequence[float] = THRESHOLDS,
    levels: Sequence[float] = IOU_LEVELS,
) -> BoxAccuracy:
    """Return MaxBoxAcc at each IoU level.

    Args:
        ious: (P, T) one row of `threshold_ious` per picture, at least one.
        thresholds: (T,) those of the columns.
        levels: IoU from which a box counts as right.
    """
    accuracy = np.array([(ious >= level).mean(axis=0) for level in levels])
    best = accuracy.argmax(axis=1)
    return BoxAccuracy(
        levels=tuple(levels),
        best=tuple(accuracy.max(axis=1).tolist()),
        thresholds=tuple(thresholds[index] for index in best),
        pictures=len(ious),
    )


def match(predicted: Boxes, truth: Boxes, iou: float = 0.5) -> NDArray[np.float64]:
    """Match boxes one to one, greedily from the highest IoU down.

    Args:
        predicted: (B, 4).
        truth: (G, 4).
        iou: pairs below are no match.

    Returns:
        (G,) the IoU of each true box with its match, 0 where it has none.
    """
    overlaps = _overlaps(predicted, truth)
    matched = np.zeros(overlaps.shape[1])
    while overlaps.size and (best := float(overlaps.max())) >= iou:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        matched[column] = best
        overlaps[row, :] = overlaps[:, column] = -np.inf
    return matched


def agreement(pictures: Iterable[tuple[Boxes, Boxes]], iou: float = 0.5) -> Agreement:
    """Compare predicted with true boxes over a set of pictures.

    Args:
        pictures: (predicted (B, 4), truth (G, 4)) of each; either may be empty.
        iou: pairs below are no match.
    """
    count = predictions = matched = 0
    best: list[float] = []
    for predicted, truth in pictures:
        count += 1
        predictions += len(predicted)
        matched += int(np.count_nonzero(match(predicted, truth, iou)))
        best += _overlaps(predicted, truth).max(axis=0, initial=0.0).tolist()
    return Agreement(count, len(best), predictions, matched, sum(best) / len(best) if best else 0.0)


def _component_boxes(mask: NDArray[np.bool_], components: Literal["largest", "all"]) -> NDArray[np.int64]:
    found = connected_components(mask)
    return found.boxes if components == "all" else found.boxes[np.argsort(-found.areas, kind="stable")[:1]]


def _overlaps(predicted: Boxes, truth: Boxes) -> NDArray[np.float64]:
    """Return the IoU of every pair; an empty list of boxes may have any shape."""
    first, second = (boxes.reshape(-1, 4).astype(np.float64) for boxes in (predicted, truth))
    return iou_matrix(first, second)
