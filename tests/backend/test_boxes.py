"""Boxes: what is one, clipping, intersection over union by hand, and percent there and back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatbox.boxes import Box, iou_matrix

SIDES = st.integers(1, 100_000)


@st.composite
def boxes_in_pictures(draw):
    """A box at least a hundredth of a pixel wide and high in a picture of width x height pixels."""
    edges, sides = [], []
    for _ in range(2):
        side = draw(SIDES)
        near = draw(st.floats(0, side - 0.01))
        far = draw(st.one_of(st.just(float(side)), st.floats(near + 0.01, side)))
        edges.append((near, far))
        sides.append(side)
    (x1, x2), (y1, y2) = edges
    return Box(x1, y1, x2, y2), *sides


@pytest.mark.parametrize(
    "xyxy",
    [
        (5, 0, 5, 9),
        (6, 0, 5, 9),
        (0, 9, 5, 9),
        (0, 9, 5, 8),
        (-0.1, 0, 5, 9),
        (0, -0.1, 5, 9),
        (math.nan, 0, 5, 9),
        (0, 0, 5, math.nan),
        (0, 0, math.inf, 9),
        (0, 0, 5, math.inf),
    ],
)
def test_what_is_empty_inverted_negative_or_not_finite_is_no_box(xyxy):
    with pytest.raises(ValueError, match=r"not a box: x1="):
        Box(*xyxy)


def test_far_edges_are_exclusive():
    box = Box(3, 5, 4, 8)
    assert (box.width, box.height, box.area) == (1, 3, 3)
    assert box.as_xyxy() == (3, 5, 4, 8)


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (2, 2, 4, 4), 4 / 100),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0),
        ((0, 0, 10, 10), (10, 10, 20, 20), 0),
        ((0, 0, 10, 10), (90, 0, 95, 10), 0),
        ((0, 0, 1, 4), (0, 1, 1, 3), 0.5),
        ((0.5, 0, 1, 1), (0, 0, 0.75, 1), 0.25),
    ],
)
def test_iou_as_by_hand_in_both_directions(first, second, iou):
    assert Box(*first).iou(Box(*second)) == pytest.approx(iou, abs=1e-12)
    assert Box(*second).iou(Box(*first)) == pytest.approx(iou, abs=1e-12)


def test_the_iou_matrix_has_one_row_per_first_box():
    first = np.array([[0, 0, 10, 10], [0, 0, 5, 10]])
    second = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(iou_matrix(first, second), [[1, 0.5, 0], [0.5, 0, 0]])
    assert iou_matrix(first, np.empty((0, 4))).shape == (2, 0)


def test_the_iou_of_boxes_without_area_is_zero_without_a_warning():
    assert iou_matrix(np.zeros((1, 4)), np.zeros((1, 4))) == [[0]]


@pytest.mark.parametrize(
    ("raw", "clipped"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((-10, -20, 30, 40), (0, 0, 30, 40)),
        ((10, 20, 130, 140), (10, 20, 100, 50)),
        ((-math.inf, -1, math.inf, 1), (0, 0, 100, 1)),
        ((100, 0, 130, 10), None),
        ((-5, 0, 0, 10), None),
        ((0, 50, 10, 60), None),
        ((30, 0, 10, 10), None),
        ((math.nan, 0, 10, 10), None),
    ],
)
def test_clipping_keeps_the_part_inside_the_picture(raw, clipped):
    assert Box.clipped(raw, 100, 50) == (clipped and Box(*clipped))


@given(st.tuples(*[st.floats()] * 4), SIDES, SIDES)
def test_whatever_is_clipped_lies_inside_the_picture_or_is_nothing(raw, width, height):
    box = Box.clipped(raw, width, height)
    assert box is None or (0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height)


def test_percent_is_of_the_pictures_own_sides():
    percent = Box(20, 10, 60, 20).as_percent(200, 50)
    assert percent == {"x": 10, "y": 20, "width": 20, "height": 20}
    assert Box.from_percent(percent, 200, 50) == Box(20, 10, 60, 20)


@given(boxes_in_pictures())
def test_percent_never_leaves_the_picture(case):
    box, width, height = case
    percent = box.as_percent(width, height)
    assert all(0 <= value <= 100 for value in percent.values())
    assert percent["x"] + percent["width"] <= 100
    assert percent["y"] + percent["height"] <= 100


@given(boxes_in_pictures())
def test_the_far_edge_in_percent_is_never_beyond_its_own_rounding(case):
    box, width, height = case
    percent = box.as_percent(width, height)
    assert percent["x"] + percent["width"] <= round(100 * box.x2 / width, 6)
    assert percent["y"] + percent["height"] <= round(100 * box.y2 / height, 6)


def test_a_width_that_binary_fractions_would_round_up_stays_inside():
    percent = Box(71.211318, 0, 76.059153, 1).as_percent(100, 1)
    assert percent["x"] + percent["width"] <= 76.059153
    assert percent["width"] == pytest.approx(4.847835, abs=1e-12)


@given(boxes_in_pictures())
def test_percent_and_back_is_the_same_box_to_a_thousandth_of_a_pixel(case):
    box, width, height = case
    back = Box.from_percent(box.as_percent(width, height), width, height)
    assert back.as_xyxy() == pytest.approx(box.as_xyxy(), abs=1e-3)
