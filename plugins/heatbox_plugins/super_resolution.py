"""Super-resolution of coarse heatmaps: the inverse problem with total variation of Augmented Grad-CAM.

With A_l the augmentations, g_l the coarse heatmap of augmentation l and D the bilinear step down to its size,

    h = argmin_h sum_l |D A_l h - g_l|^2 + tv L sum(|d_x h| + |d_y h|) + ridge L sum h^2

D A_l looks at four pixels of A_l h per cell, so the operator is a sparse matrix that is made once for all pictures.
The minimum is found by a primal-dual method from coarse to fine: coarse levels carry heat far, fine ones draw edges.

Source: Morbidelli et al., Augmented Grad-CAM, ICASSP 2020, https://doi.org/10.1109/ICASSP40776.2020.9054416; Condat,
    A Primal-Dual Splitting Method, 2013, https://doi.org/10.1007/s10957-012-0245-9
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["Operator", "pyramid", "sampling_operator", "super_resolve"]

# The paper's weights belong to solutions of 224 x 224 pixels: edges grow with the side, the heat with its square.
_PAPER_SIDE = 224
_LEVELS = (4, 2, 1)
# Step of the dual variable of the total variation: the fastest of 0.05 to 0.4 at 7 x 7, 10 x 10 and 14 x 14 cells.
_DUAL_STEP = 0.2


@dataclass(frozen=True)
class Operator:
    """D A_1 ... D A_L as one sparse matrix.

    Attributes:
        forward: (L h w, side^2) sparse, from a heatmap to all coarse heatmaps.
        adjoint: its transpose.
        copies: L.
        side: of the heatmap in pixels.
    """

    forward: Tensor
    adjoint: Tensor
    copies: int
    side: int

    def weights(self, total_variation: float, ridge: float) -> tuple[float, float]:
        """Return the weights of the two terms of a heatmap of this side from those per copy at the paper's."""
        finer = _PAPER_SIDE / self.side
        return total_variation * self.copies * finer, ridge * self.copies * finer**2


