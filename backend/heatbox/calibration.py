"""Calibrated scores: which predicted boxes people kept, and what a project's raw scores are worth by that.

A box was kept where a person's annotation has a rectangle of the same label on the same picture with an IoU of at least
`SAME_IOU`. The curve through raw scores and shares kept is fitted by `heatbox_workers.calibrate`; here it is a tuple of
pairs, stored in the ledger for a project and the version that its pipeline has without a calibration.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, Index, Integer, Select, String, Table, Text, select

from heatbox.ledger import Ledger, metadata
from heatbox.pipeline import Pipeline
from heatbox.studio.annotations import counting_annotation
from heatbox.studio.client import is_own
from heatbox.studio.corrections import AnsweredTask
from heatbox.studio.regions import SAME_IOU, BoxRegion, best_pairs, read_boxes

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
    found = [(one, one.score) for one in _rectangles(prediction.get("result")) if one.score is not None]
    kept = best_pairs([one for one, _ in found], _rectangles(answer["result"]))
    return [JudgedBox(task, score, index in kept) for index, (_, score) in enumerate(found)]


def _rectangles(result: object) -> list[BoxRegion]:
    """Return the rectangles; polygons and masks beside them are the same finds once more."""
    return [one for one in read_boxes(result)[0] if one.kind == "rectanglelabels"]


def _rows(project: int, version: str) -> Select[str]:
    return select(calibrations.c.pairs).where(
        calibrations.c.project == project, calibrations.c.version == version
    )


def _pairs(text: str) -> Pairs:
    return tuple((float(score), float(share)) for score, share in json.loads(text))
