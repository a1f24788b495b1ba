"""Calibration: from boxes that people judged to the share of boxes of a score that they keep.

The curve is an isotonic regression (Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass
Probability Estimates", KDD 2002, https://doi.org/10.1145/775047.775151): the rising function with the least squared
distance from what was kept. It runs through the means of groups of at least `_GROUP` boxes, because single boxes at the
ends would make a score of 0 or 1 there. What it is good for is measured on tasks that it was not fitted to, by the
expected calibration error (Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
Binning", AAAI 2015): the mean of |mean score - share kept| over ten bins of scores, each by its number of boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatbox.calibration import JudgedBox, Pairs
from heatbox.errors import CalibrationError

__all__ = [
    "FEWEST_BOXES",
    "FEWEST_TASKS",
    "Bin",
    "Calibration",
    "calibrate",
    "calibration_error",
    "fit_pairs",
]

FEWEST_BOXES = 30
FEWEST_TASKS = 5

_GROUP = 10  # boxes that a point of the curve stands for, at least
_MOST_POINTS = 32
_BINS = 10
_DECIMALS = 4  # so that scores of two processors make one version

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Boxes whose raw scores are alike.

    Attributes:
        low: of their raw scores, included.
        high: excluded, but for 1.
        boxes: how many there are.
        raw: their mean raw score.
        calibrated: their mean score by curves that were fitted to other tasks.
        kept: the share of them that people kept.
    """

    low: float
    high: float
    boxes: int
    raw: float
    calibrated: float
    kept: float


@dataclass(frozen=True)
class Calibration:
    """A curve and what it is good for.

    Attributes:
        pairs: (raw score, share kept), ascending.
        boxes: that it was fitted to.
        kept: how many of them people kept.
        tasks: that they are of.
        error_before: expected calibration error of the raw scores.
        error_after: that of calibrated scores on tasks that were held out.
        bins: of raw scores, those with boxes.
    """

    pairs: Pairs
    boxes: int
    kept: int
    tasks: int
    error_before: float
    error_after: float
    bins: tuple[Bin, ...]


def calibrate(boxes: Sequence[JudgedBox], folds: int = 5) -> Calibration:
    """Fit the curve and measure it by cross-validation over tasks; the same boxes give the same.

    Raises:
        CalibrationError: there are too few, or people kept all of them, or none.
    """
    scores = np.array([box.score for box in boxes], dtype=np.float64)
    kept = np.array([box.kept for box in boxes], dtype=np.float64)
    numbers, tasks = np.unique([box.task for box in boxes], return_inverse=True)
    _require_enough(boxes, len(numbers))
    held_out = np.empty_like(scores)
    for fold in range(folds):
        left_out = tasks % folds == fold
        held_out[left_out] = _applied(fit_pairs(scores[~left_out], kept[~left_out]), scores[left_out])
    return Calibration(
        fit_pairs(scores, kept),
        len(boxes),
        int(kept.sum()),
        len(numbers),
        calibration_error(scores, kept),
        calibration_error(held_out, kept),
        _bins(scores, held_out, kept),
    )


def fit_pairs(scores: Floats, kept: Floats) -> Pairs:
    """Return the corners of the rising curve through raw scores (N,) and what was kept (N,), 0 or 1."""
    from sklearn.isotonic import IsotonicRegression

    _, alike, counts = np.unique(scores, return_inverse=True, return_counts=True)
    shares = (np.bincount(alike, kept) / counts)[alike]  # so that the order of equal scores does not matter
    groups = np.array_split(
        np.argsort(scores, kind="stable"), min(max(len(scores) // _GROUP, 1), _MOST_POINTS)
    )
    means, heights = ([float(values[group].mean()) for group in groups] for values in (scores, shares))
    curve = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip")
    curve.fit(means, heights, sample_weight=[len(group) for group in groups])
    corners = zip(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), strict=True)
    return tuple({round(x, _DECIMALS): round(y, _DECIMALS) for x, y in corners}.items())


def calibration_error(scores: Floats, kept: Floats) -> float:
    """Return the expected calibration error of scores (N,) in [0, 1], itself in [0, 1]."""
    return float(sum(abs(np.sum(scores[some] - kept[some])) for some in _binned(scores)) / len(scores))


def _require_enough(boxes: Sequence[JudgedBox], tasks: int) -> None:
    kept = sum(box.kept for box in boxes)
    if len(boxes) < FEWEST_BOXES or tasks < FEWEST_TASKS:
        raise CalibrationError(
            f"People have judged {len(boxes)} predicted boxes in {tasks} tasks, which is too few: it takes "
            f"{FEWEST_BOXES} boxes in {FEWEST_TASKS} tasks.",
            "Correct more predictions of the project's present version in Label Studio, and submit them.",
        )
    if kept in {0, len(boxes)}:
        raise CalibrationError(
            f"People kept {'all' if kept else 'none'} of {len(boxes)} predicted boxes: no score is worth more than "
            "another.",
            "Correct more predictions, among them some with other scores."
            if kept
            else "Look at the predictions: are labels, explainer and threshold right?",
        )


def _applied(pairs: Pairs, scores: Floats) -> Floats:
    xs, ys = zip(*pairs, strict=True)
    return np.asarray(np.interp(scores, xs, ys), dtype=np.float64)


def _binned(scores: Floats) -> list[NDArray[np.intp]]:
    """Return the places of the scores in each of ten bins."""
    numbers = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    return [np.flatnonzero(numbers == number) for number in range(_BINS)]


def _bins(scores: Floats, held_out: Floats, kept: Floats) -> tuple[Bin, ...]:
    return tuple(
        Bin(
            number / _BINS,
            (number + 1) / _BINS,
            len(some),
            *(float(values[some].mean()) for values in (scores, held_out, kept)),
        )
        for number, some in enumerate(_binned(scores))
        if len(some)
    )
