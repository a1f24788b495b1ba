"""Embeddings: the last linear layer's input, from the one pass; ArcFace's head by its formula."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from heatbox.errors import ModelInvalidError
from heatbox.models import make_card
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.embeddings import CosineLinear, last_linear, record_embeddings, use_cosine_head
from heatbox_workers.loading import make_classifier
from heatbox_workers.networks import build_network

CPU = torch.device("cpu")
LINEAR = {"resnet18": "fc", "mobilenet_v2": "classifier.1", "vgg11": "classifier.6"}
LAYERS = {"resnet18": "layer4", "mobilenet_v2": "features", "vgg11": "features", "squeezenet1_1": "features"}
TINY = make_card(
    name="arc",
    architecture="heatbox/tiny",
    labels=("a", "b", "c"),
    input_size=64,
    head="arcface",
    head_scale=8,
)


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return build().eval().requires_grad_(requires_grad=False)


def plain(name):
    """Return a classifier of a torchvision network."""
    network = seeded(lambda: torchvision.models.get_model(name, weights=None, num_classes=4))
    card = make_card(
        name=name, architecture=name, labels=tuple("abcd"), input_size=64, feature_layer=LAYERS[name]
    )
    return TorchClassifier(card, network, CPU)


@pytest.fixture
def arcface():
    """An ArcFace classifier whose head has no bias in its weights."""
    network = seeded(lambda: build_network("heatbox/tiny", {}, 3))
    state = {key: value for key, value in network.state_dict().items() if key != "classifier.bias"}
    return make_classifier(TINY, state)


@pytest.mark.parametrize(("name", "linear"), LINEAR.items())
def test_the_embedding_is_what_the_last_linear_layer_reads(name, linear):
    classifier, read = plain(name), []
    layer = classifier.network.get_submodule(linear)
    handle = layer.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    images = noise(64, CPU)
    found = classifier.embed(images)
    handle.remove()
    assert len(read) == 1
    assert torch.equal(found.embeddings, read[0])
    assert torch.allclose(layer(found.embeddings), classifier.logits(images), atol=1e-5)
    assert torch.equal(found.maps, classifier.feature_maps(images))


@pytest.mark.parametrize("layer", ["auto", "features.3"])
def test_without_a_linear_layer_it_is_the_mean_of_the_feature_layers_maps(layer):
    classifier, images = plain("squeezenet1_1"), noise(64, CPU)
    found = classifier.embed(images, layer)
    expected = classifier.feature_maps(images).mean((2, 3))
    assert torch.allclose(found.embeddings, expected, atol=1e-6)
    assert torch.equal(found.maps, classifier.feature_maps(images, layer))


def test_an_earlier_layer_has_the_same_embedding(classifier, images):
    early, late = classifier.embed(images, "features.0"), classifier.embed(images)
    assert torch.allclose(early.embeddings, late.embeddings, atol=1e-6)
    assert early.maps.shape[2:] == (16, 16)


def test_a_seen_batch_is_embedded_without_another_pass(classifier, images):
    seen, runs = classifier.seen(images), []
    handle = classifier.network.features[0].register_forward_hook(lambda *_: runs.append(1))
    found = seen.embed(images)
    assert not runs
    other = seen.embed(images.clone())
    handle.remove()
    assert len(runs) == 1
    assert torch.equal(found.embeddings, other.embeddings)


def test_embeddings_have_no_graph_and_leave_no_hook(classifier, images):
    found = classifier.embed(images)
    assert not found.embeddings.requires_grad
    assert not found.maps.requires_grad
    assert not classifier.network.head._forward_pre_hooks  # noqa: SLF001 - nowhere else does torch tell


def test_the_hook_comes_off_when_the_body_raises(classifier):
    with pytest.raises(KeyError), record_embeddings(classifier.network):
        raise KeyError
    assert not classifier.network.head._forward_pre_hooks  # noqa: SLF001 - nowhere else does torch tell


def test_the_cosine_head_is_the_formula():
    random = np.random.default_rng(0)
    vectors, embeddings = random.normal(size=(3, 5)), random.normal(size=(4, 5))
    head = CosineLinear(5, 3, bias=False, dtype=torch.float64)
    head.scale = 30.0
    head.weight.data = torch.from_numpy(vectors)
    norms = np.outer(np.linalg.norm(embeddings, axis=1), np.linalg.norm(vectors, axis=1))
    expected = 30 * embeddings @ vectors.T / norms
    np.testing.assert_allclose(head(torch.from_numpy(embeddings)).detach(), expected, rtol=1e-12)


def test_an_arcface_classifier_loads_without_bias_and_multiplies_cosines_by_its_scale(arcface):
    images = noise(64, CPU)
    embeddings, vectors = arcface.embed(images).embeddings, arcface.network.classifier.weight
    expected = 8 * torch.cosine_similarity(embeddings[:, None], vectors[None], dim=2)
    assert torch.allclose(arcface.logits(images), expected, atol=1e-5)
    assert torch.equal(arcface.probabilities(expected), expected.softmax(1))


def test_cosines_are_no_linear_function_of_the_pooled_maps(arcface):
    assert arcface.gap_weights() is None


def test_arcface_weights_with_a_bias_do_not_fit():
    with pytest.raises(ModelInvalidError, match=r"1 not known \(classifier.bias\)"):
        make_classifier(TINY, build_network("heatbox/tiny", {}, 3).state_dict())


def test_a_network_without_a_linear_layer_cannot_have_an_arcface_head():
    network = nn.Sequential(nn.Conv2d(3, 4, 1))
    assert last_linear(network) is None
    with pytest.raises(ModelInvalidError, match="no linear layer"):
        use_cosine_head(network, 30)
