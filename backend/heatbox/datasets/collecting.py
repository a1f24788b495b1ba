"""Corrected pictures become examples: fetched, looked at, their boxes in pixels; what cannot be used is told, alone."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from heatbox.boxes import Box
from heatbox.corrections.corrected import Corrected, Placed
from heatbox.datasets.examples import Example, Marked, RejectedExample
from heatbox.datasets.names import Names, called
from heatbox.datasets.stored import digest_of, stored_as
from heatbox.errors import HeatboxError
from heatbox.pictures.images import Limits, read_picture

__all__ = ["BOX_EMPTY", "LABEL_UNKNOWN", "SAME_CONTENT", "Collected", "Fetch", "collect", "with_classes"]

BOX_EMPTY, LABEL_UNKNOWN, SAME_CONTENT = "box-empty", "label-unknown", "same-content"

Fetch = Callable[[str, int | None], Path]
"""Returns the file of an address of a task, as `heatbox.pictures.fetching.Fetcher.fetch`."""

Collected = Example | RejectedExample


def collect(corrected: Sequence[Corrected], fetch: Fetch, limits: Limits) -> Iterator[Collected]:
    """Yield the examples, what was changed last first, so that of one content under two names the later counts.

    One picture is in memory at a time. A fetched file may be gone some minutes later: whoever needs its content
    takes it before the next one.

    Args:
        corrected: in any order.
        fetch: raises HeatboxError.
        limits: for decoding; every picture is decoded wholly, because a cut one is no example.
    """
    collecting = _Collecting(fetch, limits, Names(one.address for one in corrected))
    for one in sorted(corrected, key=_when, reverse=True):
        yield from collecting.collected(one)


def with_classes(items: Iterable[Collected], classes: Collection[str]) -> Iterator[Collected]:
    """Yield the items with nothing but these classes in them; what is left out is told.

    A picture of which nothing is left is rejected: it shows something, and must not count as one of nothing.
    """
    known = frozenset(classes)
    for item in items:
        others = _labels(item) - known if isinstance(item, Example) else set()
        if isinstance(item, RejectedExample) or not others:
            yield item
            continue
        reason = f"Not among the classes: {', '.join(map(repr, sorted(others)))}."
        yield RejectedExample(item.name, LABEL_UNKNOWN, reason, item.task)
        if known.intersection(item.labels) or not item.labels:
            yield replace(
                item,
                labels=tuple(label for label in item.labels if label in known),
                boxes=None if item.boxes is None else _of(item.boxes, known),
                predicted=_of(item.predicted, known),
            )


@dataclass
class _Collecting:
    fetch: Fetch
    limits: Limits
    names: Names
    seen: dict[str, str] = field(default_factory=dict)  # names by content

    def collected(self, one: Corrected) -> Iterator[Collected]:
        try:
            path = self.fetch(one.address, one.task)
            picture = read_picture(path, self.limits)
            sha256 = digest_of(path)
        except HeatboxError as error:
            yield RejectedExample(called(one.address), error.code, error.sentence, one.task)
            return
        size = picture.width, picture.height
        del picture  # whoever is given the example may decode it again
        if sha256 in self.seen:
            reason = f"It has the same content as {self.seen[sha256]!r}, whose annotation is newer."
            yield RejectedExample(called(one.address), SAME_CONTENT, reason, one.task)
            return
        suffix, is_upright = stored_as(path)
        name = self.seen[sha256] = self.names.name(one.address, sha256, suffix)
        yield from _empty(name, one, size)
        yield Example(
            path,
            name,
            sha256,
            *size,
            one.labels,
            None if one.boxes is None else _marked(one.boxes, size),
            _marked(one.predicted, size),
            one.version,
            one.task,
            one.annotation,
            is_upright,
        )


def _when(one: Corrected) -> tuple[str, int, int, int]:
    """Return what sorts the annotation that was changed last to the end."""
    return one.changed, one.annotation or 0, one.task, one.item


def _marked(boxes: Iterable[Placed], size: tuple[int, int]) -> tuple[Marked, ...]:
    found = ((one, _in_pixels(one, size)) for one in boxes)
    return tuple(Marked(one.label, box, one.score) for one, box in found if box is not None)


def _empty(name: str, one: Corrected, size: tuple[int, int]) -> Iterator[RejectedExample]:
    """Tell of the boxes that have nothing of the picture in them."""
    for kind, boxes in (("", one.boxes or ()), ("predicted ", one.predicted)):
        for box in boxes:
            if _in_pixels(box, size) is None:
                reason = f"A {kind}box of {box.label!r} has nothing of the picture in it."
                yield RejectedExample(name, BOX_EMPTY, reason, one.task)


def _in_pixels(one: Placed, size: tuple[int, int]) -> Box | None:
    x1, y1, x2, y2 = one.corners
    width, height = size
    return Box.clipped((x1 * width, y1 * height, x2 * width, y2 * height), width, height)


def _labels(example: Example) -> set[str]:
    return {*example.labels, *(one.label for one in (*(example.boxes or ()), *example.predicted))}


def _of(boxes: Iterable[Marked], known: Collection[str]) -> tuple[Marked, ...]:
    return tuple(one for one in boxes if one.label in known)
