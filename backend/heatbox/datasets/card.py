"""The card of a data set: its classes in an order that never changes, how it was split, and how much is in it.

A later export into the same place keeps the order and appends what is new, so that a network that learnt from the
former one still means the same by class 3.
"""

import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatbox.datasets.examples import SPLITS, Example, Split
from heatbox.datasets.formats import ExportFormat
from heatbox.errors import OutputError

__all__ = ["CARD", "Counts", "Target", "card_text", "class_order", "is_export"]

CARD = "card.json"
FORMAT_VERSION = 1
SPLIT_RULE = (
    "By the SHA-256 of the picture file's content: its first 32 bits as a part of 2^32; below 0.70 train, below 0.85 "
    "val, else test. A picture stays where it is when the data set grows."
)
_MAKER = "heatbox export"


@dataclass(frozen=True)
class Target:
    """An export that is asked for.

    Attributes:
        folder: where.
        form: what.
        labels: the classes, in the order of the project's label config.
        project: number in Label Studio; None: not from there.
        replace: whether a former export in the folder may go; the order of its classes stays.
    """

    folder: Path
    form: ExportFormat
    labels: Sequence[str]
    project: int | None = None
    replace: bool = False


@dataclass
class Counts:
    """How much of a data set there is, by split and class.

    Attributes:
        pictures: by split.
        of_class: pictures with the class, by split and class.
        boxes: by split and class.
    """

    pictures: Counter[Split] = field(default_factory=Counter)
    of_class: Counter[tuple[Split, str]] = field(default_factory=Counter)
    boxes: Counter[tuple[Split, str]] = field(default_factory=Counter)

    def add(self, example: Example, *, is_whole: bool = True) -> None:
        """Count a picture and its boxes; the boxes only where nothing but crops of them was written."""
        split = example.split
        if is_whole:
            self.pictures[split] += 1
            self.of_class.update((split, label) for label in example.labels)
        self.boxes.update((split, one.label) for one in example.boxes or ())

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return JSON-ready values, with a row for each class."""
        return {
            split: {
                "pictures": self.pictures[split],
                "classes": {
                    name: {"pictures": self.of_class[split, name], "boxes": self.boxes[split, name]}
                    for name in classes
                },
            }
            for split in SPLITS
        }


def class_order(target: Target) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the classes of an export: those of a former export there, then what is new; and what placed each.

    Raises:
        OutputError: the folder holds the export of another project.
    """
    card = _former(target.folder)
    if card is not None and card.get("project") != target.project:
        raise OutputError(
            f"{target.folder} holds the export of project {card.get('project')}, not of {target.project}.",
            "Name another folder.",
        )
    former = () if card is None else card["classes"]
    sources = {**dict.fromkeys(target.labels, "label-config"), **dict.fromkeys(former, "former-card")}
    return tuple(dict.fromkeys((*former, *target.labels))), sources


def is_export(folder: Path) -> bool:
    """Return whether the folder was written by an export."""
    return _former(folder) is not None


def card_text(target: Target, classes: Sequence[str], counts: Counts, more: Mapping[str, Any]) -> str:
    """Return the card; the same data set has the same one."""
    card = {
        "made_by": _MAKER,
        "heatbox": importlib.metadata.version("heatbox"),
        "format": target.form.value,
        "format_version": FORMAT_VERSION,
        "project": target.project,
        "classes": list(classes),
        "split_rule": SPLIT_RULE,
        "counts": counts.as_dict(classes),
        **more,
    }
    return json.dumps(card, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _former(folder: Path) -> dict[str, Any] | None:
    """Return the card of a former export, None where there is none that can be read."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    match card:
        case {"made_by": made_by, "classes": [*classes]} if made_by == _MAKER:
            return card if all(isinstance(name, str) for name in classes) else None
    return None
