"""HiResCAM against captum's gradient times activation and, at a GAP head, against CAM."""

import pytest
import torch
from captum.attr import LayerGradientXActivation

from heatbox_plugins.explainers.cam import CAM
from heatbox_plugins.explainers.hires_cam import HiResCAM

LAYERS = [("resnet", "layer4"), ("resnet", "layer3"), ("mobilenet", "features.14"), ("vgg", "features.19")]


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_hires_cam_is_captums_gradient_times_activation_over_the_channels(
    classifier, layer, images, targets, agrees
):
    ours = HiResCAM(layer)(classifier, images, targets).heatmaps
    captum = LayerGradientXActivation(classifier.network, classifier.network.get_submodule(layer))
    for row, (image, target) in enumerate(targets.tolist()):
        with torch.enable_grad():
            pixels = images[image : image + 1].clone().requires_grad_()
            expected = captum.attribute(pixels, target).detach().sum(1)[0]
        assert agrees(ours[row], expected, 2e-5, "captum LayerGradientXActivation")


@pytest.mark.parametrize("network", ["resnet", "mobilenet", "squeezenet"])
def test_on_a_gap_network_hires_cam_is_cam_up_to_the_map_size(classifier, images, targets, close):
    hires_cam = HiResCAM()(classifier, images, targets).heatmaps
    assert close(hires_cam * hires_cam[0].numel(), CAM()(classifier, images, targets).heatmaps)


def test_on_a_gap_network_the_map_sums_to_the_logit_less_the_bias(resnet, images, targets, agrees):
    heatmaps = HiResCAM()(resnet, images, targets).heatmaps
    logits = resnet.logits(images)[targets[:, 0], targets[:, 1]]
    expected = logits - resnet.network.fc.bias[targets[:, 1]]
    assert agrees(heatmaps.sum(dim=(1, 2)), expected, 1e-4, "logit less the bias")


def test_one_picture_alone_gets_the_map_that_it_gets_in_a_batch(resnet, images, targets, close):
    heatmaps = HiResCAM()(resnet, images, targets).heatmaps
    alone = HiResCAM()(resnet, images[1:2], torch.tensor([[0, 4]])).heatmaps
    assert close(heatmaps[1:2], alone)


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = HiResCAM()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
