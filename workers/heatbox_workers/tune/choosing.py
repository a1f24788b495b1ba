"""Choosing: the best candidate for a label, or for several together, and cross-validation of that choice.

A choice on k - 1 folds is measured on the left-out one; the parts of all folds together say what choosing is worth on
pictures that were not chosen on. What depends on a first result (finer thresholds, costly fitters) is tried for each
fold by itself, so that no left-out picture has a say.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from heatbox_workers.tune.board import Board, Floats, quality
from heatbox_workers.tune.candidates import Candidate, Choice, Fitting, thresholds_of
from heatbox_workers.tune.values import Measured

__all__ = [
    "PROBABILITIES",
    "Held",
    "Question",
    "best_of_explainer",
    "choose",
    "cross_validate",
    "measure",
    "sobered",
    "worthwhile",
]

PROBABILITIES = (0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8)
_CHEAP = ("components", "enclosing")
_STEP = 0.05
_SPARSE = 0.1  # below, thresholds are refined by factors
_TRIES = 1000
_ENDS = (5, 95)
_SURE = 0.9  # part of the bootstrap's tries in which a change must gain
_LEAST_GAIN = 0.0005  # smaller ones would be told as none
_NORMAL = NormalDist()

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    """What is to be chosen for a label, or for several together.

    Attributes:
        board: measures.
        labels: of the project, that get the same.
        present: what they have now.
        candidates: explainers by number; those that failed are left out.
        ways: whether another explainer, fitter or threshold may be chosen.
        probabilities: whether another least probability may be chosen.
    """

    board: Board
    labels: tuple[str, ...]
    present: Choice
    candidates: dict[int, Candidate]
    ways: bool = True
    probabilities: bool = True

    def parts(self, choice: Choice) -> Floats:
        """Return the parts of the labels' quality in each picture: (P, 2)."""
        first, *others = (self.board.parts(label, choice) for label in self.labels)
        return sum(others, first)

    def fit(self, explainer: int, fittings: Sequence[Fitting]) -> None:
        """Fit boxes to the labels' heat."""
        for label in self.labels:
            self.board.fit(label, explainer, fittings)


@dataclass(frozen=True)
class Held:
    """Parts (P, 2) on left-out pictures: with the present way, and with what was chosen on the other folds."""

    before: Floats
    after: Floats


def choose(question: Question, rows: Rows) -> Choice:
    """Return what is best on some pictures: (P,); the present way where nothing is better."""
    if not question.ways:
        return _best(question, rows, [question.present])
    first = _best(question, rows, [question.present, *_coarse(question)])
    return _best(question, rows, [first, *_fine(question, first)])


def best_of_explainer(question: Question, number: int, rows: Rows) -> tuple[Choice, float]:
    """Return the best choice with an explainer among the first ones tried, and its quality on these pictures."""
    only = replace(question, candidates={number: question.candidates[number]})
    choices = list(_coarse(only)) if question.ways else []
    if number == question.present.explainer:
        choices = [question.present, *choices]
    best = _best(question, rows, choices)
    return best, quality(question.parts(best), rows)


def cross_validate(question: Question) -> dict[str, Held]:
    """Choose on all folds but one and measure on that one, for every fold; what that comes to for each label."""
    board, folds = question.board, np.array([one.fold for one in question.board.pictures])
    found = {
        label: Held(*(board.parts(label, question.present).copy() for _ in "ba")) for label in question.labels
    }
    for fold in np.unique(folds):
        chosen = choose(question, folds != fold)
        for label, held in found.items():
            held.after[folds == fold] = board.parts(label, chosen)[folds == fold]
    return found


def measure(held: Sequence[Held], seed: int) -> tuple[Measured, bool]:
    """Return quality before and after with the gain's interval, and whether the gain is sure enough to be wanted.

    Args:
        held: of one or several labels, over the same pictures.
        seed: of the bootstrap over pictures.
    """
    gains, found = _gains(held, seed)
    return found, found.gain > 0 and float((gains > 0).mean()) >= _SURE


def _gains(held: Sequence[Held], seed: int) -> tuple[Floats, Measured]:
    """Return the gain of each try of the bootstrap, and what was measured."""
    before, after = (sum(parts, np.zeros_like(parts[0])) for parts in zip(*map(_both, held), strict=True))
    count = len(before)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_TRIES)
    gains = _quality(drawn @ after) - _quality(drawn @ before)
    low, high = np.percentile(gains, _ENDS)
    return gains, Measured(quality(before), quality(after), float(low), float(high))


