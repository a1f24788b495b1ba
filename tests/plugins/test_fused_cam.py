"""Fused CAM against Grad-CAM, captum's layer contributions and its own formula; scaled and mirrored views come back."""

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch.nn.functional import avg_pool2d, interpolate

from heatbox.errors import LayerNotFoundError
from heatbox_plugins.explainers.fused_cam import FusedCAM
from heatbox_plugins.explainers.grad_cam import GradCAM

FLOOR = 1e-3


def seen_at(maps, side=16):
    """Interpolate to a quarter of the 64-pixel input and divide by the maximum, as each layer is."""
    large = interpolate(maps[:, None], (side, side), mode="bicubic")[:, 0].clamp(min=0)
    return large / large.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def captums_contributions(classifier, layer, images, targets):
    """Return the sum of a layer's positive products of gradient and activation: (M, h, w)."""
    captum = LayerGradientXActivation(classifier.network, classifier.network.get_submodule(layer))
    with torch.enable_grad():
        pixels = images[targets[:, 0]].clone().requires_grad_()
        return captum.attribute(pixels, targets[:, 1]).detach().relu().sum(dim=1)


LAYERS = [("mobilenet", ("features.16", "features.13")), ("resnet", ("layer4.0", "layer3"))]


@pytest.mark.parametrize(("network", "layers"), LAYERS)
def test_fused_cam_is_the_geometric_mean_of_independent_maps(classifier, layers, images, targets, agrees):
    middle, fine = layers
    padded = torch.nn.functional.pad
    sharp = captums_contributions(classifier, fine, images, targets)[:, None]
    smooth = avg_pool2d(padded(sharp, (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    maps = [
        GradCAM()(classifier, images, targets).heatmaps,
        captums_contributions(classifier, middle, images, targets),
        smooth,
    ]
    product = torch.stack([seen_at(one) + FLOOR for one in maps]).prod(dim=0) ** (1 / 3) - FLOOR
    expected = product / product.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    ours = FusedCAM()(classifier, images, targets).heatmaps
    assert agrees(ours, expected, 1e-3, "Grad-CAM and captum's gradient times activation, fused")


def test_the_layers_that_are_named_are_those_that_are_fused(mobilenet, images, targets, close):
    named = FusedCAM("features.18", "features.16", "features.13")(mobilenet, images, targets).heatmaps
    assert close(FusedCAM()(mobilenet, images, targets).heatmaps, named)
    other = FusedCAM(fine="features.6")(mobilenet, images, targets).heatmaps
    assert not close(other, named, 0.1)


def test_a_layer_that_is_not_there_is_named(mobilenet, images, targets):
    with pytest.raises(LayerNotFoundError, match=r"has no layer 'features\.99'"):
        FusedCAM(middle="features.99")(mobilenet, images, targets)


def test_mirroring_makes_the_map_of_a_mirrored_picture_the_mirrored_map(mobilenet, images, targets, close):
    there = FusedCAM(mirror=True)(mobilenet, images, targets).heatmaps
    back = FusedCAM(mirror=True)(mobilenet, images.flip(3), targets).heatmaps
    assert close(back.flip(2), there, 1e-3)


def test_views_are_averaged(mobilenet, images, targets, close):
    both = FusedCAM(scales=(1.0, 2.0))(mobilenet, images, targets).heatmaps
    each = [FusedCAM(scales=(scale,))(mobilenet, images, targets).heatmaps for scale in (1.0, 2.0)]
    assert close(both, (each[0] + each[1]) / 2)


def test_a_batch_gives_what_its_pictures_give_alone_in_any_order(mobilenet, images, targets, close):
    together = FusedCAM()(mobilenet, images, targets).heatmaps
    for row, (image, target) in enumerate(targets.tolist()):
        alone = FusedCAM()(mobilenet, images[image : image + 1], torch.tensor([[0, target]])).heatmaps
        assert close(alone[0], together[row], 1e-3)
    turned = FusedCAM()(mobilenet, images, targets.flip(0)).heatmaps
    assert close(turned.flip(0), together, 1e-3)


def test_two_targets_of_one_picture_give_two_maps(resnet, images, close):
    heatmaps = FusedCAM()(resnet, images, torch.tensor([[0, 1], [0, 2]])).heatmaps
    assert not close(heatmaps[0], heatmaps[1], 0.1)


def test_the_network_is_left_as_it_was_found(resnet, images, targets):
    before = {name: value.clone() for name, value in resnet.network.state_dict().items()}
    FusedCAM(mirror=True)(resnet, images, targets)
    assert all(torch.equal(value, before[name]) for name, value in resnet.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in resnet.network.parameters())
    assert not any(module._forward_hooks for module in resnet.network.modules())  # noqa: SLF001


@pytest.mark.parametrize("network", ["vgg", "squeezenet"])
def test_a_constant_picture_gives_finite_maps(classifier):
    heatmaps = FusedCAM()(classifier, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
    assert float(heatmaps.min()) >= 0


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, 4.5)])
def test_scales_that_cannot_be_used_are_refused(scales):
    with pytest.raises(ValueError, match="scales must be at least one number above 0 and up to 4"):
        FusedCAM(scales=scales)
