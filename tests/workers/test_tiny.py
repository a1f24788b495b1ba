"""TinyNet: small, one map cell per 8 x 8 pixels, and a head for which CAM is exact."""

import pytest
import torch

from heatbox_workers.features import find_feature_layer, find_gap_weights
from heatbox_workers.networks import build_network
from heatbox_workers.tiny import TinyNet


@pytest.fixture
def network() -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNet(4).eval().requires_grad_(requires_grad=False)


def test_logits_are_the_linear_layer_of_the_average_map(network):
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    pooled = network.features(images).mean(dim=(2, 3))
    assert torch.allclose(network(images), pooled @ network.classifier.weight.T + network.classifier.bias)


def test_the_gap_probe_finds_the_head_at_the_feature_layer(network):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    layer = find_feature_layer(network, images)
    assert layer == "features"
    assert torch.equal(find_gap_weights(network, layer, images), network.classifier.weight)


@pytest.mark.parametrize(("side", "cells"), [(64, 8), (160, 20), (224, 28)])
def test_a_map_has_one_cell_per_eight_pixels(network, side, cells):
    assert network.features(torch.zeros(1, 3, side, side)).shape[2:] == (cells, cells)


def test_a_map_lies_straight_over_its_picture(network):
    with torch.no_grad():  # with kernels of equal weights a mirrored picture has the mirrored map
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.fill_(1 / parameter[0].numel())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(
        network.features(picture.flip(2, 3)), network.features(picture).flip(2, 3), atol=1e-6
    )


def test_maps_are_never_negative(network):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert network.features(images).min() >= 0


def test_it_has_fewer_than_half_a_million_weights(network):
    assert sum(parameter.numel() for parameter in network.parameters()) < 500_000


def test_it_is_built_by_its_name_and_options():
    network = build_network("heatbox/tiny", {"depth": 1}, classes=7)
    assert isinstance(network, TinyNet)
    assert len(network.features) == 4
    assert network.classifier.out_features == 7
