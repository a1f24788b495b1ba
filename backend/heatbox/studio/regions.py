"""Boxes of stored results: rectangles and outlines as parts of a picture's sides, and which of them are the same find.

Regions come from people and from any program that writes to Label Studio, which checks almost nothing; what cannot be
understood is told in words and costs only itself. Protocol: Label Studio 1.23.2, `regions` of its editor.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatbox.boxes import iou_matrix

__all__ = ["SAME_IOU", "BoxRegion", "alike", "best_pairs", "read_boxes"]

SAME_IOU = 0.5
"""From which IoU on a person's rectangle is the predicted one, moved."""

Corners = tuple[float, float, float, float]
_Region = Mapping[str, Any]

_WHOLE = 100.0  # percent
_FURTHEST = 1e6  # percent, from the picture; nobody draws there
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class BoxRegion:
    """A box that a result has.

    Attributes:
        kind: type of the region.
        label: as it is stored.
        corners: x1, y1, x2, y2 in [0, 1], parts of the upright picture's sides; x1 < x2, y1 < y2.
        item: which picture of the task.
        id: of the region; a box keeps it on the way from the prediction through the editor.
        origin: prediction, prediction-changed or manual, where the editor said so.
        score: before any calibration, in [0, 1]; None: it has none.
        version: whose prediction it came from; empty where it does not say.
        explainer: that found it; empty: that of the version.
    """

    kind: str
    label: str
    corners: Corners
    item: int = 0
    id: str = ""
    origin: str = ""
    score: float | None = None
    version: str = ""
    explainer: str = ""


def read_boxes(result: object) -> tuple[list[BoxRegion], list[str]]:
    """Return the boxes of a result, and for each region that is none of the known ones why not.

    A rotated rectangle and a polygon count as the box around them. A polygon on a rectangle of the same label is the
    same find once more, and does not count. A mask has no box; answers to questions are not looked at.
    """
    if not isinstance(result, list | tuple):
        return [], ["the result is not a list"]
    found: list[BoxRegion] = []
    problems: list[str] = []
    for region in result:
        read = _read(region) if isinstance(region, Mapping) else "a region is not an object"
        if isinstance(read, BoxRegion):
            found.append(read)
        elif read is not None:
            problems.append(read)
    return _once(found), problems


def alike(first: BoxRegion, second: BoxRegion) -> bool:
    """Return whether two boxes could be the same find: of the same label, on the same picture."""
    return (first.label, first.item) == (second.label, second.item)


def best_pairs(
    first: Sequence[BoxRegion],
    second: Sequence[BoxRegion],
    may: Callable[[BoxRegion, BoxRegion], bool] = alike,
    least: float = SAME_IOU,
) -> dict[int, int]:
    """Return which boxes are the same, by their places: each has one other at most, the closest pairs first.

    Args:
        first: boxes.
        second: others.
        may: whether two boxes may be a pair.
        least: the IoU of a pair.
    """
    if not first or not second:
        return {}
    ious = iou_matrix(np.array([one.corners for one in first]), np.array([one.corners for one in second]))
    candidates = sorted(
        (-ious[row, column], row, column)
        for row, column in np.argwhere(ious >= least).tolist()
        if may(first[row], second[column])
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, row, column in candidates:
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs


def _once(boxes: list[BoxRegion]) -> list[BoxRegion]:
    """Return the boxes without outlines of finds that are there as rectangles."""
    rectangles = [one for one in boxes if one.kind == "rectanglelabels"]
    outlines = [one for one in boxes if one.kind != "rectanglelabels"]
    doubles = {id(outlines[row]) for row in best_pairs(outlines, rectangles)}
    return [one for one in boxes if id(one) not in doubles]


def _read(region: _Region) -> BoxRegion | str | None:
    """Return the box of a region, why it has none, or None where it is not meant to have one."""
    kind, value = region.get("type"), region.get("value")
    corners_of = _CORNERS.get(kind) if isinstance(kind, str) else None
    if corners_of is None:
        return _why_not(kind)
    if not isinstance(value, Mapping):
        return f"a region of type {kind} has no value"
    label = _label(value.get(str(kind)))
    if label is None:
        return f"a region of type {kind} has no label"
    points = list(corners_of(region, value))
    corners = _around(points) if all(one is not None for pair in points for one in pair) else None
    if corners is None:
        return f"a region of type {kind} has no place in the picture"
    return BoxRegion(str(kind), label, corners, _item(region), *_origin(region))


def _why_not(kind: object) -> str | None:
    if not isinstance(kind, str):
        return "a region has no type"
    if kind in {"brushlabels", "keypointlabels"} or not kind.endswith("labels"):
        return None  # a mask, a hint, an answer to a question, a relation
    return f"a region is of type {kind[:40]}"


_Point = tuple[float | None, float | None]  # percent; None: not a number


def _of_rectangle(region: _Region, value: _Region) -> Iterator[_Point]:
    """Yield two opposite corners, or the four of one that is turned around its first."""
    x, y, width, height = (_number(value.get(side)) for side in ("x", "y", "width", "height"))
    angle = _number(value.get("rotation") or 0)
    if x is None or y is None or width is None or height is None or angle is None:
        yield None, None
    elif angle % 360 == 0:
        yield x, y
        yield x + width, y + height
    else:
        across, down = _number(region.get("original_width")), _number(region.get("original_height"))
        if not across or not down:
            yield None, None
            return
        turn, ratio = math.radians(angle), across / down
        cosine, sine = math.cos(turn), math.sin(turn)
        for right, low in ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height)):
            yield x + right * cosine - low / ratio * sine, y + right * ratio * sine + low * cosine


def _of_polygon(_region: _Region, value: _Region) -> Iterator[_Point]:
    points = value.get("points")
    if not isinstance(points, list) or len(points) < _FEWEST_POINTS:
        yield None, None
        return
    for point in points:
        match point:
            case [x, y]:
                yield _number(x), _number(y)
            case _:
                yield None, None


_CORNERS: Mapping[str, Callable[[_Region, _Region], Iterator[_Point]]] = {
    "rectanglelabels": _of_rectangle,
    "polygonlabels": _of_polygon,
}


def _around(points: Sequence[_Point]) -> Corners | None:
    """Return the box around points, clipped to the picture; None where nothing of it is inside."""
    xs = [min(max((x or 0.0) / _WHOLE, 0.0), 1.0) for x, _ in points]
    ys = [min(max((y or 0.0) / _WHOLE, 0.0), 1.0) for _, y in points]
    corners = min(xs), min(ys), max(xs), max(ys)
    return corners if corners[0] < corners[2] and corners[1] < corners[3] else None


def _origin(region: _Region) -> tuple[str, str, float | None, str, str]:
    """Return id, origin, raw score, version and explainer of a region."""
    meta = region.get("meta")
    own = meta.get("heatbox") if isinstance(meta, Mapping) else None
    own = own if isinstance(own, Mapping) else {}
    raw = _number(own.get("raw_score", region.get("score")))
    score = raw if raw is not None and 0 <= raw <= 1 else None
    texts = (region.get("id"), region.get("origin"), own.get("version"), own.get("explainer"))
    number, origin, version, explainer = (one if isinstance(one, str) else "" for one in texts)
    return number, origin, score, version, explainer


def _label(names: object) -> str | None:
    match names:
        case [str(name), *_] if name:
            return name
    return None


def _item(region: _Region) -> int:
    index = region.get("item_index")
    return index if type(index) is int and index >= 0 else 0


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _FURTHEST else None  # NaN is not
