"""The operator of Augmented Grad-CAM against whole warped heatmaps; the inverse problem against its optimum."""

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from heatbox_plugins.explainers.augmented_grad_cam import AugmentedGradCAM
from heatbox_plugins.super_resolution import pyramid, sampling_operator, super_resolve

MOVES = AugmentedGradCAM(copies=12, scale=0.3, flip=True, seed=4).transforms()


def warped(heatmap, transforms, cells):
    """Return D A_l h by warping the whole heatmap (side, side) and scaling it down: -> (L h w,)."""
    side, copies = len(heatmap), len(transforms)
    grid = affine_grid(transforms, [copies, 1, side, side], align_corners=False)
    moved = grid_sample(heatmap.expand(copies, 1, side, side), grid, align_corners=False)
    return interpolate(moved, (cells, cells), mode="bilinear").flatten()


def sampled(heatmap, transforms, cells):
    """Return D A_l h from the 2 x 2 pixels that D looks at, where the side is an even multiple of the cells."""
    side, copies = len(heatmap), len(transforms)
    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) * (side / cells)
    places = (torch.stack([middle - 0.5, middle + 0.5], 1).flatten()) * 2 / side - 1
    y, x = torch.meshgrid(places, places, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1)
    grid = torch.einsum("lij,abj->labi", transforms, points)
    pixels = grid_sample(heatmap.expand(copies, 1, side, side), grid, align_corners=False)
    return avg_pool2d(pixels, 2).flatten()


def objective(operator, coarse, heat, total_variation=0.002, ridge=0.0001):
    """Return what is minimised at the paper's size (14 x 14 cells, 224 pixels), of one target."""
    copies = len(coarse) / 196
    variation = heat.diff(dim=0).abs().sum() + heat.diff(dim=1).abs().sum()
    data = (operator.forward @ heat.reshape(-1, 1) - coarse).square().sum()
    return float(data + copies * (total_variation * variation + ridge * heat.square().sum()))


def box(heatmap, threshold=0.15):
    """Return first and last row, first and last column above a part of the maximum."""
    mask = heatmap > threshold * heatmap.max()
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize(("cells", "side"), [(7, 224), (14, 224), (10, 224), (2, 64), (5, 16)])
def test_the_sparse_operator_equals_warping_the_whole_heatmap(cells, side, agrees):
    heatmap = torch.rand(side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    operator = sampling_operator(MOVES, cells, cells, side)
    sparse = (operator.forward @ heatmap.float().view(-1, 1))[:, 0]
    expected = warped(heatmap, MOVES, cells)
    assert agrees(sparse, expected, 5e-6, "warping of torch's grid_sample", "augmented_grad_cam")


def test_the_sparse_operator_equals_sampling_the_pixels_it_needs(agrees):
    heatmap = torch.rand(112, 112, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    operator = sampling_operator(MOVES, 7, 7, 112)
    sparse = (operator.forward @ heatmap.float().view(-1, 1))[:, 0]
    expected = sampled(heatmap, MOVES, 7)
    assert agrees(sparse, expected, 5e-6, "warping of torch's grid_sample", "augmented_grad_cam")


def test_the_adjoint_is_the_transpose():
    operator = sampling_operator(MOVES, 3, 4, 32)
    assert torch.equal(operator.adjoint.to_dense(), operator.forward.to_dense().T)


def test_a_square_comes_back_sharper_than_one_enlarged_heatmap():
    square = torch.zeros(224, 224)
    square[60:150, 80:190] = 1
    operators = pyramid(AugmentedGradCAM(copies=100).transforms(), (14, 14), 224)
    coarse = operators[-1].forward @ square.view(-1, 1)
    single = interpolate(coarse[:196].view(1, 1, 14, 14), (224, 224), mode="bilinear")[0, 0]
    assert box(single) == (58, 149, 74, 197)
    solved = super_resolve(operators, coarse, 0.002, 0.0001, 100)[..., 0]
    assert box(solved) == (60, 149, 80, 189)
    assert float((solved - square).abs().mean()) < 0.02


def test_the_solution_is_near_the_optimum():
    square = torch.zeros(224, 224)
    square[60:150, 80:190] = 1
    operators = pyramid(MOVES, (14, 14), 224)
    coarse = operators[-1].forward @ square.view(-1, 1)
    solved = super_resolve(operators, coarse, 0.002, 0.0001, 100)
    best = super_resolve(operators, coarse, 0.002, 0.0001, 1000)
    reached, least = (objective(operators[-1], coarse, heat[..., 0]) for heat in (solved, best))
    assert least < reached < 1.02 * least


def test_without_total_variation_the_solution_is_that_of_the_normal_equations(agrees):
    operators = pyramid(MOVES, (3, 3), 32)
    coarse = torch.rand(12 * 9, 2, generator=torch.Generator().manual_seed(0))
    forward = operators[-1].forward.to_dense().double().numpy()
    _, ridge = operators[-1].weights(0.0, 0.1)
    expected = np.linalg.solve(forward.T @ forward + ridge * np.eye(32 * 32), forward.T @ coarse.numpy())
    solved = super_resolve(operators, coarse, 0.0, 0.1, 400).flatten(0, 1)
    assert agrees(
        solved, expected, 1e-5, "normal equations of numpy, no total variation", "augmented_grad_cam"
    )


def test_under_a_large_total_variation_the_solution_is_the_best_constant(agrees):
    operators = pyramid(MOVES, (3, 3), 32)
    coarse = torch.rand(12 * 9, 2, generator=torch.Generator().manual_seed(0))
    covered = operators[-1].forward.to_dense().double().numpy().sum(1)
    _, ridge = operators[-1].weights(1.0, 0.0001)
    constant = covered @ coarse.double().numpy() / (covered @ covered + ridge * 32 * 32)
    solved = super_resolve(operators, coarse, 1.0, 0.0001, 1000)
    expected = np.broadcast_to(constant, (32, 32, 2)).copy()
    assert agrees(solved, expected, 1e-4, "best constant, large total variation", "augmented_grad_cam")


def test_targets_are_solved_independently():
    operators = pyramid(MOVES, (3, 3), 32)
    coarse = torch.rand(12 * 9, 3, generator=torch.Generator().manual_seed(0))
    together = super_resolve(operators, coarse, 0.002, 0.0001, 30)
    alone = super_resolve(operators, coarse[:, 1:2].contiguous(), 0.002, 0.0001, 30)
    assert torch.allclose(together[..., 1:2], alone, atol=1e-6)


def test_no_heat_gives_no_heat():
    operators = pyramid(MOVES, (3, 3), 32)
    assert not super_resolve(operators, torch.zeros(12 * 9, 1), 0.002, 0.0001, 5).any()
