"""A corrected picture: what the person who counts said about it, and what had been predicted. Plain JSON-ready values.

Places are parts of the upright picture's sides, because a label config knows the size of a picture only once it has
been read; `heatbox.datasets` turns them into pixels.
"""

from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Corners", "Corrected", "Placed"]

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placed:
    """A box with its label.

    Attributes:
        label: of the project.
        corners: x1, y1, x2, y2 in [0, 1], parts of the upright picture's width and height; x1 < x2, y1 < y2.
        score: of a predicted box, raw, in [0, 1]; None for one that a person drew, or that has none.
    """

    label: str
    corners: Corners
    score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"label": self.label, "corners": list(self.corners), "score": self.score}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        x1, y1, x2, y2 = value["corners"]
        return cls(value["label"], (x1, y1, x2, y2), value["score"])


@dataclass(frozen=True)
class Corrected:
    """One picture of a task as people left it.

    Attributes:
        project: number in Label Studio.
        task: number in Label Studio.
        address: of the picture, as the task's data names it.
        labels: what is in the picture, sorted; of its boxes and of its choices.
        boxes: that are right now; None: the person said what is there, and nobody looked for boxes.
        predicted: what the person was shown; empty where nothing was predicted.
        version: of that prediction; empty: there was none.
        item: which of the task's pictures, from 0.
        annotation: number in Label Studio of what counts.
        who: number of the person; None: not known.
        seconds: that the person took; None: not known.
        changed: when the annotation was changed last, ISO 8601 in UTC, so that later ones sort last; empty: not known.
    """

    project: int
    task: int
    address: str
    labels: tuple[str, ...]
    boxes: tuple[Placed, ...] | None
    predicted: tuple[Placed, ...] = ()
    version: str = ""
    item: int = 0
    annotation: int | None = None
    who: int | None = None
    seconds: float | None = None
    changed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        boxes = None if self.boxes is None else [one.as_dict() for one in self.boxes]
        return {
            **vars(self),
            "labels": list(self.labels),
            "boxes": boxes,
            "predicted": [one.as_dict() for one in self.predicted],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        boxes = value["boxes"]
        changes = {
            "labels": tuple(value["labels"]),
            "boxes": None if boxes is None else tuple(Placed.from_dict(one) for one in boxes),
            "predicted": tuple(Placed.from_dict(one) for one in value["predicted"]),
        }
        return cls(**{**value, **changes})
