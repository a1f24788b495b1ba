"""One entry of the page: a picture with what was found in it, and the values that `card.html.j2` shows of it."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatbox.annotation import Annotation, Region
from heatbox.boxes import Box
from heatbox.drawing import Finding, as_jpeg, as_png, findings, fit, label_colour, panels, text_colour
from heatbox.errors import HeatboxError

__all__ = ["THUMBNAIL_SIDE", "PageEntry", "card"]

THUMBNAIL_SIDE = 256
STEPS = ("picture", "heatmap", "mask", "contour", "box")


@dataclass(frozen=True)
class PageEntry:
    """One picture of the page: annotated, or failed.

    Attributes:
        name: file name or address; not trusted.
        pixels: (h, w, 3) uint8 RGB, the upright picture at any size; None: the picture is counted, not shown.
        annotation: regions and evidence; None where the picture failed.
        error: why the picture failed; None where it did not.
        truth: true boxes with their labels, in pixels of the upright picture, where known.
    """

    name: str
    pixels: NDArray[np.uint8] | None
    annotation: Annotation | None
    error: HeatboxError | None = None
    truth: tuple[tuple[str, Box], ...] = ()

    def __post_init__(self) -> None:
        if (self.annotation is None) == (self.error is None):
            msg = f"an entry has either an annotation or an error: {self.name!r}"
            raise ValueError(msg)


def card(
    name: str, pixels: NDArray[np.uint8], annotation: Annotation, truth: tuple[tuple[str, Box], ...]
) -> dict[str, Any]:
    """Return the context of `card.html.j2`: plain values and data URIs, nothing escaped yet."""
    picture = fit(pixels, THUMBNAIL_SIDE)
    rows = [_row(picture, annotation, finding) for finding in findings(annotation, truth)]
    return {
        "name": name,
        "annotation": annotation,
        "ratio": picture.shape[1] / picture.shape[0],
        "thumbnail": None if rows else _data_uri(as_jpeg(picture), "jpeg"),
        "rows": rows,
        "rejected": [one.sentence for one in annotation.rejected],
    }


def _row(picture: NDArray[np.uint8], annotation: Annotation, finding: Finding) -> dict[str, Any]:
    drawn = panels(picture, annotation, finding)
    colour = label_colour(finding.label)
    return {
        "label": finding.label,
        "class_name": finding.class_name,
        "probability": finding.evidence.probability if finding.evidence else None,
        "scores": [(region.score, finding.overlap(region)) for region in finding.regions],
        "truth": len(finding.truth),
        "colour": "#{:02x}{:02x}{:02x}".format(*colour),
        "ink": "#{:02x}{:02x}{:02x}".format(*text_colour(colour)),
        "panels": [(step, _panel_source(step, getattr(drawn, step))) for step in STEPS],
        "tags": [_tag(region, annotation) for region in reversed(finding.regions)],
    }


def _tag(region: Region, annotation: Annotation) -> dict[str, Any]:
    """Return where a region's label stands on the box panel, in percent of the panel."""
    x1, y1, x2, _ = region.box.as_xyxy()
    rightmost = x1 > annotation.width / 2
    across = 100 * (1 - x2 / annotation.width if rightmost else x1 / annotation.width)
    down = 100 * y1 / annotation.height
    return {"side": "right" if rightmost else "left", "across": across, "down": down, "score": region.score}


def _panel_source(step: str, pixels: NDArray[np.uint8] | None) -> str | None:
    if pixels is None:
        return None
    return _data_uri(as_png(pixels), "png") if step == "mask" else _data_uri(as_jpeg(pixels), "jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
