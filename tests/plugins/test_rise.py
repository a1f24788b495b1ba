"""RISE against the paper's sum written as a plain loop; its masks, its offset, its early stop."""

import pytest
import torch

from heatbox_plugins.explainers.rise import RISE

PAPER = {"debias": False, "settled": 0.0}


def masks_of(explainer, side=64):
    return torch.cat(list(explainer.draw(side)))


def plain_sum(classifier, image, target, masks, keep):
    """Return S_c = 1 / (N p) sum_i f_c(X * M_i) M_i, one mask at a time."""
    total = torch.zeros(image.shape[1:], dtype=torch.float64)
    for mask in masks:
        with torch.no_grad():
            score = classifier.network((image * mask)[None]).softmax(1)[0, target]
        total += float(score) * mask.double()
    return (total / (len(masks) * keep)).float()


def test_rise_is_the_papers_sum_over_its_masks(resnet, images, targets, agrees):
    explainer = RISE(masks=40, batch=32, keep=0.4, **PAPER)
    heatmaps = explainer(resnet, images, targets[1:]).heatmaps
    for heatmap, (image, target) in zip(heatmaps, targets[1:].tolist(), strict=True):
        expected = plain_sum(resnet, images[image], target, masks_of(explainer), 0.4)
        assert agrees(heatmap, expected, 1e-5, "the paper's sum, mask by mask")


def test_debias_leaves_the_covariance_of_score_and_mask(resnet, images, agrees):
    explainer = RISE(masks=70, settled=0.0)
    masks = masks_of(explainer)
    scores = resnet.probabilities(resnet.logits(images[0] * masks[:, None]))[:, 2]
    pairs = torch.cat([scores[:, None], masks.flatten(1)], 1).double().T
    expected = torch.cov(pairs, correction=0)[0, 1:].view(64, 64) / 0.5
    heatmap = explainer(resnet, images, torch.tensor([[0, 2]])).heatmaps[0]
    assert agrees(heatmap, expected, 1e-4, "covariance of torch.cov")


def test_a_mask_is_a_random_grid_enlarged_and_cut_out_at_its_offset(agrees):
    random = torch.rand(1, 7 * 7 + 2, generator=torch.Generator().manual_seed(3))[0]
    grid = (random[2:] < 0.5).float().view(1, 1, 7, 7)
    y, x = (random[:2] * 10).long().tolist()
    whole = torch.nn.functional.interpolate(grid, (80, 80), mode="bilinear")[0, 0]
    ours = masks_of(RISE(masks=1, seed=3))[0]
    assert agrees(ours, whole[y : y + 64, x : x + 64], 1e-6, "a grid enlarged by torch and cut out")


def test_masks_are_kept_as_often_as_asked():
    mean = masks_of(RISE(masks=2000, keep=0.3)).mean((1, 2))
    assert abs(float(mean.mean()) - 0.3) < 4 * float(mean.std()) / 2000**0.5


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_same_seed_draws_the_same_masks_in_batches_of_any_size(batch):
    expected = masks_of(RISE(masks=200))
    assert torch.equal(masks_of(RISE(masks=200, batch=batch)), expected)
    assert not torch.equal(masks_of(RISE(masks=200, batch=batch, seed=1)), expected)


def test_masks_are_streamed_in_batches():
    assert max(len(masks) for masks in RISE(masks=5000, batch=16).draw(32)) == 16


def test_all_targets_of_a_picture_share_the_passes(resnet, images, monkeypatch):
    passes = []
    logits = type(resnet).logits
    monkeypatch.setattr(type(resnet), "logits", lambda self, x: passes.append(len(x)) or logits(self, x))
    RISE(masks=40, settled=0.0)(resnet, images, torch.tensor([[1, 0], [1, 3], [1, 5]]))
    assert sum(passes) == 40


def change(before, now):
    return float((now - before).norm() / now.norm())


def test_a_map_is_done_when_it_has_changed_little_since_half_as_many_masks(mobilenet, images):
    target = torch.tensor([[0, 1]])
    looks = [RISE(masks=n, settled=0.0)(mobilenet, images, target).heatmaps for n in (64, 128, 256)]
    first, second = change(*looks[:2]), change(*looks[1:])
    assert first > second
    stopped = RISE(masks=600, settled=(first + second) / 2)(mobilenet, images, target).heatmaps
    assert torch.equal(stopped, looks[2])


def test_pictures_and_targets_do_not_touch_each_other(mobilenet, images, targets):
    explainer = RISE(masks=260, settled=0.8)
    together = explainer(mobilenet, images, targets).heatmaps
    for row, target in enumerate(targets):
        alone = explainer(mobilenet, images, target[None]).heatmaps[0]
        assert float((together[row] - alone).abs().max()) < 1e-3 * float(alone.abs().max())


def test_a_constant_picture_gives_finite_maps(resnet):
    heatmaps = RISE(masks=64)(resnet, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
    assert float(heatmaps.abs().max()) < 1e-6


def test_the_global_random_numbers_are_left_alone(resnet, images, targets):
    state = torch.get_rng_state()
    RISE(masks=8)(resnet, images, targets)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("option", [{"masks": 0}, {"cells": 1}, {"keep": 1.0}, {"settled": -1}, {"batch": 0}])
def test_an_option_out_of_range_is_refused_by_name(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be from"):
        RISE(**option)
