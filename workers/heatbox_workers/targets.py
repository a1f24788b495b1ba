"""Which classes to explain in a picture: those that were asked for, else the classifier's confident ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor

from heatbox.errors import LabelUnknownError
from heatbox.pipeline import Pipeline

__all__ = ["Target", "choose_targets", "classes_by_label"]


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


def choose_targets(probabilities: Tensor, known: Mapping[str, list[int]], pipeline: Pipeline) -> list[Target]:
    """Return what to explain in one picture, the most probable first, each label by its most probable class.

    Args:
        probabilities: (C,) in [0, 1].
        known: class indices by label.
        pipeline: with labels named, each is explained however improbable it is; otherwise at most `max_labels`
            classes of at least `min_probability`.
    """
    values = probabilities.tolist()
    best = [max((values[index], -index) for index in indices) for indices in known.values()]
    targets = [Target(label, -index, value) for label, (value, index) in zip(known, best, strict=True)]
    targets.sort(key=lambda target: (-target.probability, target.class_index))
    if pipeline.labels:
        return targets
    return [target for target in targets if target.probability >= pipeline.min_probability][
        : pipeline.max_labels
    ]
