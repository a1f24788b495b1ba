"""Clutter: flat things that are no documents, so that a rectangle or a bright patch alone is no evidence.

A drawing function takes a random generator and returns an RGBA canvas, (height, width, 4) uint8.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from heatbox_workers.demo.drawing import Canvas, Colour, gradient, mixed, plain, rounded
from heatbox_workers.demo.words import INK, WHITE, pick

__all__ = ["CLUTTER"]

_PASTEL: tuple[Colour, ...] = ((250, 232, 110), (250, 170, 190), (170, 222, 240), (190, 236, 150))


def sticky_note(rng: np.random.Generator) -> Canvas:
    """Draw a square pastel note with a few scribbled lines."""
    paper = pick(rng, _PASTEL)
    note = gradient(240, 240, paper, mixed(paper, INK, 0.12), math.pi / 2)
    for row in range(int(rng.integers(0, 5))):
        x = np.linspace(28, rng.uniform(120, 212), 40)
        y = 56 + 40 * row + 5 * np.sin(x * rng.uniform(0.2, 0.5))
        points = np.round(np.stack([x, y], axis=1)).astype(np.int32)
        cv2.polylines(
            note, [points], isClosed=False, color=(60, 60, 110, 255), thickness=4, lineType=cv2.LINE_AA
        )
    return note


def blank(rng: np.random.Generator) -> Canvas:
    """Draw an unprinted sheet or card of any colour and shape."""
    colour: Colour = tuple(int(value) for value in rng.integers(20, 250, size=3))  # type: ignore[assignment]
    chosen = WHITE if rng.random() < 0.4 else colour  # noqa: PLR2004 - paper is often white
    width, height = (int(side) for side in rng.integers(150, 430, size=2))
    sheet = gradient(
        width, height, chosen, mixed(chosen, INK, rng.uniform(0, 0.3)), rng.uniform(0, 2 * math.pi)
    )
    return rounded(sheet, int(rng.integers(1, 30)))


def leaf(rng: np.random.Generator) -> Canvas:
    """Draw a leaf with its veins."""
    green = mixed((60, 120, 40), (190, 140, 40), rng.random())
    canvas = plain(320, 150, green)
    t = np.linspace(0, 1, 60)
    edge = 70 * np.sin(math.pi * t**0.8)
    upper, lower = np.stack([8 + 304 * t, 75 - edge], axis=1), np.stack([8 + 304 * t, 75 + edge], axis=1)
    outline = np.round(np.concatenate([upper, lower[::-1]])).astype(np.int32)
    mask = cv2.fillPoly(np.zeros((150, 320), np.uint8), [outline], 255, cv2.LINE_AA)
    vein = (*mixed(green, WHITE, 0.35), 255)
    cv2.line(canvas, (8, 75), (312, 75), vein, 3, cv2.LINE_AA)
    for x in range(40, 280, 34):
        for side in (-1, 1):
            cv2.line(canvas, (x, 75), (x + 36, 75 + side * 60), vein, 2, cv2.LINE_AA)
    canvas[..., 3] = mask
    return canvas


def coaster(rng: np.random.Generator) -> Canvas:
    """Draw a round coaster with rings."""
    colour = pick(rng, ((150, 110, 70), (60, 90, 120), (200, 200, 196), (170, 60, 50)))
    canvas = plain(240, 240, colour)
    for radius in range(20, 116, int(rng.integers(16, 48))):
        cv2.circle(canvas, (120, 120), radius, (*mixed(colour, WHITE, 0.3), 255), 4, cv2.LINE_AA)
    return rounded(canvas, 119)


def envelope(rng: np.random.Generator) -> Canvas:
    """Draw the back of an envelope: paper and flap."""
    paper = pick(rng, ((244, 238, 224), (214, 190, 150), (250, 250, 250)))
    canvas = plain(400, 250, paper)
    flap = np.array([[0, 0], [200, int(rng.integers(120, 170))], [400, 0]], np.int32)
    cv2.fillPoly(canvas, [flap], (*mixed(paper, INK, 0.08), 255), cv2.LINE_AA)
    cv2.polylines(
        canvas,
        [flap],
        isClosed=False,
        color=(*mixed(paper, INK, 0.3), 255),
        thickness=3,
        lineType=cv2.LINE_AA,
    )
    return canvas


CLUTTER: tuple[Callable[[np.random.Generator], Canvas], ...] = (sticky_note, blank, leaf, coaster, envelope)
