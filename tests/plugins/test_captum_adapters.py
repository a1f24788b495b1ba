"""Occlusion, SmoothGrad and integrated gradients equal captum's direct calls and their formulas by hand."""

import itertools
import sys

import numpy as np
import pytest
import torch
from captum import attr

from heatbox.errors import UnsupportedError
from heatbox_plugins.explainers.integrated_gradients import IntegratedGradients
from heatbox_plugins.explainers.occlusion import Occlusion
from heatbox_plugins.explainers.smooth_grad import SmoothGrad

QUICK = [
    Occlusion(window=0.5, step=0.25, batch=4),
    SmoothGrad(samples=3),
    IntegratedGradients(steps=4),
]
each = pytest.mark.parametrize("explainer", QUICK, ids=lambda explainer: type(explainer).__name__)


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_occlusion_equals_captum(classifier, images, targets, close):
    heatmaps = Occlusion(window=0.5, step=0.25, batch=5)(classifier, images, targets).heatmaps
    captum = attr.Occlusion(classifier.network)
    for row, (image, target) in enumerate(targets.tolist()):
        expected = captum.attribute(
            images[image : image + 1], sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=target
        )[0]
        assert close(heatmaps[row], expected.mean(0), 1e-4)


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_smooth_grad_equals_captum(classifier, images, targets, close):
    heatmaps = SmoothGrad(samples=10, noise=0.1, blur=0, seed=7)(classifier, images, targets).heatmaps
    captum = attr.NoiseTunnel(attr.Saliency(classifier.network))
    for row, (image, target) in enumerate(targets.tolist()):
        pixels = images[image : image + 1]
        sigma = 0.1 * float(pixels.max() - pixels.min())
        options = {
            "nt_samples": 10,
            "nt_samples_batch_size": 8,
            "stdevs": sigma,
            "target": target,
            "abs": False,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            expected = captum.attribute(pixels, **options)[0].abs().sum(0)
        assert close(heatmaps[row], expected)


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_integrated_gradients_equal_captum(classifier, images, targets, close):
    heatmaps = IntegratedGradients(steps=12, blur=0)(classifier, images, targets).heatmaps
    captum = attr.IntegratedGradients(classifier.network)
    for row, (image, target) in enumerate(targets.tolist()):
        expected = captum.attribute(images[image : image + 1], target=target, n_steps=12)[0]
        assert close(heatmaps[row], expected.detach().abs().sum(0))


def slopes(network, pictures, target):
    """Return the gradient of a class's logit at each picture by torch.autograd: (N, 3, H, W) -> (N, 3, H, W)."""
    with torch.enable_grad():
        pixels = pictures.clone().requires_grad_()
        return torch.autograd.grad(network(pixels)[:, target].sum(), pixels)[0]


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_occlusion_is_the_mean_drop_of_the_squares_that_hide_a_pixel(classifier, images, agrees):
    drops, hidden = torch.zeros(64, 64), torch.zeros(64, 64)
    for top, left in itertools.product(range(0, 33, 16), repeat=2):
        square = torch.zeros(64, 64)
        square[top : top + 32, left : left + 32] = 1
        drop = classifier.network(images[1:2])[0, 3] - classifier.network(images[1:2] * (1 - square))[0, 3]
        drops, hidden = drops + drop * square, hidden + square
    ours = Occlusion(window=0.5, step=0.25)(classifier, images, torch.tensor([[1, 3]])).heatmaps[0]
    assert agrees(ours, drops / hidden, 1e-4, "squares by hand", "occlusion")


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_smooth_grad_is_the_mean_gradient_of_noisy_copies(classifier, images, agrees):
    image = images[1]
    noise = torch.empty(8, 3, 64, 64).normal_(generator=torch.Generator().manual_seed(7))
    noisy = image + 0.1 * (image.max() - image.min()) * noise
    expected = slopes(classifier.network, noisy, 3).mean(0).abs().sum(0)
    explainer = SmoothGrad(samples=8, noise=0.1, blur=0, seed=7)
    ours = explainer(classifier, images, torch.tensor([[1, 3]])).heatmaps[0]
    assert agrees(ours, expected, 2e-5, "torch.autograd by hand", "smooth_grad")


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_integrated_gradients_are_gauss_legendre_sums_of_gradients(classifier, images, agrees):
    image = images[1]
    points, weights = (
        torch.from_numpy(numbers).float() / 2 for numbers in np.polynomial.legendre.leggauss(12)
    )
    path = (points + 0.5).view(-1, 1, 1, 1) * image
    integral = torch.einsum("s,schw->chw", weights, slopes(classifier.network, path, 3))
    explainer = IntegratedGradients(steps=12, blur=0)
    ours = explainer(classifier, images, torch.tensor([[1, 3]])).heatmaps[0]
    expected = (image * integral).abs().sum(0)
    assert agrees(
        ours, expected, 2e-5, "torch.autograd and numpy's Gauss-Legendre rule", "integrated_gradients"
    )


def test_integrated_gradients_add_up_to_the_score_above_the_blank_pictures(squeezenet, images):
    parts = IntegratedGradients(steps=64)._parts(squeezenet, images[:1], 2)  # noqa: SLF001
    gain = squeezenet.logits(images[:1])[0, 2] - squeezenet.logits(torch.zeros_like(images[:1]))[0, 2]
    assert float(parts.sum()) == pytest.approx(float(gain), rel=0.05)


def test_classes_of_a_picture_share_the_occluded_passes(resnet, images, monkeypatch):
    passes = []
    logits = type(resnet).logits
    monkeypatch.setattr(type(resnet), "logits", lambda self, x: passes.append(len(x)) or logits(self, x))
    Occlusion(window=0.5, step=0.25, batch=4)(resnet, images, torch.tensor([[1, 0], [1, 3], [1, 5]]))
    assert sum(passes) == 1 + 9


@each
def test_pictures_and_targets_do_not_touch_each_other(explainer, resnet, images, targets, close):
    together = explainer(resnet, images, targets).heatmaps
    assert together.shape == (4, 64, 64)
    assert not torch.allclose(together[0], together[3])
    for row, target in enumerate(targets):
        assert close(explainer(resnet, images, target[None]).heatmaps[0], together[row], 1e-4)


@each
def test_network_pictures_and_random_numbers_are_left_as_they_were(explainer, resnet, images, targets):
    before = {name: value.clone() for name, value in resnet.network.state_dict().items()}
    state = torch.get_rng_state()
    heatmaps = explainer(resnet, images, targets).heatmaps
    assert all(torch.equal(value, before[name]) for name, value in resnet.network.state_dict().items())
    assert not any(module._forward_hooks for module in resnet.network.modules())  # noqa: SLF001
    assert torch.equal(torch.get_rng_state(), state)
    assert not images.requires_grad
    assert images.grad is None
    assert not heatmaps.requires_grad


@each
def test_random_numbers_are_left_alone_after_an_error(explainer, resnet, images):
    state = torch.get_rng_state()
    with pytest.raises((IndexError, AssertionError, RuntimeError)):
        explainer(resnet, images, torch.tensor([[0, 99]]))
    assert torch.equal(torch.get_rng_state(), state)


@each
def test_a_constant_picture_gives_finite_maps(explainer, vgg):
    heatmaps = explainer(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


@each
def test_without_captum_the_explainer_says_what_to_install(explainer, resnet, images, targets, monkeypatch):
    assert explainer.supports(resnet) is None
    monkeypatch.setitem(sys.modules, "captum", None)
    assert "pip install 'heatbox[captum]'" in explainer.supports(resnet)
    with pytest.raises(UnsupportedError, match="captum is not installed"):
        explainer(resnet, images, targets)


@pytest.mark.parametrize(
    ("explainer", "options"),
    [
        (Occlusion, {"step": 0.3}),
        (Occlusion, {"batch": 0}),
        (SmoothGrad, {"samples": 0}),
        (SmoothGrad, {"noise": 1.5}),
        (SmoothGrad, {"blur": 0.5}),
        (IntegratedGradients, {"steps": 0}),
        (IntegratedGradients, {"blur": -1.0}),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(explainer, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        explainer(**options)
