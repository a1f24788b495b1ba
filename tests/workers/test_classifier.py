"""The classifier's tools: preprocessing, one pass for choosing and explaining, GAP weights."""

import numpy as np
import pytest
import torch

from heatbox_workers.features import forward_pass


def test_a_picture_of_the_input_size_is_only_normalised(classifier):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    batch = classifier.preprocess([pixels])
    mean, std = (np.array(value, np.float32) for value in (classifier.card.mean, classifier.card.std))
    expected = ((pixels / 255 - mean) / std).transpose(2, 0, 1)
    assert batch.dtype == torch.float32
    assert np.allclose(batch[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 128, 3), (16, 20, 3), (200, 31, 3)])
def test_any_picture_is_squashed_to_the_square(classifier, shape):
    pixels = np.full(shape, 100, np.uint8)
    batch = classifier.preprocess([pixels])
    assert batch.shape == (1, 3, 32, 32)
    assert float(batch[0, 0].std()) == pytest.approx(0, abs=1e-6)


def test_shrinking_averages_instead_of_dropping_pixels(classifier):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert float(classifier.preprocess([stripes])[0, 0].std()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("head", "total"), [("softmax", 1.0), ("arcface", 1.0), ("sigmoid", None)])
def test_probabilities_follow_the_head(gap, images, head, total):
    classifier = gap(head=head)
    logits = classifier.logits(images)
    probabilities = classifier.probabilities(logits)
    if total:
        assert torch.allclose(probabilities.sum(1), torch.ones(3))
    else:
        assert torch.allclose(probabilities, 1 / (1 + (-logits).exp()))


def test_a_seen_batch_is_answered_without_another_forward_pass(classifier, images):
    seen = classifier.seen(images)
    runs = []
    handle = classifier.network.register_forward_hook(lambda *_: runs.append(1))
    logits, maps = seen.logits(images), seen.feature_maps(images)
    gradients = seen.head_gradients(images, torch.tensor([[0, 1]]))
    handle.remove()
    assert runs == []
    fresh = forward_pass(classifier.network, "features", images)
    assert torch.equal(logits, fresh.logits.detach())
    assert torch.equal(maps, fresh.maps.detach())
    assert torch.equal(gradients.gradients, fresh.gradients(torch.tensor([[0, 1]]))[0].gradients)


def test_a_seen_batch_answers_for_all_layers_that_were_recorded(classifier, images):
    targets = torch.tensor([[0, 1], [2, 0]])
    seen = classifier.seen(images, ("features.1",))
    runs = []
    handle = classifier.network.register_forward_hook(lambda *_: runs.append(1))
    found = seen.layer_gradients(images, targets, ("auto", "features.1"))
    handle.remove()
    assert runs == []
    for one, layer in zip(found, ("features", "features.1"), strict=True):
        assert torch.allclose(one.gradients, classifier.head_gradients(images, targets, layer).gradients)


def test_a_batch_that_was_not_seen_is_computed(classifier, images):
    seen = classifier.seen(images)
    other = images + 1
    assert not torch.allclose(seen.logits(other), seen.logits(images))
    assert torch.equal(seen.feature_maps(other), classifier.feature_maps(other))


def test_gap_weights_are_those_of_the_linear_head(classifier):
    assert torch.equal(classifier.gap_weights(), classifier.network.head.weight)


def test_an_earlier_layer_has_no_gap_weights(classifier):
    assert classifier.gap_weights("features.0") is None
