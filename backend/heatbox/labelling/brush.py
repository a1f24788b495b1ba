"""Brush masks in Label Studio's run-length form (`format: rle` of brushlabels).

A bit stream, most significant bit first: 32 bits count of bytes, 5 bits word size - 1, four times 4 bits run width - 1;
then blocks of 1 bit "all the same", 2 bits index of the run width, count - 1, and the value, or each of the values. The
values are those of an RGBA picture (h, w, 4); the mask is where alpha is 255. Source: `brush.py` of
label-studio-sdk's converter, which the tests read our masks back with.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_mask"]

_WORD_BITS = 8
_WIDTHS = (3, 4, 8, 16)
_CHANNELS = 4


def encode_mask(mask: NDArray[np.bool_]) -> list[int]:
    """Return a mask (h, w) at the picture's own size as bytes in [0, 255]."""
    header = f"{mask.size * _CHANNELS:032b}{_WORD_BITS - 1:05b}" + "".join(
        f"{width - 1:04b}" for width in _WIDTHS
    )
    bits = header + "".join(_blocks(mask))
    return list(int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big"))


def _blocks(mask: NDArray[np.bool_]) -> Iterator[str]:
    """Yield each run of equal values as bits, long ones in pieces."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    longest = 1 << _WIDTHS[-1]
    for start, end in pairwise([0, *changes.tolist(), flat.size]):
        value = 255 if flat[start] else 0
        left = (end - start) * _CHANNELS
        while left:
            count = min(left, longest)
            yield _block(count, value)
            left -= count


def _block(count: int, value: int) -> str:
    index = next(index for index, width in enumerate(_WIDTHS) if count <= 1 << width)
    return f"1{index:02b}{count - 1:0{_WIDTHS[index]}b}{value:08b}"
