"""The page of a map: one HTML file that asks for nothing from outside, with all its small pictures in it.

Labels, file names and addresses are untrusted: they travel as JSON without `<`, and the script shows them as text.
"""

import base64
import colorsys
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from heatbox.drawing import as_jpeg
from heatbox.errors import HeatboxError
from heatbox.import_file import atomic_text
from heatbox.templating import make_templates

__all__ = ["NOTHING", "OTHER", "MapPoint", "cell_side", "thumbnail", "write_map"]

NOTHING = "(nothing)"
"""The label of a picture in which people saw none."""
OTHER = "(other)"
"""The label of a picture in which the classifier sees something else, and of labels beyond the most frequent."""

_MOST_LABELS = 40
_MOST_MISTAKES = 200
_SHEET = 2048  # pixels of a sheet's side
# Okabe & Ito's colours, which colour-blind people tell apart, made to be seen on white and on black.
_COLOURS = ("#e69f00", "#2f9bdb", "#009e73", "#d55e00", "#cc79a7", "#a39a00", "#4666d6", "#8d5a34")
_GREY = "#8a8f99"
_SIDES = ((300, 96), (1500, 64), (6000, 48))

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MapPoint:
    """A picture on the map.

    Attributes:
        name: what a person calls it; not trusted.
        href: where a click leads.
        pixels: (s, s, 3) uint8 RGB, of `thumbnail`.
        predicted: what the classifier sees; empty: it was not asked.
        labels: what people say is in it; None: nobody has.
        mistake: whether the classifier says something else than people.
    """

    name: str
    href: str
    pixels: Pixels
    predicted: str = ""
    labels: tuple[str, ...] | None = None
    mistake: bool = False

    @property
    def label(self) -> str:
        """By which it is coloured: people's where they said, else the classifier's."""
        if self.labels is None:
            return self.predicted or OTHER
        return " + ".join(self.labels) or NOTHING


def cell_side(count: int) -> int:
    """Return the side in pixels of the small pictures, of which there are so many."""
    return next((side for most, side in _SIDES if count <= most), 24)


def thumbnail(pixels: Pixels, side: int) -> Pixels:
    """Return a picture's middle square: (h, w, 3) -> (side, side, 3)."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = pixels[top : top + short, left : left + short]
    how = cv2.INTER_AREA if short >= side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (side, side), interpolation=how), dtype=np.uint8)


def write_map(  # noqa: PLR0913 - what the page says
    path: Path,
    points: Sequence[MapPoint],
    places: NDArray[np.float64],
    *,
    title: str,
    subtitle: str,
    failed: Sequence[tuple[str, HeatboxError]] = (),
) -> None:
    """Write the page; it is there whole, or not at all.

    Args:
        path: the HTML file.
        points: at least one; their small pictures are of one size.
        places: (N, 2) in [0, 1], x to the right and y down.
        title: heading.
        subtitle: under it.
        failed: pictures that are not on the map, and why.

    Raises:
        OutputError: it cannot be written.
    """
    templates = make_templates()
    script = templates.get_template("map.js").render()
    labels = _labels(points)
    page = templates.get_template("map.html.j2").render(
        title=title,
        subtitle=subtitle,
        labels=labels,
        points=points,
        failed=failed[:_MOST_MISTAKES],
        failures=len(failed),
        mistakes=[one for one in points if one.mistake][:_MOST_MISTAKES],
        wrong=sum(one.mistake for one in points),
        known=sum(one.labels is not None for one in points),
        payload=_payload(points, places, labels),
        script=Markup(script),  # noqa: S704 - our own file
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as file:
        file.write(page.encode(errors="replace").decode())


def _labels(points: Sequence[MapPoint]) -> list[dict[str, Any]]:
    """Return the labels, the most frequent first, with their colours and counts; rare ones beyond are one."""
    counts = Counter(one.label for one in points)
    listed = sorted(counts, key=lambda label: (-counts[label], label))
    shown = [label for label in listed if label != OTHER][:_MOST_LABELS]
    found = [
        {"name": label, "colour": _colour(index), "count": counts[label]} for index, label in enumerate(shown)
    ]
    rest = sum(counts.values()) - sum(counts[label] for label in shown)
    return [*found, {"name": OTHER, "colour": _GREY, "count": rest}] if rest else found


def _colour(index: int) -> str:
    if index < len(_COLOURS):
        return _COLOURS[index]
    hue = (index * 0.618034) % 1  # the golden section: each next one is far from those before
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, (0.45, 0.6)[index % 2], 0.65))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _payload(
    points: Sequence[MapPoint], places: NDArray[np.float64], labels: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    index = {one["name"]: place for place, one in enumerate(labels)}
    side = len(points[0].pixels)
    rows = [
        {
            "x": round(float(x), 5),
            "y": round(float(y), 5),
            "label": index.get(one.label, len(labels) - 1),
            "said": None if one.labels is None else one.label,
            "predicted": one.predicted,
            "mistake": one.mistake,
            "name": one.name,
            "href": one.href,
        }
        for one, (x, y) in zip(points, places, strict=True)
    ]
    return {
        "labels": list(labels),
        "points": rows,
        "side": side,
        "columns": _SHEET // side,
        "sheets": list(_sheets(points, side)),
    }


def _sheets(points: Sequence[MapPoint], side: int) -> Iterator[str]:
    """Yield JPEGs with the small pictures in rows, as data URIs."""
    columns = _SHEET // side
    for start in range(0, len(points), columns**2):
        some = points[start : start + columns**2]
        sheet = np.zeros((-(-len(some) // columns) * side, min(columns, len(some)) * side, 3), dtype=np.uint8)
        for place, one in enumerate(some):
            top, left = place // columns * side, place % columns * side
            sheet[top : top + side, left : left + side] = one.pixels
        yield "data:image/jpeg;base64," + base64.b64encode(as_jpeg(sheet, 72)).decode()
