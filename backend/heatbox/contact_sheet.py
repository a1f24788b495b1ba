"""The contact sheet: a handful of entries with their five steps as one picture, for a README or a report."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from heatbox.annotation import Annotation
from heatbox.drawing import Finding, Panels, findings, fit, label_colour, panels, text_colour
from heatbox.page_entry import STEPS, PageEntry

__all__ = ["contact_sheet"]

BACKGROUND = (255, 255, 255)
EMPTY = (236, 238, 242)
INK = (60, 66, 78)
GAP = 12
HEADING = 32
FONT_SIZE = 14


def contact_sheet(entries: Sequence[PageEntry], side: int = 256) -> NDArray[np.uint8]:
    """Draw one row of five steps per label of each entry that has pixels and an annotation.

    Args:
        entries: a handful; others than annotated ones are left out.
        side: longer side of each panel in pixels.

    Returns:
        (H, W, 3) uint8 RGB on white; W = 5 * side + 6 * 12.
    """
    rows = [row for entry in entries for row in _rows(entry, side)]
    width = len(STEPS) * (side + GAP) + GAP
    height = HEADING + sum(row[0].height + GAP for row in rows)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, step in enumerate(STEPS):
        draw.text((_left(number, side) + side / 2, HEADING / 2), step, INK, _font(), anchor="mm")
    top = HEADING
    for row in rows:
        for number, panel in enumerate(row):
            sheet.paste(panel, (_left(number, side) + (side - panel.width) // 2, top))
        top += row[0].height + GAP
    return np.asarray(sheet).copy()


def _rows(entry: PageEntry, side: int) -> list[list[Image.Image]]:
    if entry.pixels is None or entry.annotation is None:
        return []
    picture, found = fit(entry.pixels, side), findings(entry.annotation, entry.truth)
    return [_row(panels(picture, entry.annotation, item), entry.annotation, item) for item in found]


def _row(drawn: Panels, annotation: Annotation, finding: Finding) -> list[Image.Image]:
    """Return the five panels as pictures of one size, the labels written on the last."""
    blank = np.full_like(drawn.picture, EMPTY)
    steps = [getattr(drawn, step) for step in STEPS]
    row = [Image.fromarray(blank if step is None else step) for step in steps]
    _write_labels(row[-1], annotation, finding)
    return row


def _write_labels(panel: Image.Image, annotation: Annotation, finding: Finding) -> None:
    """Write label and score on each box, above its upper edge where there is room."""
    draw, colour = ImageDraw.Draw(panel), label_colour(finding.label)
    for region in reversed(finding.regions):
        text = f"{finding.label} {region.score:.2f}"
        width, height = draw.textlength(text, _font()) + 8, FONT_SIZE + 5
        left = min(region.box.x1 * panel.width / annotation.width, panel.width - width)
        top = region.box.y1 * panel.height / annotation.height - height
        corner = (max(left, 0.0), top if top >= 0 else top + height)
        draw.rectangle((*corner, corner[0] + width, corner[1] + height), colour)
        middle = (corner[0] + width / 2, corner[1] + height / 2)
        draw.text(middle, text, text_colour(colour), _font(), anchor="mm")


def _left(number: int, side: int) -> int:
    return GAP + number * (side + GAP)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
