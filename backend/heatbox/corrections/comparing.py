"""What became of each predicted box: the comparison of a prediction with what a person made of it.

Boxes are the same where they share an id, which the editor keeps; else where they have the same label and overlap, the
closest pairs first; else where they overlap and the label is another one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np

from heatbox.boxes import iou_matrix
from heatbox.studio.regions import BoxRegion, alike, best_pairs

__all__ = ["Verdict", "VerdictKind", "compare"]

_EXACT = 5e-4  # parts of a side; the editor rounds
_CHANGED = "prediction-changed"


class VerdictKind(StrEnum):
    """What a person did with a box."""

    KEPT = "kept"
    MOVED = "moved"  # as large as before
    RESIZED = "resized"
    RELABELLED = "relabelled"
    DELETED = "deleted"
    ADDED = "added"


@dataclass(frozen=True)
class Verdict:
    """What became of one box.

    Attributes:
        kind: what was done.
        item: which picture of the task.
        label: of the box now; of a deleted one, the predicted one.
        was: the predicted label; empty for a box that nobody predicted.
        iou: of the predicted box with the present one; None where one of them is not there, or not known.
        score: of the predicted box, raw; None: it had none.
        explainer: of the predicted box; empty: that of the prediction's version, or nobody predicted it.
    """

    kind: VerdictKind
    item: int
    label: str
    was: str = ""
    iou: float | None = None
    score: float | None = None
    explainer: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        return cls(**{**value, "kind": VerdictKind(value["kind"])})


def compare(predicted: Sequence[BoxRegion], drawn: Sequence[BoxRegion]) -> list[Verdict]:
    """Return a verdict for each predicted box, and one for each box that was added.

    Args:
        predicted: what the person was shown.
        drawn: what is there now.
    """
    pairs = _pairs(predicted, drawn)
    gone = [one for row, one in enumerate(predicted) if row not in pairs]
    new = [one for column, one in enumerate(drawn) if column not in pairs.values()]
    return [
        *(_verdict(predicted[row], drawn[column]) for row, column in sorted(pairs.items())),
        *(
            Verdict(VerdictKind.DELETED, one.item, one.label, one.label, None, one.score, one.explainer)
            for one in gone
        ),
        *(_of_new(one) for one in new),
    ]


def _of_new(drawn: BoxRegion) -> Verdict:
    """Return the verdict on a box without a predicted one; where the editor says it had one, its place is not known."""
    if drawn.origin == _CHANGED:
        return Verdict(
            VerdictKind.MOVED, drawn.item, drawn.label, drawn.label, None, drawn.score, drawn.explainer
        )
    return Verdict(VerdictKind.ADDED, drawn.item, drawn.label)


def _pairs(predicted: Sequence[BoxRegion], drawn: Sequence[BoxRegion]) -> dict[int, int]:
    """Return which drawn box each predicted one became, by their places."""
    by_id = {(one.id, one.item): column for column, one in enumerate(drawn) if one.id}
    pairs: dict[int, int] = {}
    for row, one in enumerate(predicted):
        column = by_id.get((one.id, one.item))
        if column is not None and column not in pairs.values():
            pairs[row] = column
    for may in (alike, _same_picture):
        rows = [row for row in range(len(predicted)) if row not in pairs]
        columns = [column for column in range(len(drawn)) if column not in pairs.values()]
        found = best_pairs([predicted[row] for row in rows], [drawn[column] for column in columns], may)
        pairs |= {rows[row]: columns[column] for row, column in found.items()}
    return pairs


def _same_picture(first: BoxRegion, second: BoxRegion) -> bool:
    return first.item == second.item


def _verdict(before: BoxRegion, now: BoxRegion) -> Verdict:
    iou = float(iou_matrix(np.array([before.corners]), np.array([now.corners]))[0, 0])
    kind = VerdictKind.RELABELLED if before.label != now.label else _change(before, now)
    exact = kind is VerdictKind.KEPT
    found = 1.0 if exact else round(iou, 6)
    return Verdict(kind, now.item, now.label, before.label, found, before.score, before.explainer)


def _change(before: BoxRegion, now: BoxRegion) -> VerdictKind:
    x1, y1, x2, y2 = np.abs(np.subtract(before.corners, now.corners)).tolist()
    if max(x1, y1, x2, y2) <= _EXACT:
        return VerdictKind.KEPT
    width, height = (
        abs((now.corners[far] - now.corners[near]) - (before.corners[far] - before.corners[near]))
        for near, far in ((0, 2), (1, 3))
    )
    return VerdictKind.MOVED if max(width, height) <= 2 * _EXACT else VerdictKind.RESIZED
