"""Grad-CAM against captum, torchcam and its formula; one forward pass, nothing left behind."""

import pytest
import torch
from captum.attr import LayerGradCam
from torchcam import methods

from heatbox_plugins.explainers.grad_cam import GradCAM

LAYERS = [("resnet", "layer4"), ("resnet", "layer3"), ("mobilenet", "features.14"), ("vgg", "features.19")]


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_grad_cam_equals_captum(classifier, layer, images, targets, agrees):
    ours = GradCAM(layer=layer)(classifier, images, targets).heatmaps
    captum = LayerGradCam(classifier.network, classifier.network.get_submodule(layer))
    for row, (image, target) in enumerate(targets.tolist()):
        with torch.enable_grad():
            pixels = images[image : image + 1].clone().requires_grad_()
            expected = captum.attribute(pixels, target, relu_attributions=True)[0, 0].detach()
        assert agrees(ours[row], expected, 2e-5, "captum LayerGradCam")


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_grad_cam_equals_torchcam(classifier, layer, images, agrees):
    pixels = images[:1].clone().requires_grad_()
    with torch.enable_grad(), methods.GradCAM(classifier.network, target_layer=layer) as extractor:
        scores = classifier.network(pixels)
        expected = extractor(2, scores, normalized=False)[0]
    ours = GradCAM(layer=layer)(classifier, images[:1], torch.tensor([[0, 2]])).heatmaps
    assert agrees(ours, expected.relu(), 2e-5, "torchcam GradCAM")


def test_two_targets_of_one_picture_give_two_maps(resnet, images):
    heatmaps = GradCAM()(resnet, images, torch.tensor([[0, 1], [0, 2]])).heatmaps
    assert not torch.allclose(heatmaps[0], heatmaps[1])


def test_the_network_is_left_as_it_was_found(resnet, images, targets):
    before = {name: value.clone() for name, value in resnet.network.state_dict().items()}
    state = torch.get_rng_state()
    GradCAM()(resnet, images, targets)
    assert all(torch.equal(value, before[name]) for name, value in resnet.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in resnet.network.parameters())
    assert not any(module._forward_hooks for module in resnet.network.modules())  # noqa: SLF001
    assert torch.equal(torch.get_rng_state(), state)
    assert not resnet.network.training


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = GradCAM()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
