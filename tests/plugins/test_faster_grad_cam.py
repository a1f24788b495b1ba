"""Faster-Grad-CAM against the notebook's arithmetic in numpy, and on the original project's own network and state."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_janken import LABELS, LAYER, examples, janken
from sklearn.cluster import KMeans

from heatbox.contract import Examples
from heatbox.errors import NotFittedError
from heatbox_plugins.explainers.faster_grad_cam import FasterGradCAM

NOWHERE = torch.full((12, 4), torch.nan)


@pytest.fixture
def learnt_from():
    """Twelve pictures in two batches, six of class 1, five of class 4, the last of both."""
    images = torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    rows = [[0, 1], [1, 4], [2, 1], [3, 4], [4, 1], [5, 4], [6, 1]]
    late = [[0, 4], [1, 1], [2, 4], [3, 1], [4, 1], [4, 4]]
    return [
        Examples(images[:7], torch.tensor(rows), NOWHERE[:7]),
        Examples(images[7:], torch.tensor(late), NOWHERE[:6]),
    ]


def fitted(explainer, classifier, batches):
    return replace(classifier, state=explainer.fit(classifier, batches))


def by_hand(classifier, image, index):
    """Return A (K, h, w), e (D,) and alpha (K,) of one picture, by hooks and autograd over the whole network."""
    kept, read = [], []
    layer = classifier.network.get_submodule(classifier.feature_layer)
    linear = [one for one in classifier.network.modules() if isinstance(one, torch.nn.Linear)][-1]
    hooks = [
        layer.register_forward_hook(lambda *call: kept.append(call[2].clone()) or kept[-1]),
        linear.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0])),
    ]
    with torch.enable_grad():
        logits = classifier.network(image[None].clone().requires_grad_())
        (gradient,) = torch.autograd.grad(logits[0, index], kept[0])
    for hook in hooks:
        hook.remove()
    return kept[0][0].detach().numpy(), read[0].detach().numpy(), gradient[0].mean(dim=(1, 2)).numpy()


def notebook_clusters(classifier, images, index, clusters, channels):
    """Return centres, weights and channels as the notebook makes them from the pictures of one class."""
    found = [by_hand(classifier, image, index) for image in images]
    embeddings, alphas = (np.stack([one[part] for one in found]) for part in (1, 2))
    means = KMeans(clusters, n_init=10, random_state=0).fit(embeddings)
    weights = np.stack([alphas[means.labels_ == q].mean(axis=0) for q in range(clusters)])
    largest = np.argsort(-weights, axis=1)[:, :channels]
    return means.cluster_centers_, np.take_along_axis(weights, largest, axis=1), largest


def notebook_map(maps, embedding, centres, weights, channels):
    """Return cam[..., index] . weight of the nearest cluster, without negative values: (h, w)."""
    nearest = np.argmin(np.linalg.norm(centres - embedding, axis=1))
    cam = np.dot(maps.transpose(1, 2, 0)[..., channels[nearest]], weights[nearest])
    return np.maximum(cam, 0)


@pytest.mark.parametrize("network", ["resnet", "mobilenet"])
def test_the_heatmaps_are_those_of_the_notebook(classifier, learnt_from, images, agrees):
    targets = torch.tensor([[0, 1], [1, 4], [2, 1], [0, 4]])
    explainer = FasterGradCAM(clusters=3, channels=50)
    found = explainer(fitted(explainer, classifier, learnt_from), images, targets).heatmaps
    clusters = {}
    for index in (1, 4):
        own = [
            batch.images[image] for batch in learnt_from for image, known in batch.targets if known == index
        ]
        clusters[index] = notebook_clusters(classifier, own, index, 3, 50)
    for row, (image, index) in enumerate(targets.tolist()):
        maps, embedding, _ = by_hand(classifier, images[image], index)
        expected = notebook_map(maps, embedding, *clusters[index])
        assert agrees(found[row], expected, 1e-4, "the notebook in numpy and scikit-learn")


def test_one_picture_that_was_learnt_has_grad_cams_map(resnet, learnt_from):
    explainer = FasterGradCAM(clusters=99, channels=10_000)
    classifier = fitted(explainer, resnet, learnt_from)
    image, targets = learnt_from[0].images[:1], torch.tensor([[0, 1]])
    head = resnet.head_gradients(image, targets)
    expected = (head.gradients.mean((2, 3), keepdim=True) * head.maps).sum(1).relu()
    found = explainer(classifier, image, targets).heatmaps
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.max()))


def test_the_state_has_the_clusters_of_each_class(resnet, learnt_from):
    state = FasterGradCAM(clusters=4, channels=20).fit(resnet, learnt_from)
    assert state["classes"].tolist() == [1] * 4 + [4] * 4
    assert state["centres"].shape == (8, 512)
    assert state["weights"].shape == state["channels"].shape == (8, 20)
    assert bool((state["weights"].diff(dim=1) <= 0).all())


def test_there_are_no_more_clusters_than_different_pictures(resnet, learnt_from):
    first = learnt_from[0]
    twice = Examples(first.images[[0, 0, 2]], torch.tensor([[0, 1], [1, 1], [2, 1]]), NOWHERE[:3])
    assert FasterGradCAM().fit(resnet, [twice])["classes"].tolist() == [1, 1]


def test_a_class_without_examples_has_an_empty_map(resnet, learnt_from, images):
    explainer = FasterGradCAM(clusters=2)
    classifier = fitted(explainer, resnet, learnt_from)
    found = explainer(classifier, images, torch.tensor([[0, 0], [0, 1]])).heatmaps
    assert not found[0].any()
    assert bool(found.isfinite().all())


def test_explaining_needs_one_pass_and_no_gradient(resnet, learnt_from, images, targets):
    explainer, runs = FasterGradCAM(clusters=2), []
    classifier = fitted(explainer, resnet, learnt_from)
    handle = classifier.network.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    explainer(classifier, images, targets)
    handle.remove()
    assert len(runs) == 1


def test_pictures_without_a_class_are_too_little(resnet, images):
    nothing = Examples(images, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4))
    with pytest.raises(NotFittedError, match="pictures with a class"):
        FasterGradCAM().fit(resnet, [nothing])


@pytest.mark.parametrize("options", [{"clusters": 0}, {"channels": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        FasterGradCAM(**options)


def original(hands):
    """Return the classifier with the clusters that the original project made, all of one class."""
    stored = hands.stored
    state = {
        "centres": stored["cluster_centers"],
        "classes": torch.zeros(len(stored["cluster_centers"]), dtype=torch.int64),
        "weights": stored["channel_weight"],
        "channels": stored["channel_index"],
    }
    return replace(hands.classifier, state=state)


def maps_of(classifier, images):
    targets = torch.tensor([[row, 0] for row in range(len(images))])
    return FasterGradCAM(layer=LAYER)(classifier, images, targets).heatmaps


def test_the_original_projects_clusters_give_the_notebooks_heatmaps(test_data, agrees):
    hands = janken(test_data)
    assert len(hands.images) == 116
    ours = maps_of(original(hands), hands.images)
    stored = [hands.stored[name].numpy() for name in ("cluster_centers", "channel_weight", "channel_index")]
    found = hands.classifier.embed(hands.images, LAYER)
    for mine, maps, embedding in zip(ours, found.maps, found.embeddings, strict=True):
        expected = notebook_map(maps.numpy(), embedding.numpy(), *stored)
        assert agrees(mine, expected, 1e-5, "the notebook with the original project's clusters")
    assert ours.shape == (116, 3, 3)


def test_our_fit_on_half_of_the_fists_agrees_with_the_original_projects(test_data):
    hands = janken(test_data)
    explainer = FasterGradCAM(layer=LAYER)
    classifier = fitted(explainer, hands.classifier, examples(hands.half("gu", 0), LABELS.index("gu")))
    other = hands.half("gu", 1)
    ours, theirs = maps_of(classifier, other), maps_of(original(hands), other)
    pairs = [
        float(np.corrcoef(one.flatten(), two.flatten())[0, 1])
        for one, two in zip(ours, theirs, strict=True)
        if one.std() > 0 and two.std() > 0
    ]
    assert len(pairs) >= 15
    assert np.median(pairs) > 0.9, sorted(pairs)
