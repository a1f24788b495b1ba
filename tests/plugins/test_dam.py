"""DAM against captum step by step, OpenCV's opening, and a network whose evidence is known."""

import cv2
import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation, NeuronGuidedBackprop
from torch import nn

from heatbox.errors import LayerNotFoundError
from heatbox.models import make_card
from heatbox_plugins.explainers.dam import DAM, neuron_gradients, opening, strongest_neurons
from heatbox_workers.classifier import TorchClassifier

LAYERS = [("resnet", "layer4"), ("resnet", "layer3"), ("vgg", "features.17"), ("squeezenet", "features.11")]


def impact(classifier, images, targets, layer):
    head = classifier.head_gradients(images, targets, layer)
    return head.maps * head.gradients


class Brightness(nn.Module):
    """Class c counts the bright pixels of colour c: red, green or blue."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.conv.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.conv.bias.data.zero_()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x)).mean(dim=(2, 3))


@pytest.fixture
def brightness():
    network = Brightness().eval().requires_grad_(requires_grad=False)
    card = make_card(
        name="brightness",
        architecture="heatbox/tiny",
        labels=("red", "green", "blue"),
        input_size=32,
        feature_layer="relu",
        sha256="0" * 64,
    )
    return TorchClassifier(card, network, torch.device("cpu"))


@pytest.fixture
def red_square():
    """Black, with one red square of 8 x 8 pixels, brightest in its middle."""
    image = torch.full((1, 3, 32, 32), -1.0)
    image[0, 0, 10:18, 14:22] = 1
    image[0, 0, 14, 18] = 2
    return image


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_the_score_of_a_neuron_is_captums_gradient_times_activation(
    classifier, layer, images, targets, agrees
):
    module = classifier.network.get_submodule(layer)
    for row, (image, target) in enumerate(targets.tolist()):
        with torch.enable_grad():
            pixels = images[image : image + 1].clone().requires_grad_()
            expected = LayerGradientXActivation(classifier.network, module).attribute(pixels, target).detach()
        ours = impact(classifier, images, targets, layer)[row]
        assert agrees(ours, expected[0], 2e-5, "captum LayerGradientXActivation")


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_neurons_are_traced_to_the_pixels_as_captum_traces_each(classifier, layer, images, targets, agrees):
    scores = impact(classifier, images[:1], targets[:1], layer)
    _, neurons = strongest_neurons(scores, 20)  # more than one batch of them
    ours = neuron_gradients(classifier.network, layer, images[:1], neurons[0])
    captum = NeuronGuidedBackprop(classifier.network, classifier.network.get_submodule(layer))
    for gradient, neuron in zip(ours, neurons[0].tolist(), strict=True):
        place = tuple(int(index) for index in np.unravel_index(neuron, scores.shape[1:]))
        with pytest.warns(UserWarning, match="backward hooks"):
            expected = captum.attribute(images[:1].clone().requires_grad_(), place)
        assert agrees(gradient, expected[0], 0, "captum NeuronGuidedBackprop")


def test_the_strongest_neurons_come_from_different_channels():
    scores = torch.tensor([[[[5.0, 4.0]], [[1.0, 3.0]], [[-1.0, -2.0]]]])
    strength, neurons = strongest_neurons(scores, 2)
    assert strength.tolist() == [[5, 3]]
    assert neurons.tolist() == [[0, 3]]


def test_a_layer_with_fewer_channels_than_neurons_gives_all_of_them():
    strength, neurons = strongest_neurons(torch.rand(2, 3, 4, 4), 10)
    assert strength.shape == neurons.shape == (2, 3)


def test_opening_is_opencvs_with_a_cross(agrees):
    masks = torch.rand(4, 40, 50, generator=torch.Generator().manual_seed(0)) > 0.2
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for mask, ours in zip(masks.numpy(), opening(masks).numpy(), strict=True):
        expected = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, cross).astype(bool)
        assert agrees(ours, expected, 0, "OpenCV morphologyEx")
        assert 0 < expected.sum() < mask.sum()


def test_the_mask_lies_around_the_neuron_that_speaks_for_the_class(brightness, red_square):
    mask = DAM(percentile=90, blur=0.04)(brightness, red_square, torch.tensor([[0, 0]])).masks[0]
    rows, columns = mask.nonzero().unbind(1)
    assert rows.min() <= 14 <= rows.max()
    assert columns.min() <= 18 <= columns.max()
    assert mask.sum() <= 0.1 * mask.numel()


def test_no_neuron_that_speaks_for_a_class_gives_an_empty_mask(brightness, red_square):
    masks = DAM()(brightness, red_square, torch.tensor([[0, 2], [0, 0]])).masks
    assert masks.any(dim=(1, 2)).tolist() == [False, True]


def test_small_parts_of_the_union_are_dropped_but_never_all():
    mask = torch.zeros(1, 2, 40, 40, dtype=torch.bool)
    mask[0, 0, 2:12, 2:12] = True
    mask[0, 1, 30:33, 30:33] = True
    scores = torch.tensor([[0.5, 0.4]])
    for least, pixels in ((0.0, 109), (0.01, 100), (1.0, 100)):
        assert DAM(min_area=least)._unite(mask, scores).sum() == pixels  # noqa: SLF001 - the step alone


def test_only_the_masks_of_lowest_loss_are_united():
    mask = torch.zeros(1, 3, 9, 9, dtype=torch.bool)
    for number in range(3):
        mask[0, number, 3 * number] = True
    united = DAM(keep=2, min_area=0)._unite(mask, torch.tensor([[0.1, 0.9, 0.5]]))  # noqa: SLF001
    assert united[0].any(dim=1).nonzero().flatten().tolist() == [3, 6]


def test_masks_behind_which_the_class_is_lost_are_left_out(resnet, images):
    few = DAM(neurons=6, keep=1, min_area=0)(resnet, images, torch.tensor([[0, 1]])).masks
    all_six = DAM(neurons=6, keep=6, min_area=0)(resnet, images, torch.tensor([[0, 1]])).masks
    assert few.any()
    assert (few & ~all_six).sum() == 0
    assert few.sum() < all_six.sum()


def test_a_batch_gives_what_each_picture_gives_alone_in_any_order(resnet, images, targets):
    masks = DAM(layer="layer3")(resnet, images, targets).masks
    assert torch.equal(DAM(layer="layer3")(resnet, images, targets.flip(0)).masks.flip(0), masks)
    for row, (image, target) in enumerate(targets.tolist()):
        alone = DAM(layer="layer3")(resnet, images[image : image + 1], torch.tensor([[0, target]])).masks
        assert torch.equal(alone[0], masks[row])


def test_two_targets_of_one_picture_give_two_masks(mobilenet, images):
    masks = DAM()(mobilenet, images, torch.tensor([[0, 1], [0, 2]])).masks
    assert not torch.equal(masks[0], masks[1])


def test_the_network_is_left_as_it_was_found_also_after_an_exception(resnet, images, targets):
    before = {name: value.clone() for name, value in resnet.network.state_dict().items()}
    with pytest.raises(LayerNotFoundError):
        DAM(layer="nowhere")(resnet, images, targets)
    DAM()(resnet, images, targets)
    assert all(torch.equal(value, before[name]) for name, value in resnet.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in resnet.network.parameters())
    assert not any(module._forward_hooks for module in resnet.network.modules())  # noqa: SLF001


def test_a_constant_picture_gives_masks(vgg):
    masks = DAM()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).masks
    assert masks.shape == (1, 64, 64)


@pytest.mark.parametrize(
    "options",
    [
        {"neurons": 0},
        {"keep": 11},
        {"keep": 0},
        {"percentile": 101.0},
        {"min_area": -0.1},
        {"blur": 0.5},
    ],
    ids=str,
)
def test_an_unusable_option_is_refused_by_name(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be from"):
        DAM(**options)
