"""Words: the print on the demo's documents. Names, numbers, states, banks and shops are invented."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from heatbox_workers.demo.drawing import Colour

__all__ = [
    "BANKS",
    "GIVEN",
    "GOODS",
    "INK",
    "PORTS",
    "SHOPS",
    "STATES",
    "SURNAMES",
    "WHITE",
    "date",
    "digits",
    "pick",
]

T = TypeVar("T")

WHITE: Colour = (255, 255, 255)
INK: Colour = (38, 40, 48)
STATES = ("UTOPIA", "RURITANIA", "LAPUTA", "ILLYRIA", "ERUSIA", "AVALON")
GIVEN = ("ADA", "GRACE", "ALAN", "EMMY", "EMIL", "SOFIA", "BLAISE", "HEDY", "LEO", "MARIE")
SURNAMES = ("NOETHER", "HOPPER", "TURING", "LAMARR", "PASCAL", "KOVAL", "EULER", "GERMAIN")
BANKS = ("Northbank", "Banco Uno", "Meridian", "Volta", "Harbour", "Lumen")
SHOPS = ("CORNER SHOP", "CAFE LUNA", "GREEN GROCER", "BOOKS & TEA", "HARDWARE 21")
GOODS = (
    "COFFEE",
    "BREAD",
    "APPLES",
    "MILK",
    "NOTEBOOK",
    "CHEESE",
    "TEA",
    "PASTA",
    "SOAP",
    "PENCILS",
    "HONEY",
)
PORTS = ("OSL", "NRT", "LIS", "GVA", "YUL", "CPH", "AKL", "BOG", "HEL", "EDI")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def digits(rng: np.random.Generator, count: int) -> str:
    """Return so many random digits."""
    return "".join(str(digit) for digit in rng.integers(0, 10, size=count))


def date(rng: np.random.Generator, first: int, last: int) -> str:
    """Return a day between two years, both included."""
    return f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(first, last + 1)}"
