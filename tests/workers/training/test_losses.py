"""The losses against closed forms, torch's own, another implementation's figures, and our explainers."""

import math

import pytest
import torch
from fixtures_learning import network_of
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from heatbox_plugins.explainers.cam import CAM
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_workers.features import record
from heatbox_workers.training.losses import ClassLoss, box_loss, heat, occupancy

# ArcFaceLoss of pytorch-metric-learning 2.9.0 with margin 0.5 rad and scale 30: loss of each row alone
VECTORS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.8, 0.6]])
EMBEDDINGS = torch.tensor([[2.0, 1.0], [0.3, 0.9], [-1.0, 0.2], [-3.0, -1.5]])
CLASSES = [0, 1, 2, 0]
THEIR_LOSSES = [9.717032432556152, 3.5523738915799186e-05, 0.0, 47.440608978271484]


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_softmax_is_torch_s_cross_entropy_of_one_class():
    logits, classes = random(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    found = ClassLoss("softmax", torch.ones(4))(logits, functional.one_hot(classes).float())
    assert found == pytest.approx(float(functional.cross_entropy(logits, classes)), rel=1e-6)


def test_softmax_shares_a_picture_among_its_classes_and_leaves_one_of_nothing_out():
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.0, 5.0, 1.0]])
    presence = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    whole = math.log(math.exp(2) + 2)
    assert ClassLoss("softmax", torch.ones(3))(logits, presence) == pytest.approx((whole - 1) / 2)


def test_sigmoid_is_binary_cross_entropy_with_the_weight_on_what_is_there():
    logits, presence = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, 0.0]])
    expected = (3 * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    assert ClassLoss("sigmoid", torch.tensor([3.0, 5.0]))(logits, presence) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("head", "weights"),
    [
        ("softmax", [math.sqrt(0.5), math.sqrt(2.0), math.sqrt(4.0)]),
        ("sigmoid", [1.0, math.sqrt(6 / 2), math.sqrt(7 / 1)]),
    ],
)
def test_rare_classes_weigh_more(head, weights):
    presence = functional.one_hot(torch.tensor([0, 0, 0, 0, 0, 0, 0, 0]), 3).float()
    presence = torch.cat([presence, torch.tensor([[0.0, 1, 0], [0.0, 1, 0], [0.0, 0, 1]])])[3:]
    often = [5, 2, 1]  # of eight
    expected = [math.sqrt(8 / 3 / n) for n in often] if head == "softmax" else weights
    assert ClassLoss.of(head, presence, 30).weights.tolist() == pytest.approx(expected)


def test_a_class_that_nothing_shows_has_a_weight_like_one_of_one_picture():
    presence = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for head in ("softmax", "sigmoid", "arcface"):
        assert bool(ClassLoss.of(head, presence, 30).weights.isfinite().all())


@pytest.mark.parametrize("row", range(4))
def test_arcface_is_what_another_implementation_computes(row):
    cosine = functional.normalize(EMBEDDINGS) @ functional.normalize(VECTORS).T
    presence = functional.one_hot(torch.tensor(CLASSES), 3).float()
    loss = ClassLoss("arcface", torch.ones(3), scale=30.0)
    found = loss((30 * cosine)[row : row + 1], presence[row : row + 1])
    assert found == pytest.approx(THEIR_LOSSES[row], rel=1e-4, abs=1e-5)


@given(st.floats(0.02, math.pi - 0.02), st.floats(0.02, math.pi - 0.02))
def test_arcface_adds_half_a_radian_to_the_angle_of_the_true_class(true, other):
    logits = 30 * torch.tensor([[math.cos(true), math.cos(other)]], dtype=torch.float64)
    presence = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    loss = ClassLoss("arcface", torch.ones(2, dtype=torch.float64), scale=30.0)
    moved = (
        math.cos(true + 0.5) if true < math.pi - 0.5 else math.cos(true) - 0.5 * math.sin(0.5)
    )  # goes on as a line
    expected = math.log1p(math.exp(30 * (math.cos(other) - moved)))
    assert loss(logits, presence) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@given(st.floats(0.01, math.pi - 0.02))
def test_arcface_s_loss_never_falls_when_the_angle_grows(angle):
    angles = torch.tensor([angle, angle + 0.01], dtype=torch.float64)
    logits = torch.stack([30 * angles.cos(), torch.zeros(2, dtype=torch.float64)], 1)
    loss = ClassLoss("arcface", torch.ones(2, dtype=torch.float64), scale=30.0)
    first, second = (float(loss(row[None], torch.tensor([[1.0, 0.0]]))) for row in logits)
    assert second >= first - 1e-9


