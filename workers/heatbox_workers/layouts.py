"""How a layer lays out its cells: maps (N, K, h, w), channels last (N, h, w, K), or the tokens of a transformer.

Tokens are (N, T, K): s x s patches row by row, s the largest side with s^2 <= T, and before them P = T - s^2 tokens
that stand for no place (class, distillation, registers). Inputs are square, so the cells are too.
"""

from enum import Enum
from math import isqrt

import torch
from torch import Tensor

__all__ = ["Layout", "as_maps", "layout_of", "put_back"]


class Layout(Enum):
    """Where channels and cells stand in a layer's output."""

    MAPS = "(N, K, h, w)"
    CHANNELS_LAST = "(N, h, w, K)"
    TOKENS = "(N, P + s s, K)"


def layout_of(output: object) -> Layout | None:
    """Return how an output is laid out, from its shape; None: it is no map of more than one cell."""
    match tuple(output.shape) if isinstance(output, Tensor) else ():
        case (_, _, height, width) if height == width > 1:
            return Layout.MAPS
        case (_, height, width, _) if height == width > 1:
            return Layout.CHANNELS_LAST
        case (_, tokens, _) if isqrt(tokens) > 1:
            return Layout.TOKENS
    return None


def as_maps(output: Tensor, layout: Layout) -> Tensor:
    """Return an output as maps (N, K, h, w), without the tokens that stand for no place."""
    if layout is Layout.CHANNELS_LAST:
        return output.permute(0, 3, 1, 2)
    if layout is Layout.TOKENS:
        side = isqrt(output.shape[1])
        return output[:, -side * side :].transpose(1, 2).reshape(len(output), -1, side, side)
    return output


def put_back(maps: Tensor, output: Tensor, layout: Layout) -> Tensor:
    """Lay maps (B, K, h, w) out as `output` was; the tokens that stand for no place are those of `output`."""
    if layout is Layout.CHANNELS_LAST:
        return maps.permute(0, 2, 3, 1)
    if layout is Layout.TOKENS:
        patches = maps.flatten(2).transpose(1, 2)
        prefix = output[:, : output.shape[1] - patches.shape[1]]
        return torch.cat([prefix.expand(len(patches), -1, -1), patches], dim=1)
    return maps
