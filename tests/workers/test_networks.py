"""Networks by name, TensorFlow's padding, and published weights without a network."""

import pytest
import torch
from torch import nn

from heatbox.errors import ModelInvalidError, ModelNotFoundError, WeightsUnavailableError
from heatbox_workers.networks import (
    build_network,
    canonical_architecture,
    published_weights,
    use_same_padding,
)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "torchvision/mobilenet_v2", "torchvision.models.mobilenet_v2"]
)
def test_a_network_is_found_with_or_without_its_family(name):
    assert canonical_architecture(name) == "torchvision/mobilenet_v2"


def test_an_unknown_network_gets_the_nearest_name():
    with pytest.raises(ModelNotFoundError, match="mobilenet_v2"):
        canonical_architecture("mobilnet_v2")


def test_a_detection_network_is_not_a_classifier():
    with pytest.raises(ModelNotFoundError):
        canonical_architecture("fasterrcnn_resnet50_fpn")


def test_unknown_constructor_options_are_told():
    with pytest.raises(ModelInvalidError, match="wings"):
        build_network("mobilenet_v2", {"wings": 2}, 3)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_training_only_heads_are_taken_off(name):
    names = {key.partition(".")[0] for key in build_network(name, {}, 4).state_dict()}
    assert not names & {"aux1", "aux2", "AuxLogits"}


def test_same_padding_puts_the_odd_pixel_right_and_below():
    network = use_same_padding(nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)))
    nn.init.ones_(network[0].weight)
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    padded = torch.nn.functional.pad(picture, (0, 1, 0, 1))
    assert torch.equal(network(picture), torch.nn.functional.conv2d(padded, network[0].weight, stride=2))


def test_same_padding_leaves_stride_one_alone():
    network = use_same_padding(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)))
    assert type(network[0]) is nn.Conv2d


def test_published_weights_without_a_network_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(WeightsUnavailableError, match="squeezenet1_1") as caught:
        published_weights("squeezenet1_1")
    assert "TORCH_HOME" in caught.value.remedy


def test_our_own_network_has_no_published_weights():
    with pytest.raises(ModelNotFoundError, match="published"):
        published_weights("heatbox/tiny")
