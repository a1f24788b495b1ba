"""Compose the demo's data set: documents on crops of photographs, with the boxes that training never sees.

The backgrounds are the two photographs inside scikit-learn. Each is cut once: training scenes see only its left part,
held-out scenes only its right part, so no background pixel is in both.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from heatbox.boxes import Box
from heatbox_workers.demo.camera import photograph
from heatbox_workers.demo.cards import bank_card, identity_card
from heatbox_workers.demo.clutter import CLUTTER
from heatbox_workers.demo.drawing import Canvas
from heatbox_workers.demo.papers import boarding_pass, passport, receipt
from heatbox_workers.demo.words import pick

__all__ = ["DOCUMENTS", "LABELS", "Part", "Scene", "compose", "extent"]

Part = Literal["training", "held-out"]

DOCUMENTS: Mapping[str, Callable[[np.random.Generator], Canvas]] = MappingProxyType(
    {
        "bank card": bank_card,
        "boarding pass": boarding_pass,
        "identity card": identity_card,
        "passport": passport,
        "receipt": receipt,
    }
)
LABELS = tuple(DOCUMENTS)

_CUT = 0.6
_COUNTS = (0.1, 0.3, 0.35, 0.25)
_MOST_OVERLAP = 0.06
_VISIBLE = 0.5


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is in it.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
        boxes: label and box of each document: the exact extent of its visible pixels.
    """

    pixels: NDArray[np.uint8]
    boxes: tuple[tuple[str, Box], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The image labels: the classes in the picture, each once, sorted."""
        return tuple(sorted({label for label, _ in self.boxes}))


@dataclass(frozen=True, eq=False)
class Placed:
    """A flat thing as the camera sees it, at (x, y): (h, w, 4) float32 in [0, 1], colours premultiplied with alpha."""

    layer: NDArray[np.float32]
    x: int
    y: int


def compose(seed: int, count: int, size: int, part: Part = "training") -> Iterator[Scene]:
    """Compose scenes: the same arguments give the same pixels and boxes.

    Args:
        seed: of the whole sequence; scene i does not depend on `count`.
        count: how many scenes.
        size: side of the square pictures in pixels.
        part: which part of the photographs lies behind, see the module.

    Yields:
        Scenes with no document (a tenth of them) up to three.
    """
    for index in range(count):
        yield _scene(np.random.default_rng([seed, index, part == "training"]), size, part)


def _scene(rng: np.random.Generator, size: int, part: Part) -> Scene:
    """Lay clutter, then documents, on a background and take the picture."""
    table = _background(rng, size, part)
    owner = np.full((size, size), -1, np.int16)
    for _ in range(int(rng.integers(0, 4))):
        _lay(table, _placed(pick(rng, CLUTTER)(rng), rng, size, rng.uniform(0.12, 0.34)), rng)
    labels: list[str] = []
    number = int(rng.choice(len(_COUNTS), p=_COUNTS))
    for label in rng.choice(LABELS, size=number):
        placed = _free_place(DOCUMENTS[label](rng), rng, owner, largest=0.52 if number == 1 else 0.42)
        if placed is None:
            continue
        _lay(table, placed, rng)
        height, width = placed.layer.shape[:2]
        under = owner[placed.y : placed.y + height, placed.x : placed.x + width]
        under[placed.layer[..., 3] >= _VISIBLE] = len(labels)
        labels.append(str(label))
    boxes = tuple(
        (label, extent(owner == index)) for index, label in enumerate(labels) if (owner == index).any()
    )
    return Scene(photograph(table * 255, rng), boxes)


def _background(rng: np.random.Generator, size: int, part: Part) -> NDArray[np.float32]:
    """Return a square crop of one part of a photograph: (size, size, 3) float32 in [0, 1]."""
    whole = pick(rng, _photographs())
    cut = round(whole.shape[1] * _CUT)
    photo = whole[:, :cut] if part == "training" else whole[:, cut:]
    side = int(rng.uniform(0.55, 1) * min(photo.shape[:2]))
    y, x = (int(rng.integers(0, room - side + 1)) for room in photo.shape[:2])
    crop = photo[y : y + side, x : x + side][:, :: pick(rng, (1, -1))]
    resized = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.float32) / np.float32(255)


def _free_place(
    document: Canvas, rng: np.random.Generator, owner: NDArray[np.int16], largest: float
) -> Placed | None:
    """Return the document at a place that covers next to nothing of the others, or None where there is no room."""
    taken = owner >= 0
    for attempt in range(12):
        placed = _placed(document, rng, len(owner), rng.uniform(0.2, largest) * 0.97**attempt)
        height, width = placed.layer.shape[:2]
        below = taken[placed.y : placed.y + height, placed.x : placed.x + width]
        if below.mean() <= _MOST_OVERLAP:
            return placed
    return None


def _placed(canvas: Canvas, rng: np.random.Generator, size: int, scale: float) -> Placed:
    """Turn, tilt and shrink a canvas to (scale x size) squared pixels, at a random place inside the picture."""
    factor = scale * size / math.sqrt(canvas.shape[0] * canvas.shape[1])
    shrunk = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    height, width = shrunk.shape[:2]
    quad = _seen_from_aside(width, height, rng)
    spread = quad.max(axis=0)
    quad *= min(1.0, *(0.96 * size / spread))
    columns, rows = (int(side) for side in np.ceil(quad.max(axis=0)) + 1)
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - np.float32(0.5)
    view = cv2.getPerspectiveTransform(flat, quad.astype(np.float32))
    pixels = shrunk.astype(np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    layer = cv2.warpPerspective(pixels, view, (columns, rows), flags=cv2.INTER_LINEAR)
    x, y = (int(rng.integers(0, max(size - side, 0) + 1)) for side in (columns, rows))
    return Placed(np.asarray(layer[: size - y, : size - x], np.float32), x, y)


def _seen_from_aside(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the four corners of a turned and tilted width x height rectangle, least x and y 0: (4, 2) in pixels."""
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) + rng.uniform(
        -0.04, 0.04, size=(4, 2)
    )
    corners *= (width, height)
    angle = rng.normal(0, 0.3) if rng.random() < 0.8 else rng.uniform(0, 2 * math.pi)  # noqa: PLR2004 - mostly upright
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    quad = corners @ turn
    return np.asarray(quad - quad.min(axis=0))


def _lay(table: NDArray[np.float32], placed: Placed, rng: np.random.Generator) -> None:
    """Lay a thing on the table in place, with its soft shadow."""
    size, (height, width) = len(table), placed.layer.shape[:2]
    alpha = np.zeros((size, size), np.float32)
    alpha[placed.y : placed.y + height, placed.x : placed.x + width] = placed.layer[..., 3]
    shift = rng.uniform(-0.016, 0.016, size=2) * size
    moved = cv2.warpAffine(alpha, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), (size, size))
    shadow = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.006, 0.02) * size)
    table *= 1 - np.float32(rng.uniform(0.25, 0.6)) * shadow[..., None]
    under = table[placed.y : placed.y + height, placed.x : placed.x + width]
    under *= 1 - placed.layer[..., 3:]
    under += placed.layer[..., :3]


def extent(visible: NDArray[np.bool_]) -> Box:
    """Return the smallest box around the visible pixels: (H, W) bool."""
    y, x = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return Box(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)


@cache
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    """Return scikit-learn's photographs (a temple, a flower), (427, 640, 3) uint8."""
    return tuple(np.asarray(image, np.uint8) for image in load_sample_images().images)
