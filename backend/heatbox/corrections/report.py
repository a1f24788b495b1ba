"""The report on corrections: what people did with boxes by label and explainer, how good scores are, the time it took.

Boxes are those of the annotation that counts of each task; times are those of all annotations that are there. The
reliability of scores is measured as in `heatbox_workers.calibrate`: by ten bins, with the expected calibration error.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np

from heatbox.corrections.comparing import Verdict, VerdictKind
from heatbox.corrections.records import Correction
from heatbox.metrics import box_quality
from heatbox.studio.regions import SAME_IOU, BoxRegion

__all__ = [
    "BINS",
    "WORST",
    "LabelRow",
    "Reliability",
    "Report",
    "ScoreBin",
    "Times",
    "WorstPicture",
    "make_report",
]

BINS = 10
WORST = 20


@dataclass(frozen=True)
class LabelRow:
    """What people did with the boxes of one label that one explainer predicted.

    Attributes:
        label: as it was predicted; of a missed box, as it is.
        explainer: that found them; empty: of another program. A missed box counts for the one that finds its label.
        predicted: boxes that people were shown.
        accepted: left as they were.
        moved: as large as before, elsewhere.
        resized: with other sides.
        relabelled: with another label.
        deleted: taken away.
        missed: added by hand.
        mean_iou: of predicted boxes that are still there, with what they became; None: there is none.
    """

    label: str
    explainer: str
    predicted: int = 0
    accepted: int = 0
    moved: int = 0
    resized: int = 0
    relabelled: int = 0
    deleted: int = 0
    missed: int = 0
    mean_iou: float | None = None


@dataclass(frozen=True)
class ScoreBin:
    """Predicted boxes whose raw scores are alike: how many, their mean score, and the share that people kept."""

    low: float
    high: float
    boxes: int
    score: float
    kept: float


@dataclass(frozen=True)
class Reliability:
    """What scores are worth: bins with boxes, and the expected calibration error; None: no box has a score."""

    bins: tuple[ScoreBin, ...] = ()
    error: float | None = None


@dataclass(frozen=True)
class Times:
    """How many annotations have a time, and their median in seconds; None: there is none."""

    annotations: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class WorstPicture:
    """A picture with the quality of what was predicted on it, in [0, 1]: 1 where every box is exact."""

    task: int
    item: int
    address: str
    quality: float
    predicted: tuple[BoxRegion, ...] = field(repr=False, default=())
    boxes: tuple[BoxRegion, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class Report:
    """What corrections say about predictions.

    Attributes:
        tasks: that somebody has annotated and not only skipped.
        annotations: that are there, without skips.
        skipped: annotations that are skips.
        deleted: annotations that were there once.
        compared: tasks whose annotation was compared with what the person was shown.
        labels: a row for each label and explainer.
        ious: how many surviving boxes have an IoU in [0, .1), [.1, .2), ..., [.9, 1].
        reliability: of the scores.
        with_prediction: the time that annotations took where the person was shown a prediction.
        without_prediction: that of the others.
        worst: the pictures on which predictions were worst, the worst first.
        problems: what was not understood, and how often.
    """

    tasks: int
    annotations: int
    skipped: int
    deleted: int
    compared: int
    labels: tuple[LabelRow, ...]
    ious: tuple[int, ...]
    reliability: Reliability
    with_prediction: Times
    without_prediction: Times
    worst: tuple[WorstPicture, ...]
    problems: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; of the worst pictures without their boxes."""
        worst = [
            {"task": one.task, "item": one.item, "address": one.address, "quality": one.quality}
            for one in self.worst
        ]
        return {**asdict(self), "worst": worst}


def make_report(annotations: Sequence[Correction], counting: Sequence[Correction]) -> Report:
    """Return the report.

    Args:
        annotations: every one of the project, deleted ones too.
        counting: the one that counts of each task.
    """
    there = [one for one in annotations if one.counts]
    compared = [one for one in counting if one.looked and one.source != "none"]
    verdicts = _explained(compared)
    problems: Counter[str] = Counter()
    for one in there:
        problems.update(one.problems)
    return Report(
        len(counting),
        len(there),
        sum(one.skipped and one.deleted_at is None for one in annotations),
        sum(one.deleted_at is not None for one in annotations),
        len(compared),
        _label_rows(verdicts),
        _histogram(verdict for _, verdict in verdicts),
        _reliability([verdict for _, verdict in verdicts]),
        _times(one for one in there if one.version),
        _times(one for one in there if not one.version),
        _worst(compared),
        dict(problems),
    )


