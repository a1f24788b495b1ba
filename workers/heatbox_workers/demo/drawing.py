"""Drawing: the strokes that the demo's documents are made of. Canvases are RGBA, (H, W, 4) uint8."""

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "Canvas",
    "Colour",
    "bars",
    "code_matrix",
    "gradient",
    "guilloche",
    "mixed",
    "plain",
    "polygon",
    "rounded",
    "star",
    "typewriter",
    "write",
]

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]


def plain(width: int, height: int, colour: Colour) -> Canvas:
    """Return an opaque canvas of one colour, (height, width, 4)."""
    return np.full((height, width, 4), (*colour, 255), np.uint8)


def gradient(width: int, height: int, first: Colour, second: Colour, angle: float) -> Canvas:
    """Return an opaque canvas that runs from one colour to another along an angle in radians."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
    along = np.clip(x * math.cos(angle) + y * math.sin(angle) + 0.5, 0, 1)[..., None]
    colours = np.array(first) * (1 - along) + np.array(second) * along
    return np.dstack([colours, np.full((height, width), 255)]).astype(np.uint8)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Return the first colour with a share in [0, 1] of the second."""
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def rounded(canvas: Canvas, radius: int) -> Canvas:
    """Return the canvas with its corners cut round, radius in pixels."""
    height, width = canvas.shape[:2]
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius, fill=255)
    return np.dstack([canvas[..., :3], np.minimum(canvas[..., 3], np.asarray(mask))])


def write(  # noqa: PLR0913, PLR0917 - print has a place, a size and a colour
    canvas: Canvas, text: str, at: tuple[float, float], size: float, colour: Colour, anchor: str = "ls"
) -> None:
    """Write text in place at (x, y), size in pixels; the anchor is Pillow's (`ls` = left end of the baseline)."""
    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).text(at, text, fill=(*colour, 255), font=_font(size), anchor=anchor)
    canvas[:] = np.asarray(image)


def typewriter(
    canvas: Canvas, lines: Sequence[str], at: tuple[float, float], size: float, colour: Colour
) -> None:
    """Write lines in place with every character as wide as the next, the first baseline at y, size in pixels."""
    image = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(image), _font(size)
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            spot = (at[0] + (column + 0.5) * size * 0.6, at[1] + row * size * 1.25)
            pen.text(spot, character, fill=(*colour, 255), font=font, anchor="ms")
    canvas[:] = np.asarray(image)


def polygon(canvas: Canvas, points: Sequence[tuple[float, float]], colour: Colour) -> None:
    """Fill a polygon in place, smooth at the edges, points (x, y) in pixels."""
    corners = np.round(np.array(points) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [corners], (*colour, 255), cv2.LINE_AA, shift=4)


def star(canvas: Canvas, centre: tuple[float, float], radius: float, colour: Colour, tips: int = 5) -> None:
    """Fill a star in place, radius in pixels."""
    radii = [radius if tip % 2 == 0 else radius * 0.42 for tip in range(2 * tips)]
    angles = [math.pi * tip / tips - math.pi / 2 for tip in range(2 * tips)]
    points = [
        (centre[0] + r * math.cos(a), centre[1] + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)
    ]
    polygon(canvas, points, colour)


def bars(canvas: Canvas, box: tuple[int, int, int, int], colour: Colour, rng: np.random.Generator) -> None:
    """Draw a barcode in place, upright bars of random width, box xyxy in pixels."""
    x, right = box[0], box[2]
    while x < right:
        thick, gap = int(rng.integers(2, 6)), int(rng.integers(2, 5))
        canvas[box[1] : box[3], x : min(x + thick, right), :3] = colour
        x += thick + gap


def code_matrix(
    canvas: Canvas, corner: tuple[int, int], cell: int, colour: Colour, rng: np.random.Generator
) -> None:
    """Draw a square code of 21 x 21 cells with its three finder patterns in place, cell side in pixels."""
    cells = rng.random((21, 21)) < 0.5  # noqa: PLR2004 - half of the cells are dark
    finder = np.pad(np.pad(np.ones((3, 3), bool), 1), 1, constant_values=True)
    for y, x in ((0, 0), (0, 14), (14, 0)):
        cells[max(y - 1, 0) : y + 8, max(x - 1, 0) : x + 8] = False
        cells[y : y + 7, x : x + 7] = finder
    dark = np.kron(cells, np.ones((cell, cell), bool)).astype(bool)
    target = canvas[corner[1] : corner[1] + 21 * cell, corner[0] : corner[0] + 21 * cell, :3]
    target[:] = np.where(dark[..., None], np.array(colour, np.uint8), np.uint8(250))


def guilloche(canvas: Canvas, colour: Colour, rng: np.random.Generator, lines: int = 14) -> None:
    """Draw the fine interwoven waves of banknotes and identity papers over the whole canvas, in place."""
    height, width = canvas.shape[:2]
    x = np.arange(0, width + 8, 8)
    swing, waves, phase = rng.uniform(0.05, 0.12) * height, rng.uniform(1.5, 3.5), rng.uniform(0, 2 * math.pi)
    for line in range(-2, lines + 2):
        for turn in (1, -1):
            y = (line + 0.5) * height / lines + turn * swing * np.sin(
                2 * math.pi * waves * x / width + phase + line / 3
            )
            points = np.round(np.stack([x, y], axis=1) * 16).astype(np.int32)
            cv2.polylines(
                canvas, [points], isClosed=False, color=(*colour, 255), lineType=cv2.LINE_AA, shift=4
            )


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that ships inside Pillow."""
    return ImageFont.load_default(size)