def mapped(base, images, layer="features"):
    """Return logits and maps of a network with their graph."""
    with torch.enable_grad(), record(base.network, (layer,)) as recorded:
        logits = base.network(images)
    return logits, recorded[layer]


@pytest.mark.parametrize("architecture", ["heatbox/tiny", "torchvision/mobilenet_v3_small"])
def test_heat_is_the_grad_cam_of_our_explainer(architecture):
    base, images = network_of(architecture, ("a", "b", "c")), random(3, 3, 64, 64)
    rows = torch.tensor([[0, 0], [0, 2], [1, 1], [2, 2], [0, 1]])
    expected = GradCAM()(base, images, rows).heatmaps
    found = heat(*mapped(base, images), rows)
    largest = expected.amax((1, 2), keepdim=True)
    assert bool((largest > 0).any())
    assert torch.allclose(found, expected / largest.clamp_min(1e-6), atol=1e-5)


def test_heat_of_a_pooling_network_is_its_class_activation_map():
    base, images = network_of(labels=("a", "b", "c")), random(2, 3, 64, 64)
    rows = torch.tensor([[0, 0], [0, 1], [1, 0]])
    expected = CAM()(base, images, rows).heatmaps.relu()
    largest = expected.amax((1, 2), keepdim=True)
    found = heat(*mapped(base, images), rows)
    assert bool((largest > 1e-3).all())
    assert torch.allclose(found, expected / largest, atol=1e-5)


def test_the_gradient_of_the_heat_reaches_the_head():
    """By finite differences, in float64."""
    maps = random(2, 3, 4, 4, dtype=torch.float64).abs()
    inside = torch.zeros(2, 4, 4, dtype=torch.float64)
    inside[:, 1:3, 1:3] = 1
    rows = torch.tensor([[0, 0], [1, 1]])

    def loss(weight):
        given_maps = maps.clone().requires_grad_()
        return box_loss(heat(given_maps.mean((2, 3)) @ weight.T, given_maps, rows), inside)

    weight = torch.tensor([[1.0, -0.5, 0.2], [-0.3, 0.4, 0.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (weight,))
    (gradient,) = torch.autograd.grad(loss(weight), weight)
    assert bool((gradient.abs().amax(1) > 1e-4).all())


def test_no_heat_is_no_division_by_zero():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    found = heat(maps.mean((2, 3)), maps, torch.tensor([[0, 0]]))
    assert box_loss(found, torch.ones(1, 3, 3)).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("cells", "loss"),
    [
        ([[1, 1], [0, 0]], 0.0),  # all of the inside, nothing else
        ([[1, 0], [0, 0]], 0 + (1 - 2 / 3)),  # half of it
        ([[1, 1], [1, 1]], 0.5 + (1 - 4 / 6)),  # everywhere
        ([[0, 0], [0, 1]], 1 + 1),  # beside it
        ([[1, 0.5], [0, 0.5]], 0.25 + (1 - 3 / 4)),
    ],
)
def test_the_box_loss_is_energy_outside_and_cover(cells, loss):
    inside = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert box_loss(torch.tensor([cells], dtype=torch.float32), inside) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    ("boxes", "cells"),
    [
        ([(0, 0, 1, 1)], [[1, 1], [1, 1]]),
        ([(0, 0, 0.5, 0.5)], [[1, 0], [0, 0]]),
        ([(0.25, 0, 0.75, 1)], [[0.5, 0.5], [0.5, 0.5]]),
        ([(0.25, 0.25, 0.5, 0.5)], [[0.25, 0], [0, 0]]),
        ([(0, 0, 0.5, 1), (0.5, 0.5, 1, 1)], [[1, 0], [1, 1]]),
        ([(0, 0, 0.5, 0.5), (0, 0, 0.25, 0.5)], [[1, 0], [0, 0]]),
        ([], [[0, 0], [0, 0]]),
    ],
)
def test_a_cell_is_occupied_as_far_as_it_lies_in_a_box(boxes, cells):
    assert occupancy(boxes, 2, 2).tolist() == cells


@given(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_the_occupied_area_is_the_box_s(columns, rows, height, width):
    (x1, x2), (y1, y2) = columns, rows
    found = occupancy([(x1, y1, x2, y2)], height, width)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float(found.mean()) == pytest.approx((x2 - x1) * (y2 - y1), abs=1e-5)
