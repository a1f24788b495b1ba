"""How good boxes are: MaxBoxAcc over thresholds, and the agreement of predicted boxes with true ones.

MaxBoxAcc follows "Evaluating Weakly Supervised Object Localization Methods Right" (Choe et al., CVPR 2020,
https://arxiv.org/abs/2001.07437), MaxBoxAccV2 its journal version (https://arxiv.org/abs/2007.04178)::

    BoxAcc(t, d)  = share of pictures whose box at threshold t has IoU >= d with a true box
    MaxBoxAcc(d)  = max over t of BoxAcc(t, d)
    MaxBoxAccV2   = mean of MaxBoxAcc(d) over d in {0.3, 0.5, 0.7}

The first version takes the box of the largest component, the second the best of the boxes of all components.
Both choose t with the answers at hand; `held_out` chooses it on one half of the pictures and reports the other.

The pointing game follows "Top-down Neural Attention by Excitation Backprop" (Zhang et al., ECCV 2016,
https://arxiv.org/abs/1608.00507), without its tolerance of 15 pixels: a hit is a peak inside a true box.

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
    "HeldOut",
    "agreement",
    "box_accuracy",
    "box_quality",
    "held_out",
    "match",
    "pointing_hit",
    "threshold_ious",
]

IOU_LEVELS = (0.3, 0.5, 0.7)
THRESHOLDS = tuple(step / 100 for step in range(100))

_TOUCHING = 1e-9

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
class HeldOut:
    """Quality at thresholds chosen on the other half of the pictures, both directions averaged.

    Attributes:
        levels: IoU from which a box counts as right.
        accuracy: BoxAcc per level, each at the threshold that was best for this level on the other half.
        mean_iou: at the single threshold with the best mean IoU on the other half.
        single: BoxAcc per level at that single threshold.
    """

    levels: tuple[float, ...]
    accuracy: tuple[float, ...]
    mean_iou: float
    single: tuple[float, ...]


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


def held_out(
    ious: NDArray[np.float64],
    pictures: NDArray[np.integer],
    levels: Sequence[float] = IOU_LEVELS,
    seed: int = 0,
) -> HeldOut:
    """Choose thresholds on a random half of the pictures, measure on the other half, and the other way round.

    Args:
        ious: (P, T) one row of `threshold_ious` per pair of picture and class.
        pictures: (P,) which picture a row belongs to; rows of one picture stay in one half. With a single
            picture there is no other half, and thresholds are chosen on itself.
        levels: IoU from which a box counts as right.
        seed: of the split.
    """
    names = np.random.default_rng(seed).permutation(np.unique(pictures))
    first = np.isin(pictures, names[: (len(names) + 1) // 2])
    halves = [(first, ~first), (~first, first)] if (~first).any() else [(first, first)]
    right = np.stack([ious >= level for level in levels])
    accuracy, single, total = np.zeros(len(levels)), np.zeros(len(levels)), 0.0
    for chosen_on, measured in halves:
        best = right[:, chosen_on].mean(axis=1).argmax(axis=1)
        accuracy += [hits[measured][:, at].sum() for hits, at in zip(right, best, strict=True)]
        at = ious[chosen_on].mean(axis=0).argmax()
        single += right[:, measured, at].sum(axis=1)
        total += ious[measured, at].sum()
    count = len(ious)
    return HeldOut(
        tuple(levels), tuple((accuracy / count).tolist()), total / count, tuple((single / count).tolist())
    )


def pointing_hit(heatmap: NDArray[np.float32], truth: Boxes) -> float:
    """Return 1 where the heatmap's peak lies inside a true box, else 0.

    Several equal peaks share the point: the part of them inside counts. A map without heat points nowhere: 0.

    Args:
        heatmap: (h, w) in [0, 1].
        truth: (G, 4) true boxes in heatmap pixels; a pixel is inside where its centre is.
    """
    if heatmap.max() <= 0:
        return 0.0
    rows, columns = np.nonzero(heatmap == heatmap.max())
    x1, y1, x2, y2 = truth.reshape(-1, 4, 1).transpose(1, 0, 2)
    x, y = columns + 0.5, rows + 0.5
    inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    return float(inside.any(axis=0).mean())


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


def box_quality(pictures: Iterable[tuple[Boxes, Boxes]]) -> float:
    """Return one figure for boxes of one label over a set of pictures, in [0, 1].

        2 (sum of the matched IoU) / (number of predicted boxes + number of true boxes)

    That is the F1 score where a match counts as much as its boxes overlap, whatever that is: 1 where all boxes are
    exact and none is missing or too many, also where there is none at all.

    Args:
        pictures: (predicted (B, 4), truth (G, 4)) of each; either may be empty.
    """
    overlap, boxes = 0.0, 0
    for predicted, truth in pictures:
        overlap += float(match(predicted, truth, _TOUCHING).sum())
        boxes += len(predicted) + len(truth)
    return 2 * overlap / boxes if boxes else 1.0


def _component_boxes(mask: NDArray[np.bool_], components: Literal["largest", "all"]) -> NDArray[np.int64]:
    found = connected_components(mask)
    return found.boxes if components == "all" else found.boxes[np.argsort(-found.areas, kind="stable")[:1]]


def _overlaps(predicted: Boxes, truth: Boxes) -> NDArray[np.float64]:
    """Return the IoU of every pair; an empty list of boxes may have any shape."""
    first, second = (boxes.reshape(-1, 4).astype(np.float64) for boxes in (predicted, truth))
    return iou_matrix(first, second)
