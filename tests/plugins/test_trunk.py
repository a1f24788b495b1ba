"""The trunk of networks: which layers are on it."""

import pytest
from torch import nn

from heatbox_plugins.trunk import last_stage

STAGES = [
    ("resnet", ("layer4.0", "layer4"), "layer3"),
    ("mobilenet", (*(f"features.{index}" for index in range(14, 18)), "features"), "features.13"),
    (
        "squeezenet",
        ("features.9", "features.10", "features.11", "classifier.0", "classifier.2"),
        "features.7",
    ),
]


@pytest.mark.parametrize(("network", "layers", "before"), STAGES)
def test_the_last_stage_is_found_by_the_sizes_of_its_maps(classifier, layers, before):
    stage = last_stage(classifier)
    assert (stage.layers, stage.before) == (layers, before)


def test_a_network_of_one_resolution_has_no_layer_before(vgg):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    stage = last_stage(type(vgg)(vgg.card.model_copy(update={"feature_layer": "1"}), network, vgg.device))
    assert (stage.layers, stage.before) == (("0", "1"), None)
