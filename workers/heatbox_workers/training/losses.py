"""What a training makes small: the error of the classes, and heat that is not where people say the thing is.

Symbols: N pictures, C classes, M rows of (picture, class) with boxes, h x w cells, y logits.

Classes. softmax: cross-entropy, a picture of several classes has equal shares of each. sigmoid: binary cross-entropy.
arcface (Deng et al., https://arxiv.org/abs/1801.07698): cross-entropy of s cos(theta_c + m) for the true class and
s cos(theta_c) for the others. Rare classes weigh more, by the square root of how rare they are.

Boxes. H^c = ReLU(sum_k alpha_k A_k) with alpha_k the mean over the cells of dy^c / dA_k (Grad-CAM,
https://arxiv.org/abs/1610.02391); O the part of each cell that lies inside the boxes of the class. With H at most 1,

    energy   1 - sum H O / sum H                      no heat outside (Rao et al., https://arxiv.org/abs/2303.11932)
    cover    1 - 2 sum H O / (sum H + sum O)          heat all over the inside (Dice)

The energy alone shrinks the heat to a point inside the box, and boxes of it are worse than without: measured, see
docs/explanation/learning-from-corrections.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from heatbox.contract import Head

__all__ = ["ClassLoss", "box_loss", "heat", "occupancy"]

_MARGIN = 0.5  # radians
_RAREST = 10.0
_SMALL = 1e-6


@dataclass(frozen=True)
class ClassLoss:
    """The loss of the classes.

    Attributes:
        head: of the network.
        weights: (C,) of the classes; of sigmoid, of what is there against what is not.
        scale: ArcFace's s.
    """

    head: Head
    weights: Tensor
    scale: float = 30.0

    @classmethod
    def of(cls, head: Head, presence: Tensor, scale: float) -> "ClassLoss":
        """Return the loss with weights for the classes of a training set (N, C)."""
        often = presence.sum(0).clamp_min(1.0)
        rare = (len(presence) - often).clamp_min(1.0) / often if head == "sigmoid" else often.mean() / often
        return cls(head, rare.sqrt().clamp(1.0 if head == "sigmoid" else 1 / _RAREST, _RAREST), scale)

    def __call__(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Return the mean loss: logits (N, C), presence (N, C) of 0 and 1."""
        if self.head == "sigmoid":
            return functional.binary_cross_entropy_with_logits(logits, presence, pos_weight=self.weights)
        share = presence / presence.sum(1, keepdim=True).clamp_min(1.0)
        if self.head == "arcface":
            logits = self._with_margin(logits, presence)
        return functional.cross_entropy(logits, share, weight=self.weights)

    def error(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Return how much is told wrong: of sigmoid labels per label that is there, else the share of pictures."""
        if self.head == "sigmoid":
            wrong = ((logits > 0) != (presence > 0)).sum()
            return wrong / presence.sum().clamp_min(1.0)
        right = presence.gather(1, logits.argmax(1, keepdim=True)) > 0
        return 1 - right.float().mean()

    def _with_margin(self, logits: Tensor, presence: Tensor) -> Tensor:
        cosine = (logits / self.scale).clamp(-1 + _SMALL, 1 - _SMALL)
        angle = cosine.acos()
        # beyond pi - m the cosine would rise again; there it goes on as a line
        moved = torch.where(
            angle < math.pi - _MARGIN, (angle + _MARGIN).cos(), cosine - math.sin(_MARGIN) * _MARGIN
        )
        return self.scale * torch.where(presence > 0, moved, cosine)


def heat(logits: Tensor, maps: Tensor, rows: Tensor) -> Tensor:
    """Return Grad-CAM heat with its graph: logits (N, C), maps (N, K, h, w), rows (M, 2) -> (M, h, w) in [0, 1].

    Rows of one picture are taken one after the other, because their gradients would mix.
    """
    found: list[Tensor] = [logits.new_zeros(0)] * len(rows)
    for some in _ranks(rows[:, 0].tolist()):
        images, classes = rows[some].unbind(1)
        (gradient,) = torch.autograd.grad(logits[images, classes].sum(), maps, create_graph=True)
        alpha = gradient[images].mean(dim=(2, 3), keepdim=True)
        for place, one in zip(some, (alpha * maps[images]).sum(1).relu(), strict=True):
            found[place] = one
    heat = torch.stack(found)
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(_SMALL)


def box_loss(heat: Tensor, inside: Tensor) -> Tensor:
    """Return energy + cover, mean over the rows: heat (M, h, w) in [0, 1], inside (M, h, w) in [0, 1]."""
    both, total = (heat * inside).sum((1, 2)), heat.sum((1, 2))
    energy = 1 - both / total.clamp_min(_SMALL)
    cover = 1 - 2 * both / (total + inside.sum((1, 2))).clamp_min(_SMALL)
    return (energy + cover).mean()


def occupancy(boxes: Sequence[tuple[float, float, float, float]], height: int, width: int) -> Tensor:
    """Return the part of each cell that lies inside one of the boxes: corners in parts of the sides -> (h, w)."""
    whole = torch.zeros(height, width)
    for x1, y1, x2, y2 in boxes:
        whole = torch.maximum(whole, _covered(y1, y2, height)[:, None] * _covered(x1, x2, width)[None])
    return whole


def _covered(first: float, last: float, cells: int) -> Tensor:
    """Return the part of each cell of a side that lies between two places: (cells,)."""
    edges = torch.arange(cells + 1, dtype=torch.float32)
    near, far = edges[:-1].clamp_min(first * cells), edges[1:].clamp_max(last * cells)
    return (far - near).clamp(0, 1)


def _ranks(images: Sequence[int]) -> list[list[int]]:
    """Return row numbers in groups in which no picture appears twice."""
    groups: list[list[int]] = []
    seen: dict[int, int] = {}
    for row, image in enumerate(images):
        rank = seen[image] = seen.get(image, -1) + 1
        if rank == len(groups):
            groups.append([])
        groups[rank].append(row)
    return groups
