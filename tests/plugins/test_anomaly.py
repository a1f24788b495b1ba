"""Anomaly against the same arithmetic in numpy and scikit-learn, and on hands: paper is normal, a fist is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_janken import LAYER, examples, janken
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from heatbox.contract import Examples
from heatbox.errors import NotFittedError
from heatbox_plugins.explainers.anomaly import Anomaly, _quantile, _spread

NONE = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4)


@pytest.fixture
def normal():
    """Ten pictures in two batches."""
    images = torch.randn(10, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    return [Examples(images[:6], *NONE), Examples(images[6:], *NONE)]


def fitted(explainer, classifier, batches):
    return replace(classifier, state=explainer.fit(classifier, batches))


def parts(classifier, images, projection):
    """Return embeddings (N, D) and projected cells (N, h w, P)."""
    found = classifier.embed(images)
    rows = found.maps.flatten(2).transpose(1, 2).numpy() @ projection.numpy()
    return found.embeddings.double().numpy(), rows


def nearest(bank, embeddings, count):
    """Return cosine distances (N, k) and rows (N, k) of the most similar, by scikit-learn."""
    return (
        NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute")
        .fit(bank)
        .kneighbors(embeddings)
    )


def quantile(values, part):
    return np.sort(values)[min(int(part * len(values)), len(values) - 1)]


def by_hand(informed, normal, images, neighbours, part):
    """Return heatmaps (N, h w) and confidences (N,)."""
    classifier, projection = informed, informed.state["projection"]
    bank, cells = parts(classifier, torch.cat([batch.images for batch in normal]), projection)
    cells = cells.astype(np.float16).astype(np.float64)  # as the bank keeps them
    distances, rows = nearest(bank, bank, neighbours + 1)  # the first is the picture itself
    apart = [cdist(cells[own], np.concatenate(cells[row[1:]])).min(axis=1) for own, row in enumerate(rows)]
    usual, far = quantile(distances[:, 1], part), quantile(np.concatenate(apart), part)
    embeddings, asked = parts(classifier, images, projection)
    distances, rows = nearest(bank, embeddings, neighbours)
    apart = [cdist(one, np.concatenate(cells[row])).min(axis=1) for one, row in zip(asked, rows, strict=True)]
    return np.maximum(np.stack(apart) - far, 0), distances[:, 0] / (distances[:, 0] + usual)


@pytest.mark.parametrize("network", ["resnet", "vgg"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_it_is_the_look_up_of_scikit_learn_and_scipy(classifier, part, normal, images, agrees):
    explainer = Anomaly(neighbours=3, dimensions=16, quantile=part)
    informed = fitted(explainer, classifier, normal)
    strange = images * 2 + 1
    heat, sure = by_hand(informed, normal, strange, 3, part)
    found = explainer(informed, strange, torch.tensor([[0, 0], [1, 0], [2, 0]]))
    assert heat.max() > 0
    assert agrees(found.heatmaps.flatten(1), heat, 2e-3, "heat of scikit-learn and scipy")
    assert agrees(found.confidences, sure, 1e-4, "confidence of scikit-learn")


def test_the_projection_keeps_distances(resnet, normal):
    projection = Anomaly().fit(resnet, normal)["projection"]
    assert projection.shape == (512, 128)
    one = torch.randn(40, 512, generator=torch.Generator().manual_seed(2))
    ratio = (one @ projection).norm(dim=1) / one.norm(dim=1)
    assert 0.8 < float(ratio.min()) < float(ratio.max()) < 1.2


def test_a_normal_picture_is_nothing_strange(resnet, normal):
    explainer = Anomaly()
    found = explainer(fitted(explainer, resnet, normal), normal[0].images, torch.tensor([[0, 0], [3, 0]]))
    assert float(found.heatmaps.max()) == 0
    assert float(found.confidences.max()) < 0.01


def test_every_row_has_its_pictures_map_whatever_class_it_names(resnet, normal, images):
    explainer = Anomaly(quantile=0.5)
    informed = fitted(explainer, resnet, normal)
    found = explainer(informed, images * 3, torch.tensor([[1, 0], [1, 5], [0, 2]]))
    assert torch.equal(found.heatmaps[0], found.heatmaps[1])
    assert not torch.equal(found.heatmaps[0], found.heatmaps[2])


def test_the_same_seed_is_the_same_bank_and_another_is_not(resnet, normal):
    one, again, other = (Anomaly(seed=seed).fit(resnet, normal) for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["projection"], other["projection"])


def test_the_bank_keeps_the_pictures_that_are_farthest_from_each_other():
    angles = torch.tensor([0.0, 0.1, 0.2, 1.5, 1.6, 3.0])
    units = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert _spread(units, 3).tolist() == [0, 5, 3]
    assert _spread(units, 6).tolist() == list(range(6))


def test_a_quantile_is_never_zero():
    assert float(_quantile(torch.zeros(5), 0.95)) > 0
    assert float(_quantile(torch.arange(100.0), 0.95)) == 95
    assert float(_quantile(torch.arange(100.0), 1.0)) == 99


def test_the_bank_has_a_limit(resnet, normal):
    state = Anomaly(neighbours=2, bank=4).fit(resnet, normal)
    assert (len(state["bank"]), len(state["cells"])) == (4, 4)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pictures_are_too_little(resnet, normal, count):
    few = [Examples(normal[0].images[:count], *NONE)] * count
    with pytest.raises(NotFittedError, match="fewer than two"):
        Anomaly().fit(resnet, few)


def test_two_pictures_are_enough(resnet, normal, images, targets):
    explainer = Anomaly()
    informed = fitted(explainer, resnet, [Examples(normal[0].images[:2], *NONE)])
    assert bool(explainer(informed, images, targets).heatmaps.isfinite().all())


@pytest.mark.parametrize(
    "options",
    [{"neighbours": 0}, {"dimensions": 0}, {"bank": 5}, {"quantile": 0}, {"quantile": 1.1}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"bank|quantile"):
        Anomaly(**options)


def test_paper_is_normal_and_a_fist_is_not(test_data):
    hands, explainer = janken(test_data), Anomaly(layer=LAYER)
    informed = fitted(explainer, hands.classifier, examples(hands.half("pa", 1), 2))

    def strange(label, first):
        images = hands.half(label, first)
        targets = torch.tensor([[row, 0] for row in range(len(images))])
        return (explainer(informed, images, targets).confidences > 0.5).tolist()

    paper, fists = strange("pa", 0), strange("gu", 1)
    assert (len(paper), len(fists)) == (18, 17)
    assert sum(paper) == 0
    assert sum(fists) >= 15
