"""Views: the part of a picture that somebody points at, and the way of what is found there to the whole."""

import numpy as np
import pytest

from heatbox.annotation import Annotation, Region
from heatbox.boxes import Box
from heatbox.masks import Mask
from heatbox.pictures.images import Picture
from heatbox.pictures.wanted import Wanted
from heatbox_workers.views import needed_side, view_of


def picture(rows=40, columns=80, scale=1):
    """Return a picture whose red and green tell column and row, decoded at a part of its size."""
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(columns), np.arange(rows)[:, None]
    return Picture(pixels, columns * scale, rows * scale)


def region(*corners, name="hb1", mask=None):
    return Region(name, "cat", "tabby", Box(*corners), 0.5, mask)


def test_without_a_place_the_view_is_the_picture():
    whole = picture()
    assert view_of(whole, Wanted("a")).picture is whole


@pytest.mark.parametrize("scale", [1, 3])
def test_a_rectangle_is_shown_with_what_is_around_it_and_what_is_found_moves_back(scale):
    view = view_of(picture(scale=scale), Wanted("a", within=(25, 50, 50, 25)))
    assert view.picture.pixels.shape == (30, 80, 3)
    assert view.picture.pixels[0, 0].tolist() == [0, 10, 0]
    assert (view.picture.width, view.picture.height) == (80 * scale, 30 * scale)
    assert view.window == pytest.approx((20 / 80, 10 / 30, 60 / 80, 20 / 30))
    found = Annotation(80 * scale, 30 * scale, (region(20 * scale, 10 * scale, 60 * scale, 20 * scale),))
    placed = view.placed(found, "v")
    assert (placed.width, placed.height) == (80 * scale, 40 * scale)
    assert placed.regions[0].box.as_xyxy() == (20 * scale, 20 * scale, 60 * scale, 30 * scale)


def test_what_reaches_out_of_the_rectangle_is_cut_and_what_lies_outside_goes():
    view = view_of(picture(), Wanted("a", within=(25, 50, 50, 25)))
    found = Annotation(80, 30, (region(10, 0, 70, 30), region(0, 0, 20, 30, name="outside")))
    (kept,) = view.placed(found, "v").regions
    assert kept.box.as_xyxy() == (20, 20, 60, 30)


@pytest.mark.parametrize("within", [(0, 0, 0.01, 0.01), (100, 100, 0, 0), (99.99, 99.99, 0.01, 0.01)])
def test_the_smallest_rectangle_is_a_pixel(within):
    assert view_of(picture(), Wanted("a", within=within)).picture.pixels.shape == (1, 1, 3)


def test_a_mask_is_put_back_where_it_was_seen():
    view = view_of(picture(), Wanted("a", within=(25, 50, 50, 25)))
    seen = np.zeros((30, 80), bool)
    seen[10:20, 20:60] = True
    found = region(20, 10, 60, 20, mask=Mask.of(seen))
    (moved,) = view.placed(Annotation(80, 30, (found,)), "v").regions
    expected = np.zeros((40, 80), bool)
    expected[20:30, 20:60] = True
    assert np.array_equal(moved.mask.scaled(80, 40), expected)


def test_a_mask_of_a_huge_picture_stays_small():
    view = view_of(picture(scale=1000), Wanted("a", within=(0, 0, 1, 1)))
    found = Annotation(800, 400, (region(0, 0, 800, 400, mask=Mask.of(np.ones((224, 224), bool))),))
    (moved,) = view.placed(found, "v").regions
    assert max(moved.mask.width, moved.mask.height) <= 2048
    assert moved.mask.array().any()


def test_ids_in_a_rectangle_are_not_those_of_the_whole_picture():
    found = Annotation(80, 30, (region(20, 10, 29, 19), region(20, 10, 29, 19, name="hb2")))
    view = view_of(picture(), Wanted("a", within=(25, 50, 50, 25)))
    ids = [one.id for one in view.placed(found, "v").regions]
    assert len({*ids, "hb1", "hb2"}) == 4
    assert ids == [one.id for one in view.placed(found, "v").regions]


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        ((12.5, 25), ["left"]),
        ((50, 25), ["middle", "wide"]),
        ((49, 90), ["wide"]),
        ((100, 100), ["wide"]),
        ((0, 0), ["left"]),
    ],
)
def test_of_a_point_the_regions_that_contain_it_are_kept_or_else_the_nearest(point, kept):
    regions = (
        region(2, 2, 20, 20, name="left"),
        region(30, 0, 50, 20, name="middle"),
        region(30, 0, 60, 35, name="wide"),
    )
    view = view_of(picture(), Wanted("a", point=point))
    placed = view.placed(Annotation(80, 40, regions), "v")
    assert [one.id for one in placed.regions] == kept


def test_a_point_in_an_empty_picture_finds_nothing():
    view = view_of(picture(), Wanted("a", point=(50, 50)))
    assert view.placed(Annotation(80, 40, (), absence=0.5), "v") == Annotation(80, 40, (), absence=0.5)


@pytest.mark.parametrize(
    ("within", "side"),
    [(None, 224), ((0, 0, 50, 100), 224), ((0, 0, 100, 10), 746), ((0, 0, 0.001, 9), 22400)],
)
def test_a_small_part_is_read_finer_up_to_a_hundred_times(within, side):
    assert needed_side(Wanted("a", within=within), 224) == side
