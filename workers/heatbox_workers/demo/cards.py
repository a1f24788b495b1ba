"""The demo's cards, drawn flat and face on: identity card and bank card.

A drawing function takes a random generator and returns an RGBA canvas, (height, width, 4) uint8, five pixels
a millimetre.
"""

import math

import cv2
import numpy as np

from heatbox_workers.demo.drawing import (
    Canvas,
    Colour,
    gradient,
    guilloche,
    mixed,
    polygon,
    rounded,
    star,
    typewriter,
    write,
)
from heatbox_workers.demo.words import BANKS, GIVEN, INK, STATES, SURNAMES, WHITE, date, digits, pick

__all__ = ["bank_card", "identity_card"]

_TINTS: tuple[Colour, ...] = (
    (186, 218, 240),
    (196, 230, 200),
    (244, 208, 210),
    (240, 224, 178),
    (218, 204, 238),
)
_PLASTIC: tuple[Colour, ...] = (
    (24, 48, 120),
    (150, 24, 60),
    (18, 96, 88),
    (40, 40, 46),
    (92, 40, 130),
    (208, 96, 24),
    (0, 120, 190),
)
_SKIN: tuple[Colour, ...] = ((244, 212, 186), (224, 178, 144), (180, 128, 92), (118, 78, 54))
_FLAG: tuple[Colour, ...] = (
    (200, 36, 48),
    (250, 250, 250),
    (24, 70, 160),
    (20, 130, 70),
    (250, 200, 40),
    (20, 20, 24),
)


def identity_card(rng: np.random.Generator) -> Canvas:
    """Draw an identity card: tinted waves, flag, portrait, lines of print, crest and signature."""
    tint = pick(rng, _TINTS)
    strong = mixed(tint, (20, 40, 90), 0.75)
    card = gradient(428, 270, tint, mixed(tint, WHITE, 0.6), rng.uniform(0, 2 * math.pi))
    guilloche(card, mixed(tint, strong, 0.28), rng)
    write(card, f"REPUBLIC OF {pick(rng, STATES)}", (78, 34), 21, strong)
    write(card, "IDENTITY CARD", (78, 54), 15, strong)
    _flag(card, rng)
    _portrait(card, rng)
    _fields(card, strong, rng)
    star(card, (372, 128), 34, mixed(tint, strong, 0.45), tips=int(rng.integers(5, 13)))
    cv2.circle(card, (372, 128), 40, (*mixed(tint, strong, 0.55), 255), 3, cv2.LINE_AA)
    _signature(card, rng)
    typewriter(card, [f"ID<{digits(rng, 9)}<<{digits(rng, 7)}<<<<<<<"], (14, 256), 23, INK)
    return rounded(card, 16)


def bank_card(rng: np.random.Generator) -> Canvas:
    """Draw a bank card: strong gradient, chip, contactless sign, number groups, the network's rings."""
    first, second = pick(rng, _PLASTIC), pick(rng, _PLASTIC)
    card = gradient(428, 270, first, mixed(first, second, 0.65), rng.uniform(0, 2 * math.pi))
    for ring, centre in enumerate(rng.integers(200, 430, size=5)):
        glow = mixed(first, WHITE, 0.1 + 0.03 * ring)
        cv2.circle(card, (int(centre), 300), 110 + 50 * ring, (*glow, 255), 6, cv2.LINE_AA)
    write(card, pick(rng, BANKS), (26, 52), 34, WHITE)
    _chip(card, (32, 86))
    for wave in range(3):
        cv2.ellipse(card, (112, 112), (10 + 9 * wave,) * 2, 0, -42, 42, (*WHITE, 255), 4, cv2.LINE_AA)
    number = " ".join(digits(rng, 4) for _ in range(4))
    typewriter(card, [number], (24, 190), 33, mixed(WHITE, (235, 205, 120), rng.uniform(0, 0.7)))
    write(card, f"{pick(rng, GIVEN)} {pick(rng, SURNAMES)}", (28, 246), 22, WHITE)
    write(card, f"{rng.integers(1, 13):02d}/{rng.integers(27, 36)}", (236, 222), 18, WHITE)
    left, right = pick(rng, ((240, 220, 90), (240, 120, 110), (230, 230, 235))), pick(rng, _PLASTIC)
    cv2.circle(card, (344, 230), 28, (*left, 255), -1, cv2.LINE_AA)
    cv2.circle(card, (378, 230), 28, (*mixed(right, WHITE, 0.4), 255), -1, cv2.LINE_AA)
    return rounded(card, 20)


