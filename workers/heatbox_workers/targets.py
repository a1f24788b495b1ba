"""Which classes to explain in a picture: those that were asked for, else the classifier's confident ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor

from heatbox.errors import LabelUnknownError
from heatbox.pipeline import Pipeline

__all__ = ["Target", "absence", "choose_targets", "classes_by_label"]


@dataclass(frozen=True)
class Target:
    """One class to explain: label of the project, class index, probability in [0, 1]."""

    label: str
    class_index: int
    probability: float


def classes_by_label(pipeline: Pipeline, classes: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the class indices that stand for each label of the project.

    Raises:
        LabelUnknownError: a label was asked for that no class stands for.
    """
    index = {name: position for position, name in enumerate(classes)}
    pairs = pipeline.label_map or tuple((name, name) for name in classes)
    known: dict[str, list[int]] = {}
    for name, label in pairs:
        if name in index:
            known.setdefault(label, []).append(index[name])
    for label in pipeline.labels:
        if label not in known:
            close = get_close_matches(label, known, n=3, cutoff=0.5)
            hint = f"Did you mean {', '.join(map(repr, close))}?" if close else "See `heatbox models show`."
            whose = "The project has" if pipeline.label_map else "The classifier knows"
            raise LabelUnknownError(f"{whose} no label {label!r}.", hint)
    return {label: known[label] for label in pipeline.labels} if pipeline.labels else known


def choose_targets(
    probabilities: Tensor,
    known: Mapping[str, list[int]],
    pipeline: Pipeline,
    labels: Sequence[str] | None = None,
) -> list[Target]:
    """Return what to explain in one picture, the most probable first, each label by its most probable class.

    Args:
        probabilities: (C,) in [0, 1].
        known: class indices by label.
        pipeline: with labels named, each is explained however improbable it is; otherwise at most `max_labels`
            classes of at least `min_probability`, or their label's own.
        labels: that are known to be in this picture; each is explained however improbable it is. None: nobody knows.
    """
    targets = _ranked(probabilities, known)
    if labels is not None:
        return [target for target in targets if target.label in labels]
    if pipeline.labels:
        return targets
    likely = [target for target in targets if target.probability >= pipeline.min_probability_of(target.label)]
    return likely[: pipeline.max_labels]


def absence(probabilities: Tensor, known: Mapping[str, list[int]], pipeline: Pipeline) -> float:
    """Return how sure it is that no label is there, in [0, 1]: 0 where one has nearly reached its threshold."""
    shares = [
        target.probability / max(pipeline.min_probability_of(target.label), target.probability, 1e-9)
        for target in _ranked(probabilities, known)
    ]
    return 1.0 - max(shares, default=0.0)


def _ranked(probabilities: Tensor, known: Mapping[str, list[int]]) -> list[Target]:
    values = probabilities.tolist()
    best = [max((values[index], -index) for index in indices) for indices in known.values()]
    targets = [Target(label, -index, value) for label, (value, index) in zip(known, best, strict=True)]
    return sorted(targets, key=lambda target: (-target.probability, target.class_index))
