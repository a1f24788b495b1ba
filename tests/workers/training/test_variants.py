"""Variants: boxes go with what they are around, and the same content gives the same variants."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures_learning import example_of, painted

from heatbox.pictures.images import Limits, read_picture
from heatbox_workers.training.variants import variant

SIZE = (120, 80)


def example(folder, boxes=(("red", 30, 20, 62, 52),), labels=("red",), name="one.png"):
    return example_of(painted(folder / name, [("red", 30, 20, 32)], SIZE), labels, boxes, SIZE)


def redness(pixels):
    values = pixels.astype(float)
    return (values[..., 0] > 180) & (values[..., 1] < 60)


@pytest.mark.parametrize("number", range(12))
def test_the_box_of_a_variant_holds_the_colour(tmp_path, number):
    one = example(tmp_path)
    made = variant(one, number)
    red = redness(made.of(read_picture(one.path, Limits()).pixels))
    height, width = red.shape
    ((label, (x1, y1, x2, y2)),) = made.boxes
    rows, columns = np.nonzero(red)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert label == "red"
    assert np.abs(found - np.array([x1 * width, y1 * height, x2 * width, y2 * height])).max() <= 1.01


def test_the_first_is_the_picture_the_second_its_mirror_image_and_the_others_are_cut(tmp_path):
    one = example(tmp_path)
    pixels = read_picture(one.path, Limits()).pixels
    assert np.array_equal(variant(one, 0).of(pixels), pixels)
    assert np.array_equal(variant(one, 1).of(pixels), pixels[:, ::-1])
    for number in (2, 3):
        height, width = variant(one, number).of(pixels).shape[:2]
        assert 0.68 <= height / 80 < 1
        assert 0.68 <= width / 120 < 1


def test_the_same_content_has_the_same_variants_under_any_name(tmp_path):
    first, second = example(tmp_path), example(tmp_path, name="two.png")
    assert first.sha256 == second.sha256
    assert [variant(first, number) for number in range(4)] == [variant(second, number) for number in range(4)]


def test_another_content_is_cut_elsewhere(tmp_path):
    one = example(tmp_path)
    assert variant(one, 2).cut != variant(replace(one, sha256="f" * 64), 2).cut


def test_a_box_that_is_cut_off_takes_its_label_along(tmp_path):
    corner = example(tmp_path, (("red", 0, 0, 6, 4), ("blue", 50, 30, 80, 60)), ("blue", "red"))
    lost = [one for one in (variant(corner, number) for number in range(2, 12)) if one.labels == ("blue",)]
    assert lost
    assert all([label for label, _ in one.boxes] == ["blue"] for one in lost)


def test_a_label_with_another_box_or_none_at_all_stays(tmp_path):
    two = example(tmp_path, (("red", 0, 0, 6, 4), ("red", 50, 30, 80, 60)), ("green", "red"))
    assert {variant(two, number).labels for number in range(12)} == {("green", "red")}


@pytest.mark.parametrize("boxes", [None, ()])
def test_no_boxes_stay_none_or_empty_as_they_are(tmp_path, boxes):
    one = example(tmp_path, boxes)
    assert {variant(one, number).boxes for number in range(4)} == {boxes}


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 300), (3, 3)])
def test_the_smallest_pictures_can_be_cut(size):
    pixels = np.zeros((*size, 3), np.uint8)
    for digit in "0123456789abcdef":
        one = replace(example_from(digit), width=size[1], height=size[0])
        assert all(variant(one, number).of(pixels).size for number in range(8))


def example_from(digit):
    from heatbox.datasets.examples import Example

    return Example(None, "one", digit * 64, 1, 1, (), None)
