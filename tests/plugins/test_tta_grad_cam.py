"""TTA-CAM against Grad-CAM, captum's layer gradients and its own formula; scaled and mirrored views come back."""

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch.nn.functional import interpolate

from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_plugins.explainers.tta_grad_cam import TTACAM

ONE_VIEW = {"scales": (1.0,), "mirror": False}


def seen_at(maps, side=16):
    """Interpolate to a quarter of the 64-pixel input and divide by the maximum, as one view is."""
    large = interpolate(maps[:, None], (side, side), mode="bicubic")[:, 0].clamp(min=0)
    return large / large.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)  # some maps have no heat


@pytest.mark.parametrize(("network", "layer"), [("resnet", "layer3"), ("mobilenet", "features.14")])
def test_one_view_by_grad_cam_is_grad_cam(network, layer, request, images, targets):
    classifier = request.getfixturevalue(network)
    ours = TTACAM(layer, "grad_cam", **ONE_VIEW)(classifier, images, targets).heatmaps
    expected = seen_at(GradCAM(layer)(classifier, images, targets).heatmaps)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("network", "layer"), [("resnet", "layer3"), ("mobilenet", "features.13")])
def test_positive_contributions_are_those_of_captum(network, layer, request, images, targets):
    classifier = request.getfixturevalue(network)
    ours = TTACAM(layer, **ONE_VIEW)(classifier, images, targets).heatmaps
    captum = LayerGradientXActivation(classifier.network, classifier.network.get_submodule(layer))
    with torch.enable_grad():
        pixels = images[targets[:, 0]].clone().requires_grad_()
        contributions = captum.attribute(pixels, targets[:, 1]).detach()
    torch.testing.assert_close(ours, seen_at(contributions.relu().sum(dim=1)), rtol=1e-3, atol=1e-4)


def test_mirroring_makes_the_map_of_a_mirrored_picture_the_mirrored_map(resnet, images, targets):
    explain = TTACAM(scales=(1.0,), layer="layer3")
    there = explain(resnet, images, targets).heatmaps
    back = explain(resnet, images.flip(3), targets).heatmaps
    torch.testing.assert_close(back.flip(2), there, rtol=1e-3, atol=1e-4)


def test_views_are_averaged_each_at_its_own_maximum(resnet, images, targets):
    both = TTACAM("layer3", scales=(1.0, 2.0), mirror=False)(resnet, images, targets).heatmaps
    each = [
        TTACAM("layer3", scales=(scale,), mirror=False)(resnet, images, targets).heatmaps
        for scale in (1.0, 2.0)
    ]
    assert all(float(single.amax(dim=(1, 2)).min()) == 1 for single in each)
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_a_batch_gives_what_its_pictures_give_alone_in_any_order(mobilenet, images, targets):
    together = TTACAM()(mobilenet, images, targets).heatmaps
    for row, (image, target) in enumerate(targets.tolist()):
        alone = TTACAM()(mobilenet, images[image : image + 1], torch.tensor([[0, target]])).heatmaps
        torch.testing.assert_close(alone[0], together[row], rtol=1e-3, atol=1e-4)
    turned = TTACAM()(mobilenet, images, targets.flip(0)).heatmaps
    torch.testing.assert_close(turned.flip(0), together, rtol=1e-3, atol=1e-4)


def test_two_targets_of_one_picture_give_two_maps(resnet, images):
    heatmaps = TTACAM()(resnet, images, torch.tensor([[0, 1], [0, 2]])).heatmaps
    assert not torch.allclose(heatmaps[0], heatmaps[1])


def test_the_network_is_left_as_it_was_found(resnet, images, targets):
    before = {name: value.clone() for name, value in resnet.network.state_dict().items()}
    TTACAM()(resnet, images, targets)
    assert all(torch.equal(value, before[name]) for name, value in resnet.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in resnet.network.parameters())
    assert not any(module._forward_hooks for module in resnet.network.modules())  # noqa: SLF001


def test_a_constant_picture_gives_finite_maps(vgg):
    heatmaps = TTACAM()(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (5.0,)])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(ValueError, match="scales must be"):
        TTACAM(scales=scales)


def test_a_convolutional_network_is_supported_at_every_scale(resnet):
    assert TTACAM().supports(resnet) is None


class FixedSize(torch.nn.Module):
    """A network that takes pictures of 64 x 64 pixels only."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3 * 64 * 64, 2)

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.mark.parametrize(("scales", "reason"), [((1.0, 1.5), "96 x 96"), ((1.0,), None)])
def test_a_network_of_one_input_size_is_told_so(resnet, scales, reason):
    from dataclasses import replace

    told = TTACAM(scales=scales).supports(replace(resnet, network=FixedSize()))
    assert (reason in told) if reason else told is None
