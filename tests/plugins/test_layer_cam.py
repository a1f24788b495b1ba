"""LayerCAM against torchcam, layer by layer and fused, and against its closed form at a GAP head."""

import pytest
import torch
from torchcam import methods

from heatbox_plugins.explainers.layer_cam import LayerCAM

LAYERS = [("resnet", "layer4"), ("resnet", "layer3"), ("resnet", "layer1"), ("vgg", "features.19")]


def torchcams_maps(classifier, image, target, *layers):
    """Return torchcam's LayerCAM of each layer, not normalised: L times (1, h, w)."""
    with torch.enable_grad(), methods.LayerCAM(classifier.network, target_layer=[*layers]) as extractor:
        scores = classifier.network(image.clone().requires_grad_())
        return [single.detach() for single in extractor(target, scores, normalized=False)]


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_layer_cam_equals_torchcam(classifier, layer, images, targets, agrees):
    ours = LayerCAM((layer,))(classifier, images, targets).heatmaps
    for row, (image, target) in enumerate(targets.tolist()):
        expected = torchcams_maps(classifier, images[image : image + 1], target, layer)
        assert agrees(ours[row], expected[0][0], 2e-5, "torchcam LayerCAM")


def test_on_a_gap_network_layer_cam_is_cam_with_positive_weights(resnet, images, targets, agrees):
    maps = resnet.feature_maps(images)[targets[:, 0]]
    expected = torch.einsum("mk,mkhw->mhw", resnet.gap_weights()[targets[:, 1]].relu(), maps)
    ours = LayerCAM()(resnet, images, targets).heatmaps
    assert agrees(ours * ours[0].numel(), expected, 2e-5, "closed form at a GAP head")


def test_fused_shallow_layers_equal_torchcams_fusion_of_maps_divided_by_their_maximum(resnet, images, agrees):
    ours = LayerCAM(("layer1", "layer2"))(resnet, images[:1], torch.tensor([[0, 3]])).heatmaps
    maps = torchcams_maps(resnet, images[:1], 3, "layer1", "layer2")
    expected = methods.LayerCAM.fuse_cams([single / single.max() for single in maps])
    assert agrees(ours, expected, 2e-5, "torchcam LayerCAM, fused")


def test_deep_layers_are_fused_without_the_tanh(resnet, images, agrees):
    ours = LayerCAM(("layer4", "layer3"))(resnet, images[:1], torch.tensor([[0, 3]])).heatmaps
    deep, shallow = (
        single / single.max() for single in torchcams_maps(resnet, images[:1], 3, "layer4", "layer3")
    )
    resized = torch.nn.functional.interpolate(deep[None], size=shallow.shape[1:], mode="bilinear")[0]
    assert agrees(ours, torch.maximum(resized, shallow), 2e-5, "torchcam LayerCAM, fused")


def test_a_larger_gamma_lifts_what_a_shallow_layer_saw_faintly(resnet, images, targets):
    faint = LayerCAM(("layer4", "layer1"), gamma=0.5)(resnet, images, targets).heatmaps
    strong = LayerCAM(("layer4", "layer1"), gamma=4)(resnet, images, targets).heatmaps
    assert faint.shape == strong.shape == (4, 16, 16)
    assert bool((strong >= faint).all())
    assert float((strong - faint).max()) > 0.1


def test_one_picture_alone_gets_the_fused_map_that_it_gets_in_a_batch(resnet, images, targets, close):
    fused = LayerCAM(("layer4", "layer2"))
    heatmaps = fused(resnet, images, targets).heatmaps
    assert close(heatmaps[1:2], fused(resnet, images[1:2], torch.tensor([[0, 4]])).heatmaps)


def test_a_constant_picture_gives_finite_maps(vgg):
    fused = LayerCAM(("auto", "features.9"))
    heatmaps = fused(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "layers"),
        ({"layers": "layer4"}, "layers"),
        ({"layers": ("auto", "")}, "layers"),
        ({"gamma": 0}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
    ],
)
def test_an_unusable_option_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        LayerCAM(**options)
