"""An example: a picture file with what people said about it, in pixels, and the part of the data set that it is in.

The part follows from the picture's content alone, so it stays when the data set grows, and one picture under two names
is never both learnt from and measured on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heatbox.boxes import Box

__all__ = ["SPLITS", "Example", "Marked", "RejectedExample", "Split", "for_comparison", "split_of"]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_TRAIN, _VAL = 0.70, 0.85  # upper ends of their shares
_FEWEST_HELD_OUT = 10


@dataclass(frozen=True)
class Marked:
    """A box with its label.

    Attributes:
        label: name of the class.
        box: pixels of the upright picture.
        score: in [0, 1] where it was predicted, else None.
    """

    label: str
    box: Box
    score: float | None = None


@dataclass(frozen=True)
class Example:
    """A picture that can be learnt from.

    Attributes:
        path: the file, on this machine.
        name: file name under which others find it, unique in its data set.
        sha256: of the file's content, in hex.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        labels: what is in it, sorted.
        boxes: where; None: nobody said, there may be any.
        predicted: what had been predicted.
        version: of the prediction; empty: there was none.
        task: number in Label Studio; None: not from there.
        annotation: number in Label Studio; None: not from there.
        is_upright: whether the file can be handed on as it is; otherwise its upright pixels are written anew.
    """

    path: Path
    name: str
    sha256: str
    width: int
    height: int
    labels: tuple[str, ...]
    boxes: tuple[Marked, ...] | None
    predicted: tuple[Marked, ...] = ()
    version: str = ""
    task: int | None = None
    annotation: int | None = None
    is_upright: bool = True

    @property
    def split(self) -> Split:
        """The part of the data set that it is in."""
        return split_of(self.sha256)


@dataclass(frozen=True)
class RejectedExample:
    """A picture that cannot be learnt from, or a part of it: its name, the code of the reason, the reason, its task."""

    name: str
    code: str
    reason: str
    task: int | None = None


def split_of(sha256: str) -> Split:
    """Return the part of a picture by the hash of its content: 70 % train, 15 % val, 15 % test."""
    share = int(sha256[:8], 16) / 0x1_0000_0000
    return "train" if share < _TRAIN else "val" if share < _VAL else "test"


def for_comparison(examples: Sequence[Example]) -> list[Example]:
    """Return those that models are compared on: of test; where they are few, also those that chose an epoch."""
    found = [one for one in examples if one.split == "test"]
    if len(found) < _FEWEST_HELD_OUT:
        found += [one for one in examples if one.split == "val"]
    return found
