"""Class vectors: the mean direction of each class's pictures makes an embedding network a classifier."""

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.contract import Examples
from heatbox.errors import DatasetError, ModelInvalidError
from heatbox.models import make_card
from heatbox.pictures.images import Limits
from heatbox_workers.examples import read_dataset
from heatbox_workers.loading import make_classifier
from heatbox_workers.networks import build_network
from heatbox_workers.prototypes import class_vectors, with_class_vectors

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}


def card(**changes):
    fields = {"name": "m", "architecture": "heatbox/tiny", "labels": tuple(COLOURS), "input_size": 32}
    return make_card(**{"head": "arcface", **fields, **changes})


@pytest.fixture
def folder(tmp_path):
    """Two noisy pictures for each colour."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / name).mkdir()
        for index in range(2):
            pixels = np.clip(random.normal(colour, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture(scope="module")
def trunk():
    """Weights of an embedding network: no head."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_network("heatbox/tiny", {}, 2).state_dict()
    return {name: value for name, value in state.items() if not name.startswith("classifier.")}


def completed(card, state, folder):
    return with_class_vectors(card, state, read_dataset(folder, card.labels)[0], Limits())


def test_the_vectors_are_the_mean_unit_embeddings(gap, images):
    classifier = gap()
    targets = torch.tensor([[0, 1], [1, 0], [2, 1], [0, 2]])
    embeddings = classifier.embed(images).embeddings.numpy()
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = np.stack([units[1], units[0] + units[2], units[0]])
    found = class_vectors(classifier, [Examples(images, targets, torch.zeros(4, 4))])
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)


def test_a_network_that_only_embeds_becomes_a_classifier(trunk, folder):
    state = completed(card(), trunk, folder)
    classifier = make_classifier(card(), state)
    pixels = [np.full((32, 32, 3), colour, np.uint8) for colour in COLOURS.values()]
    assert classifier.logits(classifier.preprocess(pixels)).argmax(1).tolist() == [0, 1]


def test_vectors_that_are_there_are_replaced(trunk, folder):
    old = {"classifier.weight": torch.ones(7, 3), "classifier.bias": torch.ones(7)}
    new, again = completed(card(), trunk, folder), completed(card(), trunk | old, folder)
    assert new.keys() == again.keys()
    assert torch.equal(new["classifier.weight"], again["classifier.weight"])


def test_a_class_without_a_picture_is_named(trunk, folder):
    wide = card(labels=(*COLOURS, "green"))
    with pytest.raises(DatasetError, match="no picture of green"):
        completed(wide, trunk, folder)


def test_another_head_has_no_class_vectors(trunk, folder):
    with pytest.raises(ModelInvalidError, match="softmax"):
        completed(card(head="softmax"), trunk, folder)
