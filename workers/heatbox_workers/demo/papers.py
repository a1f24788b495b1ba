"""The demo's papers, drawn flat and face on: boarding pass, passport and receipt.

A drawing function takes a random generator and returns an RGBA canvas, (height, width, 4) uint8, five pixels
a millimetre (three for the passport).
"""

import math

import cv2
import numpy as np

from heatbox_workers.demo.drawing import (
    Canvas,
    Colour,
    bars,
    code_matrix,
    gradient,
    mixed,
    plain,
    polygon,
    rounded,
    star,
    typewriter,
    write,
)
from heatbox_workers.demo.words import GOODS, INK, PORTS, SHOPS, STATES, SURNAMES, WHITE, date, digits, pick

__all__ = ["boarding_pass", "passport", "receipt"]

_BANDS: tuple[Colour, ...] = ((226, 70, 60), (30, 130, 200), (36, 150, 110), (240, 150, 30), (120, 70, 170))
_PAPER: tuple[Colour, ...] = ((252, 252, 250), (246, 246, 240), (240, 244, 248))
_COVERS: tuple[Colour, ...] = ((96, 22, 36), (24, 36, 84), (20, 70, 52), (44, 32, 32))


def boarding_pass(rng: np.random.Generator) -> Canvas:
    """Draw a boarding pass: a coloured band, two airports, a square code, a stub to tear off."""
    band = pick(rng, _BANDS)
    ticket = plain(540, 226, mixed(WHITE, band, rng.uniform(0.06, 0.2)))
    ticket[:50, :, :3] = band
    write(ticket, "BOARDING PASS", (20, 36), 27, WHITE)
    write(ticket, "HB AIR", (446, 36), 20, WHITE)
    start, end = (str(port) for port in rng.choice(PORTS, size=2, replace=False))
    seat = f"{rng.integers(1, 40)}{pick(rng, 'ABCDEF')}"
    write(ticket, start, (18, 112), 52, INK)
    write(ticket, end, (182, 112), 52, INK)
    _plane(ticket, (149, 94), band)
    _fields(ticket, seat, band, rng)
    code_matrix(ticket, (300, 80), 6, INK, rng)
    for y in range(4, 226, 16):
        cv2.line(ticket, (434, y), (434, y + 7), (*mixed(INK, WHITE, 0.55), 255), 2)
    for row, text in enumerate((start, end, seat)):
        write(ticket, text, (448, 100 + 46 * row), 34, INK)
    return rounded(ticket, 14)


def passport(rng: np.random.Generator) -> Canvas:
    """Draw a closed passport: a dark grained cover with golden print, crest and chip sign."""
    cover, gold = pick(rng, _COVERS), mixed((222, 186, 96), WHITE, rng.uniform(0, 0.3))
    book = gradient(310, 436, cover, mixed(cover, WHITE, 0.12), rng.uniform(0, 2 * math.pi))
    grain = rng.integers(-7, 8, size=(436, 310, 1))
    book[..., :3] = np.clip(book[..., :3].astype(np.int16) + grain, 0, 255).astype(np.uint8)
    cv2.rectangle(book, (16, 16), (293, 419), (*gold, 255), 3)
    write(book, "REPUBLIC OF", (155, 64), 24, gold, anchor="ms")
    write(book, pick(rng, STATES), (155, 102), 40, gold, anchor="ms")
    _crest(book, cover, gold, tips=int(rng.integers(5, 10)))
    write(book, "PASSPORT", (155, 360), 46, gold, anchor="ms")
    cv2.rectangle(book, (128, 378), (182, 408), (*gold, 255), 4)
    cv2.circle(book, (155, 393), 8, (*gold, 255), 4, cv2.LINE_AA)
    return rounded(book, 18)


def receipt(rng: np.random.Generator) -> Canvas:
    """Draw a till receipt: a narrow strip, columns of goods and prices, a barcode, torn lower edge."""
    goods = rng.choice(GOODS, size=int(rng.integers(6, 11)), replace=False)
    prices = rng.integers(80, 2400, size=len(goods)) / 100
    height = 256 + 27 * len(goods)
    strip = plain(244, height, pick(rng, _PAPER))
    write(strip, pick(rng, SHOPS), (122, 42), 29, INK, anchor="ms")
    typewriter(strip, [date(rng, 2024, 2026), "-" * 18], (7, 70), 21, INK)
    lines = [f"{name:<11}{price:>7.2f}" for name, price in zip(goods, prices, strict=True)]
    typewriter(strip, [*lines, "-" * 18], (7, 122), 21, INK)
    foot = 122 + round(26.25 * (len(goods) + 1))
    typewriter(strip, [f"TOTAL{prices.sum():>8.2f}"], (7, foot + 6), 29, INK)
    bars(strip, (20, foot + 22, 224, foot + 78), INK, rng)
    for crease in rng.uniform(0.2, 0.9, size=2):
        strip[int(crease * height) :, :, :3] = (strip[int(crease * height) :, :, :3] * 0.96).astype(np.uint8)
    return _torn(strip, rng)


def _fields(ticket: Canvas, seat: str, band: Colour, rng: np.random.Generator) -> None:
    """Print passenger, gate, seat and flight below the airports."""
    gate = f"{pick(rng, 'ABCD')}{rng.integers(1, 40)}"
    fields = (
        ("PASSENGER", pick(rng, SURNAMES), (20, 138)),
        ("GATE", gate, (20, 186)),
        ("SEAT", seat, (100, 186)),
        ("FLIGHT", f"HB {digits(rng, 3)}", (180, 186)),
    )
    for label, value, (x, y) in fields:
        write(ticket, label, (x, y), 13, mixed(band, INK, 0.3))
        write(ticket, value, (x, y + 25), 27, INK)


def _plane(ticket: Canvas, centre: tuple[int, int], colour: Colour) -> None:
    """Draw an aeroplane that flies to the right."""
    outline = (
        (22, 0),
        (16, -4),
        (5, -4),
        (-7, -20),
        (-12, -20),
        (-6, -4),
        (-15, -4),
        (-20, -11),
        (-24, -11),
        (-21, 0),
    )
    points = [*outline, *((x, -y) for x, y in reversed(outline))]
    polygon(ticket, [(centre[0] + 0.85 * x, centre[1] + 0.85 * y) for x, y in points], colour)


def _crest(book: Canvas, cover: Colour, gold: Colour, tips: int) -> None:
    """Draw a star in a ring between two branches."""
    cv2.circle(book, (155, 210), 72, (*gold, 255), 4, cv2.LINE_AA)
    star(book, (155, 210), 64, gold, tips=tips)
    cv2.circle(book, (155, 210), 20, (*cover, 255), -1, cv2.LINE_AA)
    for first, last in ((100, 175), (5, 80)):
        cv2.ellipse(book, (155, 210), (98, 94), 0, first, last, (*gold, 255), 9, cv2.LINE_AA)


def _torn(strip: Canvas, rng: np.random.Generator) -> Canvas:
    """Return the strip with a zigzag lower edge."""
    height, width = strip.shape[:2]
    teeth = np.abs(np.arange(width) % 14 - 7) + rng.integers(0, 3)
    below = np.arange(height)[:, None] > height - 1 - teeth[None, :]
    strip[..., 3] = np.where(below, 0, strip[..., 3])
    return strip
