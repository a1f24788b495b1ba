"""Calibrated scores: which predicted boxes people kept, and what a project's raw scores are worth by that.

A box was kept where a person's annotation has a rectangle of the same label on the same picture with an IoU of at least
`SAME_IOU`. The curve through raw scores and shares kept is fitted by `heatbox_workers.calibrate`; here it is a tuple of
pairs, stored in the ledger for a project and the version that its pipeline has without a calibration.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Column, DateTime, Index, Integer, Select, String, Table, Text, select

from heatbox.boxes import iou_matrix
from heatbox.ledger import Ledger, metadata
from heatbox.pipeline import Pipeline
from heatbox.studio.annotations import counting_annotation
from heatbox.studio.client import is_own
from heatbox.studio.corrections import AnsweredTask

__all__ = [
    "SAME_IOU",
    "JudgedBox",
    "Judgement",
    "Pairs",
    "calibrated",
    "forget_calibration",
    "judge",
    "known_versions",
    "store_calibration",
    "uncalibrated",
]

SAME_IOU = 0.5
"""From which IoU on a person's rectangle is the predicted one, moved."""

Pairs = tuple[tuple[float, float], ...]

calibrations = Table(
    "calibrations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", Integer, nullable=False),
    Column("version", String(300), nullable=False),  # of the pipeline without a calibration
    Column("pairs", Text, nullable=False),
    Column("boxes", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
Index("calibrations_of_a_project", calibrations.c.project, calibrations.c.version, calibrations.c.id)


@dataclass(frozen=True)
class JudgedBox:
    """A predicted box that people have judged: number of its task, raw score in [0, 1], whether they kept it."""

    task: int
    score: float
    kept: bool


@dataclass(frozen=True)
class Judgement:
    """What people's annotations say about a project's predictions.

    Attributes:
        boxes: in ascending order of their tasks.
        skipped: predictions of heatbox by another version: another explainer's scores mean something else.
    """

    boxes: tuple[JudgedBox, ...]
    skipped: int = 0


def uncalibrated(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with raw scores; it finds the same boxes."""
    return replace(pipeline, calibration=())


def calibrated(ledger: Ledger, project: int, pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with the project's newest calibration; as it is where there is none."""
    version = uncalibrated(pipeline).version
    newest = _rows(project, version).order_by(calibrations.c.id.desc()).limit(1)
    with ledger.reading() as connection:
        text = connection.scalar(newest)
    return replace(pipeline, calibration=() if text is None else _pairs(text))


def known_versions(ledger: Ledger, project: int, pipeline: Pipeline) -> frozenset[str]:
    """Return under which versions the project's predictions have this pipeline's raw scores."""
    base = uncalibrated(pipeline)
    with ledger.reading() as connection:
        texts = connection.scalars(_rows(project, base.version)).all()
    return frozenset({base.version, *(replace(base, calibration=_pairs(text)).version for text in texts)})


def store_calibration(ledger: Ledger, project: int, pipeline: Pipeline, pairs: Pairs, boxes: int) -> bool:
    """Let a project be served with these pairs from its next request on; return whether that is new.

    Args:
        ledger: keeps them.
        project: number in Label Studio.
        pipeline: of the project; its own calibration does not matter.
        pairs: (raw score, share kept), ascending; none: raw scores again.
        boxes: that they were learnt from.
    """
    base = uncalibrated(pipeline)
    if calibrated(ledger, project, base).calibration == pairs:
        return False
    row = {"project": project, "version": base.version, "pairs": json.dumps(pairs), "boxes": boxes}
    with ledger.writing() as connection:
        connection.execute(calibrations.insert().values(**row, created_at=datetime.now(UTC)))
    return True


def forget_calibration(ledger: Ledger, project: int, pipeline: Pipeline) -> bool:
    """Let a project have raw scores again; return whether they were calibrated.

    Older calibrations stay in the ledger, unused: by them the predictions that they scored are known.
    """
    return store_calibration(ledger, project, pipeline, (), 0)


def judge(tasks: Iterable[AnsweredTask], versions: frozenset[str]) -> Judgement:
    """Compare what was predicted with what people made of it.

    Args:
        tasks: that people have annotated.
        versions: whose predictions count; of several on a task the newest does, since their boxes are the same.
    """
    boxes: list[JudgedBox] = []
    skipped = 0
    for task in tasks:
        own = [one for one in task.predictions if is_own(str(one.get("model_version")))]
        known = [one for one in own if one["model_version"] in versions]
        skipped += len(own) - len(known)
        answer = counting_annotation(task.annotations, _tells_of_boxes)
        if known and answer is not None:
            boxes += _judged(task.id, max(known, key=lambda one: int(one["id"])), answer)
    return Judgement(tuple(boxes), skipped)


def _tells_of_boxes(annotation: Mapping[str, Any]) -> bool:
    """Return whether somebody looked for boxes; who only chose what is in the picture has rejected none.

    An empty annotation says that there is nothing, and one that began with a prediction that its boxes were seen.
    """
    result = annotation.get("result")
    if not isinstance(result, list):
        return False
    return not result or annotation.get("parent_prediction") is not None or bool(_rectangles(result))


def _judged(task: int, prediction: Mapping[str, Any], answer: Mapping[str, Any]) -> list[JudgedBox]:
    result = prediction.get("result")
    found = _rectangles(result if isinstance(result, list) else [])
    scored = [(one, score) for one in found if (score := _raw_score(one.region)) is not None]
    kept = _matched([one for one, _ in scored], _rectangles(answer["result"]))
    return [JudgedBox(task, score, index in kept) for index, (_, score) in enumerate(scored)]


@dataclass(frozen=True)
class _Rectangle:
    region: Mapping[str, Any]
    item_index: int
    label: str
    xyxy: tuple[float, float, float, float]  # percent; the IoU is that of pixels


def _rectangles(result: Sequence[Any]) -> list[_Rectangle]:
    """Return the rectangles; polygons and masks beside them are the same finds once more."""
    found = (_rectangle(one) for one in result if isinstance(one, Mapping))
    return [one for one in found if one is not None]


def _rectangle(region: Mapping[str, Any]) -> _Rectangle | None:
    match region:
        case {
            "type": "rectanglelabels",
            "value": {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": [str(label), *_]},
        } if all(_is_number(side) for side in (x, y, width, height)):
            index = region.get("item_index")
            return _Rectangle(
                region, index if type(index) is int else 0, label, (x, y, x + width, y + height)
            )
    return None


def _matched(predicted: Sequence[_Rectangle], drawn: Sequence[_Rectangle]) -> set[int]:
    """Return which predicted rectangles were kept, each for one drawn one, the closest pairs first."""
    if not predicted or not drawn:
        return set()
    ious = iou_matrix(np.array([one.xyxy for one in predicted]), np.array([one.xyxy for one in drawn]))
    pairs = sorted(
        (-ious[row, column], row, column)
        for row, one in enumerate(predicted)
        for column, other in enumerate(drawn)
        if ious[row, column] >= SAME_IOU and (one.label, one.item_index) == (other.label, other.item_index)
    )
    matched: dict[int, int] = {}
    for _, row, column in pairs:
        if row not in matched and column not in matched.values():
            matched[row] = column
    return set(matched)


def _raw_score(region: Mapping[str, Any]) -> float | None:
    """Return the score before any calibration, None where the region has none."""
    match region:
        case {"meta": {"heatbox": {"raw_score": score}}} | {"score": score} if _is_number(score):
            return float(score) if 0 <= score <= 1 else None
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(project: int, version: str) -> Select[str]:
    return select(calibrations.c.pairs).where(
        calibrations.c.project == project, calibrations.c.version == version
    )


def _pairs(text: str) -> Pairs:
    return tuple((float(score), float(share)) for score, share in json.loads(text))