def pyramid(transforms: Tensor, cells: Sequence[int], side: int) -> list[Operator]:
    """Return the operators at a quarter, a half and the whole of a side in pixels; cells = (height, width)."""
    height, width = cells
    return [sampling_operator(transforms, height, width, side // level) for level in _LEVELS]


def sampling_operator(transforms: Tensor, height: int, width: int, side: int) -> Operator:
    """Return the operator that takes a heatmap (side, side) to the coarse heatmaps (L, height, width).

    Only the four pixels around the centre of each cell are looked up in each augmented heatmap, not the whole of it.
    """
    copies = len(transforms)
    (rows, row_parts), (columns, column_parts) = _around(height, side), _around(width, side)
    shape = (height, width, 2, 2)
    y, x = rows[:, None, :, None].expand(shape), columns[None, :, None, :].expand(shape)
    parts = (row_parts[:, None, :, None] * column_parts[None, :, None, :]).reshape(-1)
    points = torch.stack([x, y, torch.full_like(x, side / 2)], -1).reshape(-1, 3) * (2 / side)
    place = (torch.einsum("lij,pj->lpi", transforms.double(), points) + 1) * (side / 2) - 0.5
    cell = torch.arange(copies * height * width).repeat_interleave(4).view(copies, -1)
    entries = [
        (cell[inside], (pixel[..., 1] * side + pixel[..., 0])[inside], (weight * parts)[inside])
        for pixel, weight in _corners(place)
        for inside in [((pixel >= 0) & (pixel < side)).all(-1)]
    ]
    row, column, value = (torch.cat(column) for column in zip(*entries, strict=True))
    size = (copies * height * width, side * side)
    matrix = torch.sparse_coo_tensor(torch.stack([row, column]), value, size, check_invariants=True)
    return Operator(_rows(matrix), _rows(matrix.t()), copies, side)


def super_resolve(
    operators: Sequence[Operator], coarse: Tensor, total_variation: float, ridge: float, iterations: int
) -> Tensor:
    """Solve the inverse problem from coarse to fine, each level starting from the one before.

    Args:
        operators: of the same augmentations at growing sides.
        coarse: (L h w, T), the coarse heatmaps of T targets.
        total_variation: weight of the edges per copy.
        ridge: weight of the heat per copy.
        iterations: steps on each level.

    Returns:
        (side, side, T), the heatmaps of each target at the last operator's side.
    """
    heat = coarse.new_zeros(1, 1, coarse.shape[1])
    down, across = heat, heat
    for operator in operators:
        side = operator.side
        finer = heat.shape[0] / side  # the duals are bounded by the weight of the edges, which is 1 / side
        down, across = _resized(down, side - 1, side) * finer, _resized(across, side, side - 1) * finer
        heat = _resized(heat, side, side)
        weights = operator.weights(total_variation, ridge)
        heat = _primal_dual(operator, coarse, heat, (down, across), weights, iterations)
    return heat


def _primal_dual(  # noqa: PLR0913, PLR0917 - the terms of one optimisation problem
    operator: Operator,
    coarse: Tensor,
    heat: Tensor,
    duals: tuple[Tensor, Tensor],
    weights: tuple[float, float],
    iterations: int,
) -> Tensor:
    """Run the primal-dual method of Condat (2013) and Vu (2013); the duals are changed in place."""
    (down, across), (limit, ridge) = duals, weights
    # |d_x|^2 + |d_y|^2 <= 8, and the gradient of the quadratic terms is Lipschitz with 2 (|D A|^2 + ridge).
    step = 1 / (_squared_norm(operator) + ridge + 8 * _DUAL_STEP)
    for _ in range(iterations):
        residual = operator.forward @ heat.flatten(0, 1) - coarse
        slope = (operator.adjoint @ residual).view_as(heat).add_(heat, alpha=ridge).mul_(2)
        slope[:-1] -= down
        slope[1:] += down
        slope[:, :-1] -= across
        slope[:, 1:] += across
        moved = torch.add(heat, slope, alpha=-step)
        ahead = torch.lerp(heat, moved, 2.0)
        down.add_(ahead[1:] - ahead[:-1], alpha=_DUAL_STEP).clamp_(-limit, limit)
        across.add_(ahead[:, 1:] - ahead[:, :-1], alpha=_DUAL_STEP).clamp_(-limit, limit)
        heat = moved
    return heat


def _squared_norm(operator: Operator) -> float:
    """Return an upper bound of |D A|^2: the largest row sum times the largest column sum (all entries >= 0)."""
    ones = [torch.ones(matrix.shape[1], 1) for matrix in (operator.forward, operator.adjoint)]
    return float((operator.forward @ ones[0]).max() * (operator.adjoint @ ones[1]).max())


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Repeat the nearest values: (a, b, T) -> (height, width, T)."""
    return interpolate(maps.permute(2, 0, 1)[None], (height, width))[0].permute(1, 2, 0).contiguous()


def _around(cells: int, side: int) -> tuple[Tensor, Tensor]:
    """Return the centres of the two pixels around each cell's centre and their bilinear parts, each (cells, 2)."""
    place = (torch.arange(cells, dtype=torch.float64) + 0.5) * (side / cells) - 0.5
    low = place.clamp(0, side - 1).floor()
    part = (place - low).clamp(0, 1)
    pixels = torch.stack([low, (low + 1).clamp(max=side - 1)], 1)
    return pixels - (side - 1) / 2, torch.stack([1 - part, part], 1)


def _corners(place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the four pixels around points and their bilinear weights: (..., 2) -> (..., 2) int64, (...)."""
    low = place.floor()
    part = place - low
    for x in (0, 1):
        for y in (0, 1):
            corner = torch.tensor([x, y])
            yield (low + corner).long(), torch.where(corner == 1, part, 1 - part).prod(-1)


def _rows(matrix: Tensor) -> Tensor:
    """Return a sparse float64 matrix by rows (CSR) in float32, five times as fast to multiply with."""
    entries = matrix.coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return entries.to_sparse_csr().float()
