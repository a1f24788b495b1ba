"""Grad-CAM++ against third derivatives of exp(y), its closed form at a GAP head, and the paper's formula in float64.

torchcam 0.5 is no reference: it divides a masked copy in place, so its alpha stays g^2. pytorch-grad-cam 1.5.7 agrees
when its 1e-6 in the denominator, as large as g^2 itself, is put into the formula.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from heatbox.models import make_card
from heatbox_plugins.explainers.grad_cam_pp import GradCAMPP
from heatbox_workers.classifier import TorchClassifier


@pytest.fixture
def piecewise_linear():
    """Return a classifier whose head behind layer 1 is convolution, ReLU and a linear layer, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        head = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3)]
        network = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU(), *head).double().eval()
    card = make_card(
        name="tiny",
        architecture="heatbox/tiny",
        labels=("a", "b", "c"),
        input_size=16,
        feature_layer="1",
        sha256="0" * 64,
    )
    return TorchClassifier(card, network.requires_grad_(requires_grad=False), torch.device("cpu"))


def derivatives_along_each_cell(function, maps):
    """Return the first three derivatives of a function along every single cell: 3 times the shape of `maps`."""
    cells = torch.eye(maps.numel(), dtype=maps.dtype).view(-1, *maps.shape)
    found, derivative = [], lambda step, cell: function(maps + step * cell)
    for _ in range(3):
        derivative = grad(derivative)
        found.append(vmap(derivative, (None, 0))(maps.new_zeros(()), cells).view_as(maps))
    return found


@pytest.mark.parametrize("target", [0, 1, 2])
def test_weights_are_those_of_the_derivatives_of_the_exponential_score(piecewise_linear, target, agrees):
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    maps = piecewise_linear.feature_maps(images)
    head = piecewise_linear.network[2:]
    first, second, third = derivatives_along_each_cell(lambda point: head(point)[0, target].exp(), maps)
    alpha = second / (2 * second + maps.sum(dim=(2, 3), keepdim=True) * third)
    alpha = alpha.where(second != 0, 0)
    weights = (alpha * first.relu()).sum(dim=(2, 3)) / head(maps)[0, target].exp()
    expected = torch.einsum("mk,mkhw->mhw", weights, maps).relu()
    assert expected.max() > 0
    ours = GradCAMPP()(piecewise_linear, images, torch.tensor([[0, target]])).heatmaps
    assert agrees(ours, expected, 1e-9, "derivatives of exp(y) by torch.func")


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_on_a_gap_network_the_weights_have_a_closed_form(classifier, images, targets, agrees):
    maps = classifier.feature_maps(images)[targets[:, 0]]
    rising = classifier.gap_weights()[targets[:, 1]].relu()
    weights = rising / (2 + rising * maps.mean(dim=(2, 3)))
    expected = torch.einsum("mk,mkhw->mhw", weights, maps).relu()
    ours = GradCAMPP()(classifier, images, targets).heatmaps
    assert agrees(ours, expected, 2e-5, "closed form at a GAP head")


@pytest.mark.parametrize(
    ("network", "layer"), [("resnet", "layer3"), ("resnet", "layer1"), ("squeezenet", "features.9")]
)
def test_grad_cam_pp_is_the_papers_formula(classifier, layer, images, targets, agrees):
    exact = replace(classifier, network=copy.deepcopy(classifier.network).double())
    head = exact.head_gradients(images.double(), targets, layer)
    squares, cubes = head.gradients**2, head.gradients**3
    total = head.maps.sum(dim=(2, 3), keepdim=True)
    alpha = (squares / (2 * squares + total * cubes)).where(squares > 0, 0)
    weights = (alpha * head.gradients.relu()).sum(dim=(2, 3))
    expected = torch.einsum("mk,mkhw->mhw", weights, head.maps).relu()
    ours = GradCAMPP(layer)(exact, images.double(), targets).heatmaps
    assert agrees(ours, expected, 1e-9, "the paper's formula in float64")


def test_one_picture_alone_gets_the_map_that_it_gets_in_a_batch(resnet, images, targets, close):
    heatmaps = GradCAMPP()(resnet, images, targets).heatmaps
    alone = GradCAMPP()(resnet, images[1:2], torch.tensor([[0, 4]])).heatmaps
    assert close(heatmaps[1:2], alone)


def test_maps_with_negative_values_stay_finite(mobilenet, images, targets):
    assert bool(GradCAMPP("features.14")(mobilenet, images, targets).heatmaps.isfinite().all())


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = GradCAMPP()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