def worthwhile(held: Mapping[str, Held], seed: int) -> dict[str, Held]:
    """Return what labels gain, without luck's part; nothing where that is no gain, or not sure enough to be wanted."""
    left = sobered(held, seed) if measure(list(held.values()), seed)[1] else {}
    return left if left and measure(list(left.values()), seed)[0].gain >= _LEAST_GAIN else {}


def sobered(held: Mapping[str, Held], seed: int) -> dict[str, Held]:
    """Return the parts of labels that may change, with as much of their gain as is to be expected.

    Of what was taken because it gained, chance has a part. A normal gain with mean m and deviation s, looked at only
    above c s, has the mean m + s pdf(c - m / s) / cdf(m / s - c). The m that makes this the gain that was seen is what
    is left of it (Zollner & Pritchard, Am. J. Hum. Genet. 80, 2007, on the winner's curse); below 0 it is 0.
    """
    gains, found = _gains(list(held.values()), seed)
    spread = float(gains.std())
    part = _part_left(found.gain / spread) if spread > 0 else 1.0
    return {
        label: Held(one.before, one.before + part * (one.after - one.before)) for label, one in held.items()
    }


def _part_left(seen: float) -> float:
    """Return which part of a gain is left, by how many deviations were seen."""
    limit = _NORMAL.inv_cdf(_SURE)
    low, high = 0.0, seen
    for _ in range(40):
        middle = (low + high) / 2
        mean = middle + _NORMAL.pdf(limit - middle) / _NORMAL.cdf(middle - limit)
        low, high = (low, middle) if mean > seen else (middle, high)
    return low / seen


def _both(one: Held) -> tuple[Floats, Floats]:
    return one.before, one.after


def _quality(parts: Floats) -> Floats:
    """Return quality of each try: (T, 2) -> (T,)."""
    return np.divide(parts[:, 0], parts[:, 1], out=np.ones(len(parts)), where=parts[:, 1] > 0)


def _best(question: Question, rows: Rows, choices: Sequence[Choice]) -> Choice:
    """Return the best choice, each at its best least probability; the first of equals."""
    limits = dict.fromkeys((question.present.min_probability, *PROBABILITIES))
    best, reached = choices[0], -1.0
    for choice in choices:
        own = [choice.min_probability, *(limits if question.probabilities else ())]
        for limit in dict.fromkeys(own):
            one = replace(choice, min_probability=limit)
            value = quality(question.parts(one), rows)
            if value > reached + 1e-9:
                best, reached = one, value
    return best


def _coarse(question: Question) -> Iterator[Choice]:
    """Yield every explainer with the fast fitters at thresholds far from each other."""
    limit = question.present.min_probability
    for number, candidate in question.candidates.items():
        if question.board.draws(number):
            yield Choice(number, Fitting.of("components"), limit)
            continue
        fittings = [
            Fitting.of(fitter, threshold=value) for fitter in _CHEAP for value in thresholds_of(candidate)
        ]
        question.fit(number, fittings)
        yield from (Choice(number, fitting, limit) for fitting in fittings)


def _fine(question: Question, first: Choice) -> Iterator[Choice]:
    """Yield the best explainer at thresholds near the best one, with every fitter."""
    threshold = first.fitting.threshold
    if threshold is None or question.board.draws(first.explainer):
        return
    near = [threshold * 0.7, threshold, threshold * 1.4]
    if threshold >= _SPARSE:
        near = [threshold - _STEP, threshold, threshold + _STEP]
    values = [round(value, 4) for value in near if 0 < value < 1]
    fittings = [
        *(Fitting.of(fitter, threshold=value) for fitter in _CHEAP for value in values),
        *(Fitting.of("components", threshold=value, min_area=0.02) for value in values),
        *(Fitting.of("components", threshold=value, max_boxes=1) for value in values),
        *(Fitting.of(fitter, threshold=value) for fitter in ("max_iou", "grabcut") for value in values),
    ]
    question.fit(first.explainer, fittings)
    yield from (replace(first, fitting=fitting) for fitting in fittings)