def _explained(compared: Sequence[Correction]) -> list[tuple[str, Verdict]]:
    """Return each verdict with the explainer that found its box, or that finds its label in that version."""
    verdicts = [(one, verdict) for one in compared for verdict in one.verdicts]
    own = {(one.version, verdict.was): verdict.explainer for one, verdict in verdicts if verdict.explainer}
    return [
        (own.get((one.version, verdict.was or verdict.label), one.explainer), verdict)
        for one, verdict in verdicts
    ]


def _times(some: Iterable[Correction]) -> Times:
    seconds = [one.seconds for one in some if one.seconds is not None]
    return Times(len(seconds), median(seconds) if seconds else None)


def _label_rows(verdicts: Sequence[tuple[str, Verdict]]) -> tuple[LabelRow, ...]:
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for explainer, one in verdicts:
        groups.setdefault((one.was or one.label, explainer), []).append(one)
    return tuple(_label_row(*key, some) for key, some in sorted(groups.items()))


def _label_row(label: str, explainer: str, verdicts: Sequence[Verdict]) -> LabelRow:
    counts = Counter(one.kind for one in verdicts)
    ious = [one.iou for one in verdicts if one.iou is not None]
    missed = counts[VerdictKind.ADDED]
    return LabelRow(
        label,
        explainer,
        len(verdicts) - missed,
        counts[VerdictKind.KEPT],
        counts[VerdictKind.MOVED],
        counts[VerdictKind.RESIZED],
        counts[VerdictKind.RELABELLED],
        counts[VerdictKind.DELETED],
        missed,
        sum(ious) / len(ious) if ious else None,
    )


def _histogram(verdicts: Iterable[Verdict]) -> tuple[int, ...]:
    counts = Counter(min(int(one.iou * BINS), BINS - 1) for one in verdicts if one.iou is not None)
    return tuple(counts[number] for number in range(BINS))


def _reliability(verdicts: Sequence[Verdict]) -> Reliability:
    """Return how often boxes of alike scores were kept: with their label, with an IoU of at least `SAME_IOU`."""
    scored = [(one.score, _is_kept(one)) for one in verdicts if one.was and one.score is not None]
    if not scored:
        return Reliability()
    scores, kept = (np.array(values, dtype=np.float64) for values in zip(*scored, strict=True))
    numbers = np.minimum((scores * BINS).astype(int), BINS - 1)
    groups = [(number, numbers == number) for number in np.unique(numbers).tolist()]
    bins = tuple(
        ScoreBin(
            number / BINS,
            (number + 1) / BINS,
            int(some.sum()),
            float(scores[some].mean()),
            float(kept[some].mean()),
        )
        for number, some in groups
    )
    return Reliability(bins, sum(one.boxes * abs(one.score - one.kept) for one in bins) / len(scores))


def _is_kept(one: Verdict) -> bool:
    return one.label == one.was and one.iou is not None and one.iou >= SAME_IOU


def _worst(compared: Sequence[Correction]) -> tuple[WorstPicture, ...]:
    found = [
        _picture(one, item)
        for one in compared
        for item in range(len(one.addresses))
        if any(box.item == item for box in (*one.predicted, *one.boxes))
    ]
    return tuple(sorted(found, key=lambda one: (one.quality, one.task, one.item))[:WORST])


def _picture(one: Correction, item: int) -> WorstPicture:
    predicted, boxes = (tuple(box for box in some if box.item == item) for some in (one.predicted, one.boxes))
    labels = {box.label for box in (*predicted, *boxes)}
    pairs = [(_corners(predicted, label), _corners(boxes, label)) for label in sorted(labels)]
    return WorstPicture(one.task, item, one.addresses[item], box_quality(pairs), predicted, boxes)


def _corners(boxes: Sequence[BoxRegion], label: str) -> Any:  # noqa: ANN401 - an array (N, 4) of parts of sides
    return np.array([box.corners for box in boxes if box.label == label], dtype=np.float64).reshape(-1, 4)
