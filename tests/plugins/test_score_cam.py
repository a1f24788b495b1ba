"""Score-CAM against torchcam with log-probabilities for logits, and against the authors' loop.

torchcam weights by a softmax of the logits over the channels. Fed with log-probabilities that softmax is p_k / sum p,
which is the authors' weight up to one factor of the whole map. It stretches a mask before it enlarges it, the authors
afterwards; on maps of 2 x 2 cells, whose corners keep their values, that is the same.
"""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate
from torchcam import methods

from heatbox.errors import LayerNotFoundError
from heatbox_plugins.explainers.score_cam import ScoreCAM


def the_authors_loop(classifier, image, target, layer):
    """Return Score-CAM one channel at a time: (1, 3, H, W) -> (h, w)."""
    maps = classifier.feature_maps(image, layer)
    heatmap = torch.zeros(maps.shape[2:])
    for channel in range(maps.shape[1]):
        mask = interpolate(maps[:, channel : channel + 1], image.shape[2:], mode="bilinear")
        if mask.max() == mask.min():
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        heatmap += classifier.logits(image * mask).softmax(1)[0, target] * maps[0, channel]
    return heatmap.relu()


def test_score_cam_equals_torchcam_fed_with_log_probabilities(resnet, images, agrees):
    ours = ScoreCAM()(resnet, images[:1], torch.tensor([[0, 1]])).heatmaps
    network = nn.Sequential(resnet.network, nn.LogSoftmax(1)).eval()
    with torch.no_grad(), methods.ScoreCAM(network, target_layer="0.layer4") as extractor:
        network(images[:1])
        expected = extractor(1, normalized=False)[0]
    assert agrees(ours / ours.max(), expected / expected.max(), 2e-5, "torchcam ScoreCAM")


@pytest.mark.parametrize(("network", "layer"), [("resnet", "layer2"), ("squeezenet", "features.5")])
def test_score_cam_is_the_authors_loop_for_all_classes_of_a_picture_at_once(
    classifier, layer, images, agrees
):
    ours = ScoreCAM(layer, batch=48)(classifier, images, torch.tensor([[2, 4], [2, 0]])).heatmaps
    for row, target in enumerate((4, 0)):
        expected = the_authors_loop(classifier, images[2:3], target, layer)
        assert agrees(ours[row], expected, 2e-5, "the authors' loop")


def test_top_channels_keeps_those_that_vary_most(resnet, images, agrees):
    maps = resnet.feature_maps(images[:1], "layer1")[0]
    kept = maps.std(dim=(1, 2), correction=0).topk(5).indices
    scored = []
    for channel in kept:
        mask = interpolate(maps[channel][None, None], images.shape[2:], mode="bilinear")
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        scored.append(resnet.logits(images[:1] * mask).softmax(1)[0, 3] * maps[channel])
    ours = ScoreCAM("layer1", top_channels=5)(resnet, images[:1], torch.tensor([[0, 3]])).heatmaps
    assert agrees(ours[0], torch.stack(scored).sum(0).relu(), 2e-5, "the authors' loop")


def test_more_top_channels_than_there_are_is_all_of_them(squeezenet, images, targets):
    every = ScoreCAM()(squeezenet, images, targets).heatmaps
    assert torch.equal(ScoreCAM(top_channels=99)(squeezenet, images, targets).heatmaps, every)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_size_of_a_batch_changes_nothing(batch, resnet, images, close):
    targets = torch.tensor([[0, 1]])
    whole = ScoreCAM("layer1", top_channels=16)(resnet, images, targets).heatmaps
    assert close(ScoreCAM("layer1", top_channels=16, batch=batch)(resnet, images, targets).heatmaps, whole)


def test_one_picture_alone_gets_the_map_that_it_gets_in_a_batch(resnet, images, targets, close):
    quick = ScoreCAM(top_channels=8)
    heatmaps = quick(resnet, images, targets).heatmaps
    assert close(heatmaps[1:2], quick(resnet, images[1:2], torch.tensor([[0, 4]])).heatmaps)


def test_a_constant_picture_gives_finite_maps(vgg):
    quick = ScoreCAM(top_channels=4)
    heatmaps = quick(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())


def test_a_wrong_layer_leaves_no_hook(resnet, images, targets):
    with pytest.raises(LayerNotFoundError):
        ScoreCAM("layer9")(resnet, images, targets)
    assert not any(module._forward_hooks for module in resnet.network.modules())  # noqa: SLF001


@pytest.mark.parametrize("options", [{"top_channels": 0}, {"batch": 0}])
def test_an_unusable_option_is_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ScoreCAM(**options)
