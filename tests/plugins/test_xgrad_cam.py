"""XGrad-CAM against torchcam, its axiom, and, at a GAP head, against CAM."""

import pytest
import torch
from torchcam import methods

from heatbox_plugins.explainers.cam import CAM
from heatbox_plugins.explainers.xgrad_cam import XGradCAM

LAYERS = [("resnet", "layer4"), ("resnet", "layer3"), ("resnet", "layer1"), ("vgg", "features.19")]


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_xgrad_cam_equals_torchcam(classifier, layer, images, targets, agrees):
    ours = XGradCAM(layer)(classifier, images, targets).heatmaps
    for row, (image, target) in enumerate(targets.tolist()):
        pixels = images[image : image + 1].clone().requires_grad_()
        with torch.enable_grad(), methods.XGradCAM(classifier.network, target_layer=layer) as extractor:
            scores = classifier.network(pixels)
            expected = extractor(target, scores, normalized=False)[0][0].detach()
        assert agrees(ours[row], expected, 2e-5, "torchcam XGradCAM")


@pytest.mark.parametrize("network", ["resnet", "mobilenet"])
def test_on_a_gap_network_xgrad_cam_is_cam_up_to_the_map_size(classifier, images, targets, close):
    xgrad_cam = XGradCAM()(classifier, images, targets).heatmaps
    assert close(xgrad_cam * xgrad_cam[0].numel(), CAM()(classifier, images, targets).heatmaps.relu())


def test_a_dead_channel_gives_no_nan(resnet, images, targets):
    assert bool((resnet.feature_maps(images).amax(dim=(2, 3)) == 0).any())
    assert bool(XGradCAM()(resnet, images, targets).heatmaps.isfinite().all())


def test_one_picture_alone_gets_the_map_that_it_gets_in_a_batch(resnet, images, targets, close):
    heatmaps = XGradCAM()(resnet, images, targets).heatmaps
    alone = XGradCAM()(resnet, images[1:2], torch.tensor([[0, 4]])).heatmaps
    assert close(heatmaps[1:2], alone)


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = XGradCAM()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
