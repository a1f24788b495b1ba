"""Boxes of stored results: which regions have one and where, what is told of others, and which two are the same."""

import cmath
import math

import pytest
from fixtures_corrections import box, choice
from hypothesis import given
from hypothesis import strategies as st

from heatbox.studio.regions import best_pairs, read_boxes


def outline(*points, label="cat"):
    return {"type": "polygonlabels", "value": {"points": list(points), "polygonlabels": [label]}}


def changed(**value):
    region = box()
    return {**region, "value": {**region["value"], **value}}


@pytest.mark.parametrize(
    ("region", "corners"),
    [
        pytest.param(box(), (0.1, 0.1, 0.3, 0.3), id="rectangle"),
        pytest.param(changed(x=-5, width=200), (0, 0.1, 1, 0.3), id="outside"),
        pytest.param(changed(rotation=90), (0, 0.1, 0.1, 0.3), id="turned-around-its-corner"),
        pytest.param(
            {**changed(rotation=90, x=50), "original_width": 200}, (0.4, 0.1, 0.5, 0.5), id="turned-in-pixels"
        ),
        pytest.param(outline([10, 20], [30, 60], [20, 5]), (0.1, 0.05, 0.3, 0.6), id="polygon"),
    ],
)
def test_a_region_counts_as_the_box_around_it(region, corners):
    (found,), problems = read_boxes([region])
    assert found.corners == pytest.approx(corners)
    assert not problems


PLACES, SIDES, PIXELS = st.floats(-50, 150), st.floats(1, 150), st.integers(1, 5000)


@given(st.tuples(PLACES, PLACES), st.tuples(SIDES, SIDES), st.floats(-720, 720), st.tuples(PIXELS, PIXELS))
def test_a_turned_rectangle_counts_as_the_box_around_what_is_inside(place, size, angle, pixels):
    (x, y), (width, height), (across, down) = place, size, pixels
    region = changed(x=x, y=y, width=width, height=height, rotation=angle)
    found, problems = read_boxes([region | {"original_width": across, "original_height": down}])
    sides = width * across, 1j * height * down  # in pixels, times 100
    ends = [(x * across + 1j * y * down) + turn for turn in (0, *sides, sum(sides))]
    start = ends[0]
    turned = [start + (end - start) * cmath.rect(1, math.radians(angle)) for end in ends]
    xs = [min(max(end.real / across / 100, 0), 1) for end in turned]
    ys = [min(max(end.imag / down / 100, 0), 1) for end in turned]
    around = min(xs), min(ys), max(xs), max(ys)
    if not found:  # nothing of it is in the picture
        assert len(problems) == 1
        assert min(around[2] - around[0], around[3] - around[1]) < 1e-9
        return
    assert found[0].corners == pytest.approx(around, abs=1e-9)
    assert 0 <= found[0].corners[0] < found[0].corners[2] <= 1
    assert 0 <= found[0].corners[1] < found[0].corners[3] <= 1


@pytest.mark.parametrize(
    ("region", "told"),
    [
        (changed(x="10"), "no place"),
        (changed(x=math.nan), "no place"),
        (changed(x=10**400), "no place"),
        (changed(width=0), "no place"),
        (changed(x=120), "no place"),
        (changed(rotation="left"), "no place"),
        ({**changed(rotation=30), "original_width": 0}, "no place"),
        (changed(rectanglelabels=[]), "no label"),
        (changed(rectanglelabels="cat"), "no label"),
        ({**box(), "value": None}, "no value"),
        ({**box(), "type": 7}, "no type"),
        ({**box(), "type": "ellipselabels"}, "of type ellipselabels"),
        (outline([1, 2]), "no place"),
        (outline([1, 2], [3, 4], "x"), "no place"),
        ("region", "not an object"),
    ],
)
def test_a_region_that_cannot_be_understood_is_told_and_costs_only_itself(region, told):
    found, (problem,) = read_boxes([region, box(50)])
    assert [one.corners[0] for one in found] == [0.5]
    assert told in problem


@pytest.mark.parametrize(
    "region", [choice("cat"), {"type": "brushlabels", "value": {"rle": [1]}}, {"type": "relation"}]
)
def test_answers_masks_and_relations_have_no_box_and_are_fine(region):
    assert read_boxes([region]) == ([], [])


@pytest.mark.parametrize("result", [None, {}, "text", 7])
def test_a_result_that_is_no_list_is_told(result):
    assert read_boxes(result) == ([], ["the result is not a list"])


def test_an_outline_on_a_rectangle_of_its_label_is_the_same_find():
    corners = [[10, 10], [30, 10], [30, 30], [10, 30]]
    found, _ = read_boxes([box(), outline(*corners), outline(*corners, label="dog")])
    assert [(one.kind, one.label) for one in found] == [("rectanglelabels", "cat"), ("polygonlabels", "dog")]


def test_each_box_has_one_other_at_most_the_closest_first():
    first, second = (read_boxes(some)[0] for some in ([box(13), box(11)], [box(10), box(90, side=5)]))
    assert best_pairs(first, second) == {1: 0}