def _flag(card: Canvas, rng: np.random.Generator) -> None:
    """Draw three stripes, lying or standing, into the upper left corner."""
    stripes = rng.choice(np.array(_FLAG), size=3, replace=False)
    flag = np.repeat(stripes, 13, axis=0)[:, None].repeat(54, axis=1)
    if rng.random() < 0.5:  # noqa: PLR2004 - half of the flags stand
        flag = np.repeat(stripes, 18, axis=0)[None].repeat(39, axis=0)
    card[18:57, 14:68, :3] = flag


def _portrait(card: Canvas, rng: np.random.Generator) -> None:
    """Draw a head and shoulders in front of a grey wall at the left."""
    photo = np.full((152, 120, 4), (*mixed((214, 220, 226), (170, 190, 205), rng.random()), 255), np.uint8)
    skin, coat = pick(rng, _SKIN), pick(rng, _PLASTIC)
    hair = pick(rng, ((40, 28, 22), (110, 70, 36), (206, 170, 100), (120, 120, 124), (18, 18, 20)))
    length = int(rng.integers(34, 62))
    cv2.ellipse(photo, (60, 62), (37, length), 0, 0, 360, (*hair, 255), -1, cv2.LINE_AA)
    cv2.ellipse(photo, (60, 158), (58, 48), 0, 0, 360, (*coat, 255), -1, cv2.LINE_AA)
    cv2.rectangle(photo, (48, 88), (72, 118), (*mixed(skin, INK, 0.12), 255), -1)
    cv2.ellipse(photo, (60, 70), (28, 37), 0, 0, 360, (*skin, 255), -1, cv2.LINE_AA)
    for x in (49, 71):
        cv2.circle(photo, (x, 66), 3, (*INK, 255), -1, cv2.LINE_AA)
    cv2.ellipse(photo, (60, 84), (9, 5), 0, 10, 170, (150, 70, 70, 255), 2, cv2.LINE_AA)
    card[70:222, 18:138] = photo
    cv2.rectangle(card, (17, 69), (138, 222), (*mixed(WHITE, INK, 0.5), 255), 2)


def _fields(card: Canvas, strong: Colour, rng: np.random.Generator) -> None:
    """Print the holder's data in the middle."""
    fields = ("SURNAME", "GIVEN NAME", "DATE OF BIRTH", "EXPIRES")
    values = (pick(rng, SURNAMES), pick(rng, GIVEN), date(rng, 1950, 2005), date(rng, 2027, 2036))
    for row, (field, value) in enumerate(zip(fields, values, strict=True)):
        write(card, field, (154, 84 + 37 * row), 11, strong)
        write(card, value, (154, 104 + 37 * row), 21, INK)


def _signature(card: Canvas, rng: np.random.Generator) -> None:
    """Scribble a signature below the crest."""
    x = np.linspace(300, 412, 60)
    y = 205 + 11 * np.sin(np.linspace(0, rng.uniform(14, 26), 60)) * np.linspace(1.2, 0.3, 60)
    points = np.round(np.stack([x + 6 * np.cos(y), y], axis=1) * 16).astype(np.int32)
    cv2.polylines(
        card, [points], isClosed=False, color=(24, 34, 110, 255), thickness=2, lineType=cv2.LINE_AA, shift=4
    )


def _chip(card: Canvas, corner: tuple[int, int]) -> None:
    """Draw the contact chip with its upper left corner at (x, y)."""
    x, y = corner
    polygon(
        card,
        (
            (x + 6, y),
            (x + 54, y),
            (x + 60, y + 6),
            (x + 60, y + 42),
            (x + 54, y + 48),
            (x + 6, y + 48),
            (x, y + 42),
            (x, y + 6),
        ),
        (218, 186, 104),
    )
    contacts = (
        ((0, 17), (20, 17)),
        ((0, 31), (20, 31)),
        ((40, 17), (60, 17)),
        ((40, 31), (60, 31)),
        ((20, 0), (20, 48)),
        ((40, 0), (40, 48)),
    )
    for (x1, y1), (x2, y2) in contacts:
        cv2.line(card, (x + x1, y + y1), (x + x2, y + y2), (124, 98, 44, 255), 2, cv2.LINE_AA)
