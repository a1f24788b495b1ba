"""CAM against its closed form, against Grad-CAM, and against torchcam and captum."""

import pytest
import torch
from captum.attr import LayerGradCam
from torchcam import methods

from heatbox.errors import UnsupportedError
from heatbox_plugins.explainers.cam import CAM
from heatbox_plugins.explainers.grad_cam import GradCAM


def test_cam_averages_to_the_logit_less_the_bias(mobilenet, images, targets, agrees):
    heatmaps = CAM()(mobilenet, images, targets).heatmaps
    logits = mobilenet.logits(images)[targets[:, 0], targets[:, 1]]
    bias = mobilenet.network.classifier[1].bias[targets[:, 1]]
    assert agrees(heatmaps.mean(dim=(1, 2)), logits - bias, 1e-4, "logit less the bias")


@pytest.mark.parametrize("network", ["resnet", "mobilenet"])
def test_on_a_gap_network_cam_is_grad_cam_up_to_the_map_size(classifier, images, targets, close):
    cam = CAM()(classifier, images, targets).heatmaps
    grad_cam = GradCAM()(classifier, images, targets).heatmaps
    cells = cam.shape[1] * cam.shape[2]
    assert close(grad_cam * cells, cam.relu())


def test_cam_equals_captums_layer_grad_cam_times_the_map_size(mobilenet, images, targets, agrees):
    cam = CAM()(mobilenet, images, targets).heatmaps
    captum = LayerGradCam(mobilenet.network, mobilenet.network.features)
    for row, (image, target) in enumerate(targets.tolist()):
        with torch.enable_grad():
            expected = captum.attribute(images[image : image + 1].requires_grad_(), target)
        expected = expected[0, 0].detach() * cam[row].numel()
        assert agrees(cam[row], expected, 2e-5, "captum LayerGradCam")


def test_cam_equals_torchcam(resnet, images, agrees):
    with methods.CAM(resnet.network, target_layer="layer4", fc_layer="fc") as extractor:
        resnet.network(images[:1])
        expected = extractor(class_idx=3, normalized=False)[0]
    ours = CAM()(resnet, images[:1], torch.tensor([[0, 3]])).heatmaps
    assert agrees(ours.relu(), expected.relu(), 2e-5, "torchcam CAM")


def test_a_squeezenet_class_map_is_its_own_channel(squeezenet, images, agrees):
    heatmaps = CAM()(squeezenet, images, torch.tensor([[1, 2]])).heatmaps
    assert agrees(
        heatmaps[0], squeezenet.feature_maps(images)[1, 2], 0, "the class's own channel in squeezenet"
    )


def test_a_network_without_a_gap_head_is_refused_in_words(vgg, images, targets):
    assert "grad_cam" in CAM().supports(vgg)
    with pytest.raises(UnsupportedError, match="GAP"):
        CAM()(vgg, images, targets)
