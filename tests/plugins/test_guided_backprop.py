"""Guided backpropagation against captum, on the VGG16 of the guided-backprop project too."""

import pytest
import torch
import torchvision
from captum.attr import GuidedBackprop as Captum

from heatbox.models import make_card
from heatbox_plugins.explainers.guided_backprop import GuidedBackprop
from heatbox_plugins.guided import guided, guided_gradients
from heatbox_workers.classifier import TorchClassifier


@pytest.fixture(scope="module")
def vgg16():
    """The network of the guided-backprop project."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = torchvision.models.vgg16(weights=None, num_classes=6)
    return network.eval().requires_grad_(requires_grad=False)


def captum_gradients(network, images, targets):
    with pytest.warns(UserWarning, match="backward hooks"), torch.enable_grad():
        return torch.cat(
            [Captum(network).attribute(images[i : i + 1].clone().requires_grad_(), c) for i, c in targets]
        )


@pytest.mark.parametrize("name", ["resnet", "vgg", "squeezenet"])
def test_guided_gradients_equal_captums_to_the_bit(name, request, images, targets, agrees):
    network = request.getfixturevalue(name).network
    for target in targets.tolist():
        alone = images[target[0] : target[0] + 1]
        ours = guided_gradients(network, alone, torch.tensor([[0, target[1]]]))
        expected = captum_gradients(network, images, [target])
        assert agrees(ours, expected, 0, "captum GuidedBackprop")


def test_vgg16_equals_captum_to_the_bit(vgg16, images, agrees):
    ours = guided_gradients(vgg16, images[:1], torch.tensor([[0, 2]]))
    expected = captum_gradients(vgg16, images, [(0, 2)])
    assert agrees(ours, expected, 0, "captum GuidedBackprop")


def test_every_relu_of_vgg16_is_found(vgg16):
    with guided(vgg16(torch.zeros(1, 3, 32, 32, requires_grad=True) * 1)) as found:
        assert found == 15


def test_vgg16_is_explained_as_a_classifier(vgg16, images):
    labels = tuple(f"class {index}" for index in range(6))
    card = make_card(name="vgg16", architecture="torchvision/vgg16", labels=labels, input_size=64)
    classifier = TorchClassifier(card, vgg16, torch.device("cpu"))
    heatmaps = GuidedBackprop()(classifier, images, torch.tensor([[2, 0], [0, 1]])).heatmaps
    assert heatmaps.shape == (2, 64, 64)
    assert (heatmaps.amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize(
    ("sign", "count"), [("absolute", torch.abs), ("positive", torch.relu)], ids=["absolute", "positive"]
)
def test_the_map_is_the_largest_channel(sign, count, resnet, images, targets):
    gradients = guided_gradients(resnet.network, images, targets)
    heatmaps = GuidedBackprop(sign=sign, blur=0)(resnet, images, targets).heatmaps
    assert torch.equal(heatmaps, count(gradients).amax(dim=1))


def test_two_targets_of_one_picture_give_two_maps(mobilenet, images):
    heatmaps = GuidedBackprop()(mobilenet, images, torch.tensor([[0, 1], [0, 2]])).heatmaps
    assert not torch.allclose(heatmaps[0], heatmaps[1], rtol=0.01, atol=0)


def test_the_order_of_targets_does_not_matter(mobilenet, images, targets):
    heatmaps = GuidedBackprop()(mobilenet, images, targets).heatmaps
    back = GuidedBackprop()(mobilenet, images, targets.flip(0)).heatmaps.flip(0)
    torch.testing.assert_close(heatmaps, back, rtol=1e-4, atol=1e-4 * float(heatmaps.max()))


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = GuidedBackprop()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


def test_an_unknown_sign_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="absolute or positive"):
        GuidedBackprop(sign="both")
