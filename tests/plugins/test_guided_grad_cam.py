"""Guided Grad-CAM against captum with bilinear upsampling, and against its formula."""

import pytest
import torch
from captum.attr import GuidedGradCam as Captum
from torch.nn import functional

from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_plugins.explainers.guided_grad_cam import GuidedGradCAM
from heatbox_plugins.guided import guided_gradients

LAYERS = [("resnet", "layer4"), ("resnet", "layer3"), ("vgg", "features.19"), ("squeezenet", "features.11")]


def captum_attribution(classifier, layer, image, target):
    explainer = Captum(classifier.network, classifier.network.get_submodule(layer))
    pixels = image.clone().requires_grad_()
    with pytest.warns(UserWarning, match="backward hooks"):
        return explainer.attribute(pixels, target, interpolate_mode="bilinear").detach()


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_guided_grad_cam_equals_captum(classifier, layer, images, targets, agrees):
    for image, target in targets.tolist():
        alone = images[image : image + 1]
        ours = GuidedGradCAM(layer=layer).gradients(classifier, alone, torch.tensor([[0, target]]))
        expected = captum_attribution(classifier, layer, alone, target)
        assert agrees(ours, expected, 2e-6, "captum GuidedGradCam")


def test_the_map_is_the_largest_positive_channel_of_the_product(mobilenet, images, targets):
    cam = GradCAM()(mobilenet, images, targets).heatmaps
    larger = functional.interpolate(cam.unsqueeze(1), (64, 64), mode="bilinear")
    product = larger * guided_gradients(mobilenet.network, images, targets)
    heatmaps = GuidedGradCAM(blur=0)(mobilenet, images, targets).heatmaps
    assert torch.equal(heatmaps, product.relu().amax(dim=1))
    assert heatmaps.max() > 0


def test_nothing_is_hot_where_grad_cam_is_cold(resnet, images):
    targets = torch.tensor([[0, 1], [1, 1], [2, 1]])
    cam = GradCAM(layer="layer3")(resnet, images, targets).heatmaps
    cold = functional.interpolate(cam.unsqueeze(1), (64, 64), mode="bilinear")[:, 0] == 0
    assert cold.any()
    assert not GuidedGradCAM(layer="layer3", blur=0)(resnet, images, targets).heatmaps[cold].any()


def test_two_targets_of_one_picture_give_two_maps(mobilenet, images):
    heatmaps = GuidedGradCAM()(mobilenet, images, torch.tensor([[0, 1], [0, 5]])).heatmaps
    assert not torch.allclose(heatmaps[0], heatmaps[1], rtol=0.01, atol=0)


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = GuidedGradCAM()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


def test_an_unusable_blur_is_refused():
    with pytest.raises(ValueError, match="blur"):
        GuidedGradCAM(blur=1.0)
