"""Masks: there and back through run lengths, at another size, and the polygon around them."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from heatbox.masks import Mask


def ellipse(height, width, half_width, half_height):
    pixels = np.zeros((height, width), np.uint8)
    cv2.ellipse(pixels, (width // 2, height // 2), (half_width, half_height), 30, 0, 360, 1, -1)
    return pixels.astype(bool)


def drawn(polygon, height, width):
    """Return the pixels within a polygon, drawn sixteen times finer than a pixel."""
    pixels = np.zeros((height, width), np.uint8)
    corners = [(x * width * 16 - 8, y * height * 16 - 8) for x, y in polygon]
    cv2.fillPoly(pixels, [np.round(corners).astype(np.int32)], 1, shift=4)
    return pixels.astype(bool)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_a_mask_is_there_and_back_the_same(pixels):
    mask = Mask.of(pixels)
    assert np.array_equal(mask.array(), pixels)
    assert all(mask.counts[1:])  # as few runs as can be


@pytest.mark.parametrize(
    ("pixels", "counts"),
    [
        ([[0, 0, 1], [1, 0, 0]], (2, 2, 2)),
        ([[1, 1, 1], [1, 1, 1]], (0, 6)),
        ([[0, 0, 0], [0, 0, 0]], (6,)),
    ],
)
def test_the_runs_go_row_by_row_and_the_first_is_of_zeros(pixels, counts):
    assert Mask.of(np.array(pixels, bool)) == Mask(3, 2, counts)


@pytest.mark.parametrize("counts", [(), (5,), (7,), (2, 5), (8, -2)])
def test_runs_that_do_not_fill_the_picture_are_no_mask(counts):
    with pytest.raises(ValueError, match="no mask of 3 x 2"):
        Mask(3, 2, counts)


def test_at_another_size_each_cell_becomes_a_block():
    scaled = Mask.of(np.array([[1, 0], [0, 1]], bool)).scaled(6, 4)
    assert np.array_equal(scaled, np.kron([[1, 0], [0, 1]], np.ones((2, 3))).astype(bool))


@pytest.mark.parametrize("size", [(224, 224, 80, 50), (32, 32, 12, 7), (448, 300, 140, 90), (64, 64, 3, 3)])
def test_the_polygon_of_an_ellipse_is_the_ellipse_within_two_percent(size):
    pixels = ellipse(*size)
    mask = Mask.of(pixels)
    fine = mask.scaled(896, 896)
    polygon = drawn(mask.polygon(), 896, 896)
    assert (fine & polygon).sum() / (fine | polygon).sum() > 0.98


@given(st.integers(0, 2**32 - 1))
def test_a_polygon_has_three_corners_at_least_and_stays_in_the_picture(seed):
    pixels = np.random.default_rng(seed).random((9, 7)) < 0.4
    polygon = Mask.of(pixels).polygon()
    assert len(polygon) >= 3
    assert all(0 <= side <= 1 for corner in polygon for side in corner)


def test_of_several_parts_the_polygon_is_that_of_the_largest():
    pixels = np.zeros((64, 64), bool)
    pixels[2:6, 2:6] = pixels[20:60, 30:50] = True
    xs, ys = zip(*Mask.of(pixels).polygon(), strict=True)
    assert (min(xs), min(ys)) == pytest.approx((30 / 64, 20 / 64), abs=0.002)


def test_a_hole_is_filled_by_the_polygon():
    ring = ellipse(224, 224, 80, 80) & ~ellipse(224, 224, 30, 30)
    assert drawn(Mask.of(ring).polygon(), 224, 224)[112, 112]


def test_nothing_has_no_polygon():
    assert Mask.of(np.zeros((5, 5), bool)).polygon() == []
