"""A training order: everything that a worker needs to know to train, as JSON; it knows neither ledger nor Label Studio.

The same order on the same pictures gives the same model, also where it was interrupted and taken up again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from heatbox.corrections.corrected import Corrected

__all__ = ["HeadWish", "TrainingOptions", "TrainingOrder"]

HeadWish = Literal["keep", "softmax", "sigmoid", "arcface"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        head: `keep`: as the model that is begun from; `softmax`: one class a picture; `sigmoid`: several; `arcface`:
            an embedding head with an angular margin.
        epochs: passes over the pictures, at most.
        patience: epochs without a lower error on the validation part, after which it ends.
        learning_rate: the highest of the schedule.
        unfreeze: how many of the network's last stages learn too; 0: its head alone, from features that are kept.
        box_weight: of the part of the loss that says how much of the heatmap's energy lies inside the boxes; 0: boxes
            are not looked at.
        augment: whether pictures are also learnt from mirrored and cut.
        seed: of everything that is drawn.
    """

    head: HeadWish = "keep"
    epochs: int = 60
    patience: int = 20
    learning_rate: float = 3e-3
    unfreeze: int = 0
    box_weight: float = 1.0
    augment: bool = True
    seed: int = 0


@dataclass(frozen=True)
class TrainingOrder:
    """What is to be learnt.

    Attributes:
        base: `name@version` of the model that is begun from.
        name: of the new model in the store.
        labels: class names in their order; empty: those of the data, else of the base.
        class_of: pairs (label of the project, class of the base) whose head rows are begun from.
        corrected: pictures that people corrected.
        data: folders of further pictures, as `heatbox fit` reads them.
        labels_only: whether boxes of `data` are left aside.
        options: how to train.
        pipeline: `Pipeline.as_dict` of the way in which boxes are made when models are compared; None: the default.
        champion: `name@version` of the model to compare with; empty: there is none.
        fit: explainers that learn about the new model, by entry-point name.
    """

    base: str
    name: str
    labels: tuple[str, ...] = ()
    class_of: tuple[tuple[str, str], ...] = ()
    corrected: tuple[Corrected, ...] = ()
    data: tuple[str, ...] = ()
    labels_only: bool = False
    options: TrainingOptions = field(default_factory=TrainingOptions)
    pipeline: Mapping[str, Any] | None = None
    champion: str = ""
    fit: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        changes = {
            "corrected": [one.as_dict() for one in self.corrected],
            "options": asdict(self.options),
            "labels": list(self.labels),
            "class_of": [list(pair) for pair in self.class_of],
            "data": list(self.data),
            "fit": list(self.fit),
        }
        return {**plain, **changes}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        changes = {
            "corrected": tuple(Corrected.from_dict(one) for one in value["corrected"]),
            "options": TrainingOptions(**value["options"]),
            "labels": tuple(value["labels"]),
            "class_of": tuple((label, name) for label, name in value["class_of"]),
            "data": tuple(value["data"]),
            "fit": tuple(value["fit"]),
        }
        return cls(**{**value, **changes})
