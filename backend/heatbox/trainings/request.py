"""What a person, or a webhook, asks to be learnt; orders are made of it (`heatbox.trainings.preparing`)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from heatbox.trainings.order import TrainingOptions

__all__ = ["TrainingRequest"]


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be learnt.

    Attributes:
        project: number in Label Studio, whose corrected pictures are learnt from; None: only folders are.
        data: folders of further pictures.
        labels: class names in their order; empty: those of the project, else of the data.
        labels_only: whether boxes of `data` are left aside.
        base: model that is begun from; empty: what the project is served with.
        name: of the new model; empty: that of the base.
        fit: explainers that learn about the new model; None: those that have learnt about the one before.
        options: how to train.
        activate: whether a better model is to serve at once.
    """

    project: int | None = None
    data: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    labels_only: bool = False
    base: str = ""
    name: str = ""
    fit: tuple[str, ...] | None = None
    options: TrainingOptions = field(default_factory=TrainingOptions)
    activate: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        fit = None if self.fit is None else list(self.fit)
        changes = {
            "data": list(self.data),
            "labels": list(self.labels),
            "fit": fit,
            "options": asdict(self.options),
        }
        return {**vars(self), **changes}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        changes = {
            "data": tuple(value["data"]),
            "labels": tuple(value["labels"]),
            "fit": None if value["fit"] is None else tuple(value["fit"]),
            "options": TrainingOptions(**value["options"]),
        }
        return cls(**{**value, **changes})
