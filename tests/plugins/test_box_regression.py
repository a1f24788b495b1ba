"""Box regression: what it learns from planted squares, and the arithmetic of boxes and views."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from heatbox.boxes import iou_matrix
from heatbox.contract import Examples
from heatbox.errors import NotFittedError
from heatbox_plugins.explainers.box_regression import (
    BoxRegression,
    _centred,
    _corners,
    _cut,
    _heads,
    _largest,
    _view,
)
from heatbox_workers.conformance.bench import SIDE, default_benches, plant

QUICK = BoxRegression(epochs=40, views=1)
BOXES = torch.tensor([[4.0, 8, 20, 32], [0, 0, 64, 64]])


@pytest.fixture(scope="module")
def bench():
    """A network that tells coloured squares apart, with what the explainer learnt of 90 of them."""
    return default_benches()[0].fitted(QUICK)


def batch(boxes=BOXES, rows=((0, 1), (1, 0))):
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return Examples(images, torch.tensor(rows).reshape(-1, 2), boxes)


def unseen(count=30):
    """Return pictures with a square at places that nothing learnt from, their classes and boxes."""
    random = np.random.default_rng(99)
    corners = random.integers(0, SIDE - 24 + 1, (count, 2))
    boxes = [(int(x), int(y), int(x) + 24, int(y) + 24) for x, y in corners]
    images = [plant((index % 3, box), seed=1000 + index) for index, box in enumerate(boxes)]
    targets = torch.tensor([[index, index % 3] for index in range(count)])
    return torch.cat(images), targets, np.array(boxes, dtype=float)


def test_squares_at_places_that_it_has_not_seen_are_found(bench):
    images, targets, boxes = unseen()
    found = QUICK(bench.classifier, images, targets)
    ious = [
        float(iou_matrix(one.double().numpy(), true[None])[0, 0])
        for one, true in zip(found.boxes, boxes, strict=True)
    ]
    assert np.mean(ious) > 0.75, np.mean(ious)
    assert float(torch.cat(list(found.scores)).min()) > 0.5


def test_learning_longer_finds_them_better():
    images, targets, boxes = unseen()
    errors = []
    for explainer in (replace(QUICK, epochs=1), QUICK):
        found = explainer(default_benches()[0].fitted(explainer).classifier, images, targets)
        errors.append(float((torch.cat(list(found.boxes)) - torch.from_numpy(boxes)).abs().mean()))
    assert errors[1] < errors[0] / 2


def test_a_class_that_was_not_learnt_has_no_box(bench):
    state = {name: value.clone() for name, value in bench.classifier.state.items()}
    state["classes"] = torch.tensor([0, 2, 7])
    images, _, _ = unseen(2)
    found = QUICK(replace(bench.classifier, state=state), images, torch.tensor([[0, 1], [1, 2]]))
    assert [one.shape for one in found.boxes] == [(0, 4), (1, 4)]
    assert [one.shape for one in found.scores] == [(0,), (1,)]


def test_scores_are_probabilities_of_the_classes_and_boxes_lie_in_the_picture(bench):
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 5
    found = QUICK(bench.classifier, images, torch.cartesian_prod(torch.arange(3), torch.arange(3)))
    scores = torch.cat(list(found.scores))
    assert torch.allclose(scores.reshape(3, 3).sum(1), torch.ones(3), atol=1e-5)
    assert float(scores.min()) >= 0
    boxes = torch.cat(list(found.boxes))
    assert 0 <= float(boxes.min()) <= float(boxes.max()) <= SIDE
    assert bool((boxes[:, 2:] >= boxes[:, :2]).all())


def test_the_same_seed_is_the_same_heads_and_another_is_not():
    fresh, quick = default_benches()[0], replace(QUICK, epochs=1)
    learnt = [fresh.learnt(one, fresh.fresh()) for one in (quick, quick, replace(quick, seed=1))]
    assert all(torch.equal(value, learnt[1][name]) for name, value in learnt[0].items())
    assert not torch.equal(learnt[0]["box.weight"], learnt[2]["box.weight"])
    assert not any(value.requires_grad for value in learnt[0].values())


def test_it_learns_also_where_no_gradient_is_recorded(bench):
    with torch.no_grad():
        learnt = default_benches()[0].fitted(QUICK).classifier.state
    assert torch.equal(learnt["box.weight"], bench.classifier.state["box.weight"])


def test_the_heads_are_the_formula(agrees):
    random = np.random.default_rng(0)
    shapes = {"reduce": (4, 3, 1, 1), "hidden": (6, 4 * 25), "class": (2, 6), "box": (8, 6)}
    weights = {f"{name}.weight": random.normal(size=shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": random.normal(size=shape[0]) for name, shape in shapes.items()}
    cells = random.normal(size=(3, 3, 5, 5))
    level = cells / np.sqrt((cells**2).mean(axis=(1, 2, 3), keepdims=True))
    reduced = np.einsum("ok,nkhw->nohw", weights["reduce.weight"][:, :, 0, 0], level)
    reduced = np.maximum(reduced + weights["reduce.bias"][:, None, None], 0).reshape(3, -1)
    hidden = np.maximum(reduced @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
    boxes = 1 / (1 + np.exp(-(hidden @ weights["box.weight"].T + weights["box.bias"])))
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    scores, found = _heads(tensors, torch.from_numpy(cells))
    expected = hidden @ weights["class.weight"].T + weights["class.bias"]
    assert agrees(scores, expected, 1e-12, "the heads in numpy, class scores")
    assert agrees(found, boxes.reshape(3, 2, 4), 1e-12, "the heads in numpy, boxes")


def test_boxes_survive_the_way_to_centres_and_back():
    assert torch.allclose(_corners(_centred(BOXES, SIDE), SIDE), BOXES)
    assert _centred(BOXES, SIDE)[0].tolist() == [12 / 64, 20 / 64, 16 / 64, 24 / 64]


def test_a_mirrored_view_mirrors_pictures_and_boxes():
    given = batch()
    plain, mirrored = (_view(given, view, torch.Generator()) for view in (0, 1))
    assert plain is given
    assert mirrored.boxes.tolist() == [[44, 8, 60, 32], [0, 0, 64, 64]]
    assert torch.equal(mirrored.images[..., 0], given.images[..., 63])
    twice = _view(mirrored, 1, torch.Generator())
    assert torch.equal(twice.boxes, given.boxes)
    assert torch.equal(twice.images, given.images)


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_moves_the_box_with_its_square(seed):
    place = (20, 16, 44, 40)
    marked = torch.zeros(1, 3, SIDE, SIDE)
    marked[..., place[1] : place[3], place[0] : place[2]] = 1
    given = Examples(marked, torch.tensor([[0, 0]]), torch.tensor([place], dtype=torch.float32))
    cut = _cut(given, torch.Generator().manual_seed(seed))
    (box,) = cut.boxes.round().int().tolist()
    rows, columns = (cut.images[0, 0] > 0.5).nonzero(as_tuple=True)
    seen = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    assert np.abs(np.subtract(box, seen)).max() <= 1


def test_a_box_that_a_cut_leaves_mostly_outside_is_left_out():
    corners = torch.tensor([[0.0, 0, 9, 9], [55, 0, 64, 9], [0, 55, 9, 64], [55, 55, 64, 64]])
    kept = [
        len(_cut(batch(corners, [(0, 0)] * 4), torch.Generator().manual_seed(seed)).boxes)
        for seed in range(9)
    ]
    assert min(kept) < 4
    assert max(kept) <= 4


def test_the_largest_known_box_of_each_class_in_a_picture_is_learnt():
    unknown = [torch.nan] * 4
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 20, 20], unknown, unknown, [5, 5, 9, 9], [1, 1, 2, 2]])
    rows = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (0, 0)]
    found = _largest(batch(boxes, rows))
    assert found.targets.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert found.boxes.tolist() == [[0, 0, 20, 20], [5, 5, 9, 9], [1, 1, 2, 2]]


@pytest.mark.parametrize("boxes", [torch.full((2, 4), torch.nan), torch.zeros(0, 4)])
def test_without_boxes_there_is_nothing_to_learn(boxes):
    rows = [(0, 1), (1, 0)][: len(boxes)]
    given = Examples(batch().images, torch.tensor(rows, dtype=torch.int64).reshape(-1, 2), boxes)
    with pytest.raises(NotFittedError, match="no example has one"):
        QUICK.fit(default_benches()[0].classifier, [given])


@pytest.mark.parametrize("options", [{"views": 0}, {"epochs": 0}, {"learning_rate": 0}, {"box_weight": -1.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BoxRegression(**options)
