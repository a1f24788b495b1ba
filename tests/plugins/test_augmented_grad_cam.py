"""Augmented Grad-CAM: its augmentations, the Grad-CAMs of the copies, and what all explainers promise."""

import math

import pytest
import torch
from captum.attr import LayerGradCam
from torchvision.transforms.v2 import functional as tv

from heatbox_plugins.explainers.augmented_grad_cam import AugmentedGradCAM
from heatbox_plugins.super_resolution import pyramid, super_resolve

QUICK = {"copies": 5, "resolution": 64, "iterations": 20}


def points(transforms, *where):
    """Return where points (x, y) of the copies lie in the picture: -> (L, P, 2)."""
    rows = torch.tensor([[x, y, 1.0] for x, y in where], dtype=torch.float64)
    return torch.einsum("lij,pj->lpi", transforms, rows)


def test_the_first_copy_is_the_picture_itself():
    assert torch.equal(AugmentedGradCAM(scale=0.5, flip=True).transforms()[0], torch.eye(2, 3).double())


def test_options_at_zero_move_nothing():
    moves = AugmentedGradCAM(rotation=0, shift=0).transforms()
    assert torch.allclose(moves, torch.eye(2, 3).double().expand(24, 2, 3))


def test_copies_stay_inside_the_ranges_and_use_them():
    moves = AugmentedGradCAM(copies=400, rotation=0.4, shift=0.1, scale=0.25).transforms()
    zoom = moves[:, :, :2].det().sqrt()
    angle = torch.atan2(moves[:, 0, 1], moves[:, 0, 0]).abs()
    shift = torch.linalg.solve(moves[:, :, :2], moves[:, :, 2]).abs() / 2
    for value, largest in ((angle, 0.4), (shift, 0.1), (zoom, 1.25), (1 / zoom, 1.25)):
        assert 0.95 * largest < float(value.max()) <= largest + 1e-6


def test_half_of_the_copies_are_mirrored():
    mirrored = AugmentedGradCAM(copies=400, flip=True).transforms()[:, :, :2].det() < 0
    assert 160 < int(mirrored.sum()) < 240


def test_a_copy_is_turned_about_the_centre_then_shifted():
    moves = AugmentedGradCAM(shift=0.0, rotation=math.pi).transforms()
    assert torch.allclose(points(moves, (0, 0)), torch.zeros(24, 1, 2).double())
    ends = points(AugmentedGradCAM().transforms(), (0, 0), (1, 0))
    assert torch.allclose((ends[:, 1] - ends[:, 0]).norm(dim=1), torch.ones(24).double())


def test_the_coarse_maps_are_captums_grad_cams_of_the_copies(vgg, images, agrees):
    explainer = AugmentedGradCAM(copies=3, batch=2, rotation=0, shift=0, flip=True, seed=0)
    moves = explainer.transforms()
    assert (moves[:, 0, 0] < 0).tolist() == [False, True, True]
    coarse = explainer._coarse(vgg, images[1], torch.tensor([4, 0]), moves)  # noqa: SLF001
    captum = LayerGradCam(vgg.network, vgg.network.get_submodule(vgg.feature_layer))
    for row, copy in enumerate([images[1], tv.horizontal_flip(images[1]), tv.horizontal_flip(images[1])]):
        with torch.enable_grad():
            pixels = copy[None].clone().requires_grad_()
            expected = captum.attribute(pixels, 4, relu_attributions=True)[0, 0].detach()
        assert agrees(coarse[0, row], expected / expected.max(), 1e-4, "captum LayerGradCam of each copy")


def test_the_heatmap_solves_the_inverse_problem_of_the_coarse_maps(resnet, images):
    explainer = AugmentedGradCAM(**QUICK)
    moves = explainer.transforms()
    coarse = explainer._coarse(resnet, images[0], torch.tensor([3]), moves)  # noqa: SLF001
    operators = pyramid(moves, coarse.shape[2:], 64)
    expected = super_resolve(operators, coarse.view(-1, 1), 0.002, 0.0001, 20)[..., 0]
    assert torch.allclose(explainer(resnet, images, torch.tensor([[0, 3]])).heatmaps[0], expected, atol=1e-5)


def test_all_targets_of_a_picture_share_the_passes(resnet, images, monkeypatch):
    passes = []
    run = type(resnet).head_gradients
    monkeypatch.setattr(
        type(resnet), "head_gradients", lambda self, x, *rest: passes.append(len(x)) or run(self, x, *rest)
    )
    AugmentedGradCAM(**QUICK, batch=2)(resnet, images, torch.tensor([[1, 0], [1, 3], [1, 5]]))
    assert passes == [2, 2, 1]


def test_pictures_and_targets_do_not_touch_each_other(resnet, images, targets):
    explainer = AugmentedGradCAM(**QUICK)
    together = explainer(resnet, images, targets).heatmaps
    assert together.shape == (4, 64, 64)
    assert not torch.allclose(together[0], together[3], atol=1e-3)
    for row, target in enumerate(targets):
        alone = explainer(resnet, images, target[None]).heatmaps[0]
        assert torch.allclose(together[row], alone, atol=1e-4)


def test_the_seed_alone_decides(resnet, images, targets):
    state = torch.get_rng_state()
    first, again, other = (
        AugmentedGradCAM(**QUICK, seed=seed)(resnet, images, targets).heatmaps for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = AugmentedGradCAM(**QUICK)(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


@pytest.mark.parametrize(
    "option",
    [
        {"copies": 0},
        {"rotation": 4.0},
        {"shift": 0.6},
        {"scale": -0.1},
        {"resolution": 8},
        {"ridge": math.nan},
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be from"):
        AugmentedGradCAM(**option)
