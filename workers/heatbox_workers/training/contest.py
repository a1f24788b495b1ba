"""Champion and challenger: both annotate pictures that neither has learnt from, as the service would, and are measured.

Accuracy of a label: the share of pictures whose presence or absence of it the classifier tells right (softmax and
ArcFace: the top class; sigmoid: at least one half). Box quality of a label: `heatbox.metrics.box_quality`, over the
pictures where people looked for boxes. Both as means over the labels that the pictures show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatbox.annotation import Annotation
from heatbox.datasets.examples import Example
from heatbox.fitted import find_state
from heatbox.metrics import agreement, box_quality
from heatbox.models import Card, ModelStore
from heatbox.pictures.images import Limits, read_picture
from heatbox.pipeline import Pipeline, Way
from heatbox_workers.annotate import make_annotator
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import states_of
from heatbox_workers.targets import classes_by_label

__all__ = ["Measured", "is_better", "measure", "pipeline_of"]

_BATCH = 8
_ACCURACY_SLACK = 0.02  # of one picture in fifty, which may be chance
_QUALITY_SLACK = 0.01
_LEAST_GAIN = 0.005  # on few pictures, smaller ones come of nothing
_HALF = 0.5

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """How good a model is on held-out pictures.

    Attributes:
        accuracy: mean over the labels; None where no picture was read.
        box_quality: mean over the labels with boxes; None where nobody looked for boxes.
        mean_iou: over the true boxes.
        found: share of the true boxes with a predicted one of IoU at least 0.5.
        labels: the same for each label, by its name.
    """

    accuracy: float | None
    box_quality: float | None
    mean_iou: float | None
    found: float | None
    labels: Mapping[str, Mapping[str, float | int | None]]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return vars(self) | {"labels": {name: dict(value) for name, value in self.labels.items()}}


def is_better(challenger: Measured, champion: Measured | None) -> bool:
    """Return whether the challenger should serve: better in one, and in neither worse than chance explains.

    Without a champion it should. What was measured of none of them does not count; where nothing was, it should not.
    """
    if champion is None:
        return True
    accuracy = _difference(challenger.accuracy, champion.accuracy)
    quality = _difference(challenger.box_quality, champion.box_quality)
    none_is_worse = accuracy >= -_ACCURACY_SLACK and quality >= -_QUALITY_SLACK
    return none_is_worse and max(accuracy, quality) >= _LEAST_GAIN


def pipeline_of(pipeline: Pipeline, card: Card, store: ModelStore, labels: Sequence[str]) -> Pipeline:
    """Return the same pipeline for another model: its classes are the labels, its states the newest of that model."""
    pairs = tuple((label, label) for label in labels) if pipeline.label_map else ()
    own = find_state(store, card, pipeline.explainer)
    ways = tuple((label, _renewed(way, store, card)) for label, way in pipeline.label_ways if label in labels)
    return replace(
        pipeline,
        model=card.id,
        labels=tuple(label for label in pipeline.labels if label in labels),
        label_map=pairs,
        calibration=(),
        state=own.id if own else "",
        label_ways=ways,
    )


def _renewed(way: Way, store: ModelStore, card: Card) -> Way:
    state = find_state(store, card, way.explainer)
    return replace(way, state=state.id if state else "")


def measure(  # noqa: PLR0913, PLR0917 - what is measured, with what, on what
    classifier: TorchClassifier,
    pipeline: Pipeline,
    store: ModelStore,
    examples: Sequence[Example],
    limits: Limits,
    tell: Callable[[], None] = lambda: None,
) -> Measured:
    """Let a model annotate pictures and compare that with what people said.

    Args:
        classifier: plain.
        pipeline: of its model.
        store: has the states that the pipeline names.
        examples: pictures that it has not learnt from.
        limits: of the pictures.
        tell: called after each picture.

    Raises:
        HeatboxError: no picture at all can be annotated like this.
    """
    states = states_of(pipeline, classifier, store)
    informed = replace(classifier, state=states.get(pipeline.state, {}))
    annotator = replace(make_annotator(pipeline, informed, limits, states), batch_size=_BATCH)
    found: list[tuple[Example, Annotation]] = []
    for example, outcome in zip(
        examples, annotator.annotate(example.path for example in examples), strict=True
    ):
        if isinstance(outcome, Annotation):
            found.append((example, outcome))
        tell()
    told = _presence(classifier, pipeline, [example for example, _ in found], limits)
    return _measured(found, told)


def _presence(
    classifier: TorchClassifier, pipeline: Pipeline, examples: Sequence[Example], limits: Limits
) -> list[set[str]]:
    """Return which labels the classifier says are in each picture."""
    known = classes_by_label(pipeline, classifier.labels)
    label_of = {index: label for label, indices in known.items() for index in indices}
    told: list[set[str]] = []
    for first in range(0, len(examples), _BATCH):
        pixels = [
            read_picture(one.path, limits, at_least=classifier.input_size).pixels
            for one in examples[first : first + _BATCH]
        ]
        probabilities = classifier.probabilities(classifier.logits(classifier.preprocess(pixels))).cpu()
        told += [_said(row, label_of, several=classifier.card.head == "sigmoid") for row in probabilities]
    return told


def _said(probabilities: Tensor, label_of: Mapping[int, str], *, several: bool) -> set[str]:
    indices = torch.nonzero(probabilities >= _HALF).flatten() if several else probabilities.argmax()[None]
    return {label_of[index] for index in indices.tolist() if index in label_of}


def _measured(found: Sequence[tuple[Example, Annotation]], told: Sequence[set[str]]) -> Measured:
    names = sorted({label for example, _ in found for label in example.labels})
    rows: dict[str, dict[str, float | int | None]] = {}
    every: list[tuple[Boxes, Boxes]] = []
    for label in names:
        right = [
            (label in example.labels) == (label in said)
            for (example, _), said in zip(found, told, strict=True)
        ]
        pairs = [
            _pair(example, annotation, label) for example, annotation in found if example.boxes is not None
        ]
        shown = any(len(truth) for _, truth in pairs)
        every += pairs if shown else []
        agreed = agreement(pairs)
        rows[label] = {
            "pictures": sum(label in example.labels for example, _ in found),
            "boxes": agreed.truths,
            "accuracy": sum(right) / len(right),
            "box_quality": box_quality(pairs) if shown else None,
            "mean_iou": agreed.mean_iou if shown else None,
            "found": agreed.found if shown else None,
        }
    whole = agreement(every)
    return Measured(
        _mean(rows, "accuracy"),
        _mean(rows, "box_quality"),
        whole.mean_iou if whole.truths else None,
        whole.found if whole.truths else None,
        rows,
    )


def _pair(example: Example, annotation: Annotation, label: str) -> tuple[Boxes, Boxes]:
    """Return predicted and true boxes of a label, in pixels: (B, 4), (G, 4)."""
    predicted = [one.box.as_xyxy() for one in annotation.regions if one.label == label]
    truth = [one.box.as_xyxy() for one in example.boxes or () if one.label == label]
    return np.array(predicted).reshape(-1, 4), np.array(truth).reshape(-1, 4)


def _mean(rows: Mapping[str, Mapping[str, float | int | None]], name: str) -> float | None:
    values = [value for row in rows.values() if (value := row[name]) is not None]
    return sum(values) / len(values) if values else None


def _difference(challenger: float | None, champion: float | None) -> float:
    return 0.0 if challenger is None or champion is None else challenger - champion
