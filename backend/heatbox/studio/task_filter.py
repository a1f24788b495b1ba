"""Which tasks of a project a run takes: words like `unlabelled`, `view=12`, `ids=3,7-20`, and the value they make."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn, Self

from heatbox.errors import RequestError

__all__ = ["TaskFilter", "parse_filter"]

_WORDS = {
    "unlabelled": "not labelled yet, as Label Studio counts it",
    "unpredicted": "without any prediction, by whomever",
    "view": "view=12, the tasks that this tab of the data manager shows",
    "ids": "ids=3,7-20, tasks by number",
}
_NUMBER = r"[0-9]{1,15}"  # Label Studio compares ids as floats: these are exact


@dataclass(frozen=True)
class TaskFilter:
    """What a task must be to be taken; every condition that is set must hold.

    Attributes:
        unlabelled: Label Studio does not count it as labelled.
        unpredicted: it has no prediction of anybody.
        view: number of a saved tab of the data manager whose filters apply; its ordering and ticks do not.
        ids: ranges of task numbers, both ends included; kept in ascending order, without overlaps.
    """

    unlabelled: bool = False
    unpredicted: bool = False
    view: int | None = None
    ids: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _merged(self.ids))

    def next_id(self, after: int) -> int | None:
        """Return the smallest number above `after` that a task may have; None where there is none."""
        if not self.ids:
            return after + 1
        return next((max(first, after + 1) for first, last in self.ids if last > after), None)

    def has_id(self, task_id: int) -> bool:
        """Return whether a task may have this number."""
        return not self.ids or any(first <= task_id <= last for first, last in self.ids)

    def as_dict(self) -> dict[str, Any]:
        """Return the filter as JSON-ready values."""
        return {
            "unlabelled": self.unlabelled,
            "unpredicted": self.unpredicted,
            "view": self.view,
            "ids": [list(pair) for pair in self.ids],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        return cls(**{**value, "ids": tuple((int(first), int(last)) for first, last in value["ids"])})


def parse_filter(texts: Sequence[str]) -> TaskFilter:
    """Read the words of a filter; all of them must hold, and several `ids=` add up.

    Args:
        texts: each `unlabelled`, `unpredicted`, `view=NUMBER` or `ids=NUMBERS`.

    Raises:
        RequestError: a word is unknown, or its value is not what it takes.
    """
    unlabelled = unpredicted = False
    views: set[int] = set()
    ids: list[tuple[int, int]] = []
    for text in texts:
        match text.strip().partition("="):
            case "unlabelled", "", _:
                unlabelled = True
            case "unpredicted", "", _:
                unpredicted = True
            case "view", "=", number if re.fullmatch(_NUMBER, number):
                views.add(int(number))
            case "ids", "=", numbers:
                ids += [_range(text, part.strip()) for part in numbers.split(",")]
            case word, _, _:
                _refuse(text, word)
    if len(views) > 1:
        raise RequestError(f"The filter names several views: {sorted(views)}.", "Name one view.")
    return TaskFilter(unlabelled, unpredicted, views.pop() if views else None, tuple(ids))


def _range(text: str, part: str) -> tuple[int, int]:
    match = re.fullmatch(rf"({_NUMBER})(?:-({_NUMBER}))?", part)
    if not match:
        raise RequestError(
            f"The filter {text!r} has {part!r} where a task number belongs.", "As in ids=3,7-20."
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise RequestError(
            f"The filter {text!r} has the range {part!r}, which ends before it begins.", "Turn it."
        )
    return first, last


def _refuse(text: str, word: str) -> NoReturn:
    if word in _WORDS:
        raise RequestError(
            f"The filter {text!r} is not complete or says too much.", f"It is: {_WORDS[word]}."
        )
    close = get_close_matches(word, _WORDS, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise RequestError(f"There is no filter {text!r}.", f"{hint}There are: {', '.join(_WORDS)}.")


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
