"""Ablation-CAM against captum's ablation of a layer, and its closed form against the measured drops.

In float64, because a drop is a small difference of two scores.
"""

import copy
from dataclasses import replace

import pytest
import torch
from captum.attr import LayerFeatureAblation

from heatbox_plugins.explainers.ablation_cam import AblationCAM, measured_drops, pooled_drops

LAYERS = [("resnet", "layer1"), ("squeezenet", "features.5"), ("squeezenet", "classifier.2")]


def exact(classifier, layer):
    """Return the same classifier in float64; what it knows of the layer's GAP head comes along."""
    head = classifier.gap_weights(layer)
    name = classifier.feature_layer if layer == "auto" else layer
    network = copy.deepcopy(classifier.network).double()
    return replace(classifier, network=network, _gap={name: None if head is None else head.double()})


def captums_drops(classifier, image, target, layer):
    """Return y - y_k from captum: (1, 3, H, W) -> (K,)."""
    maps = classifier.feature_maps(image, layer)
    channels = torch.arange(maps.shape[1]).view(1, -1, 1, 1).expand_as(maps)
    captum = LayerFeatureAblation(classifier.network, classifier.network.get_submodule(layer))
    return captum.attribute(image, target=target, layer_mask=channels)[0, :, 0, 0]


@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_ablation_cam_weights_by_captums_drops_over_the_score(classifier, layer, images, agrees):
    double = exact(classifier, layer)
    image, target = images[1:2].double(), 3
    drops = captums_drops(double, image, target, layer)
    score = double.logits(image)[0, target]
    maps = double.feature_maps(image, layer)[0]
    expected = torch.einsum("k,khw->hw", drops / score.abs(), maps).relu()
    ours = AblationCAM(layer)(double, images.double(), torch.tensor([[1, target]])).heatmaps
    assert expected.max() > 0
    assert agrees(ours[0], expected, 1e-8, "captum LayerFeatureAblation")


@pytest.mark.parametrize("network", ["resnet", "squeezenet"])
def test_on_a_gap_network_the_closed_form_is_what_ablation_measures(classifier, images, close):
    double = exact(classifier, "auto")
    maps = double.feature_maps(images.double())
    measured = measured_drops(double, images[:1].double(), maps[0], "auto", batch=64)
    assert close(pooled_drops(double.gap_weights(), maps)[0], measured, 1e-8)


def test_a_negative_score_does_not_turn_the_map_over(resnet, images, close):
    classifier = exact(resnet, "auto")
    logits = classifier.logits(images.double())
    image, target = divmod(int(logits.argmin()), logits.shape[1])
    assert logits[image, target] < 0
    heatmap = AblationCAM()(classifier, images.double(), torch.tensor([[image, target]])).heatmaps[0]
    maps = classifier.feature_maps(images.double())[image]
    drops = pooled_drops(classifier.gap_weights(), maps[None])[0, :, target]
    assert close(heatmap * -logits[image, target], torch.einsum("k,khw->hw", drops, maps).relu(), 1e-8)


@pytest.mark.parametrize("batch", [1, 50, 1000])
def test_the_size_of_a_batch_changes_nothing(batch, squeezenet, images, targets, close):
    classifier = exact(squeezenet, "features.5")
    whole = AblationCAM("features.5")(classifier, images.double(), targets).heatmaps
    ours = AblationCAM("features.5", batch=batch)(classifier, images.double(), targets).heatmaps
    assert close(ours, whole, 1e-8)


def test_each_target_gets_the_map_that_it_gets_alone(squeezenet, images, targets, close):
    classifier = exact(squeezenet, "features.5")
    ours = AblationCAM("features.5")(classifier, images.double(), targets).heatmaps
    for row, (image, target) in enumerate(targets.tolist()):
        single = torch.tensor([[0, target]])
        alone = AblationCAM("features.5")(classifier, images[image : image + 1].double(), single).heatmaps
        assert close(ours[row], alone[0], 1e-8)


def test_the_network_is_left_as_it_was_found(squeezenet, images, targets):
    state = torch.get_rng_state()
    AblationCAM("features.5")(squeezenet, images, targets)
    assert not any(module._forward_hooks for module in squeezenet.network.modules())  # noqa: SLF001
    assert not any(parameter.requires_grad for parameter in squeezenet.network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not squeezenet.network.training


@pytest.mark.parametrize("layer", ["auto", "features.5"])
def test_a_constant_picture_gives_finite_maps(layer, squeezenet):
    heatmaps = AblationCAM(layer)(squeezenet, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


def test_an_unusable_option_is_refused_by_name():
    with pytest.raises(ValueError, match="batch"):
        AblationCAM(batch=0)
