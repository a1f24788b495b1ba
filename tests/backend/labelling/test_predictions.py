"""Predictions and tasks in Label Studio's JSON."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatbox.annotation import Annotation, Region, region_id
from heatbox.boxes import Box
from heatbox.errors import LabelUnknownError
from heatbox.labelling.predictions import import_task, prediction
from heatbox.labelling.tags import Control, LabelConfig, LabelTag

LABELS = (LabelTag("cat"), LabelTag("Hund", alias="dog"))
CONFIG = LabelConfig((Control("label", "photo", LABELS),))
LIST = LabelConfig((Control("label", "photo", (LabelTag("cat"),)),), "images", value_list=True)
TABBY = Region("hb1", "cat", "tabby", Box(20, 10, 60, 40), 0.75)
BEAGLE = Region("hb2", "dog", "beagle", Box(0, 0, 200, 100), 0.5)


def annotation(*regions):
    return Annotation(200, 100, regions)


@st.composite
def annotations(draw):
    width, height = draw(st.integers(1, 100_000)), draw(st.integers(1, 100_000))
    sides = st.tuples(*[st.floats(0, size) for size in (width, height, width, height)])
    raw = [Box.clipped(box, width, height) for box in draw(st.lists(sides))]
    boxes = [box for box in raw if box is not None]
    scores = draw(st.lists(st.floats(), min_size=len(boxes), max_size=len(boxes)))
    regions = (
        Region(region_id("v", "cat", rank, box), "cat", "tabby", box, score)
        for rank, (box, score) in enumerate(zip(boxes, scores, strict=True))
    )
    return Annotation(width, height, tuple(regions))


@settings(deadline=None)
@given(annotations())
def test_every_region_lies_inside_the_picture_with_a_score_and_an_id_of_its_own(value):
    result = prediction([value], CONFIG, "v")["result"]
    for region in result:
        box = region["value"]
        assert min(box["x"], box["y"], box["width"], box["height"]) >= 0
        assert max(box["x"] + box["width"], box["y"] + box["height"]) <= 100
        assert 0 <= region["score"] <= 1
    assert len({region["id"] for region in result}) == len(value.regions)


def test_a_region_has_exactly_the_keys_that_label_studio_knows():
    assert prediction([annotation(TABBY)], CONFIG, "heatbox-x")["result"] == [
        {
            "id": "hb1",
            "from_name": "label",
            "to_name": "photo",
            "type": "rectanglelabels",
            "original_width": 200,
            "original_height": 100,
            "image_rotation": 0,
            "score": 0.75,
            "value": {
                "x": 10.0,
                "y": 10.0,
                "width": 20.0,
                "height": 30.0,
                "rotation": 0,
                "rectanglelabels": ["cat"],
            },
            "meta": {"text": ["tabby 0.75"], "heatbox": {"class": "tabby", "version": "heatbox-x"}},
        }
    ]


def test_a_prediction_has_the_lowest_score_and_the_version():
    result = prediction([annotation(TABBY, BEAGLE)], CONFIG, "heatbox-x")
    assert (result["score"], result["model_version"]) == (0.5, "heatbox-x")


@pytest.mark.parametrize(("absence", "score"), [(0.9, 0.9), (None, 0.0)])
def test_a_picture_without_boxes_is_an_empty_prediction_that_says_how_sure_it_is(absence, score):
    empty = Annotation(200, 100, (), absence=absence)
    assert prediction([empty], CONFIG, "v") == {"result": [], "score": score, "model_version": "v"}


@pytest.mark.parametrize(
    ("score", "clipped"), [(1.7, 1.0), (-0.1, 0.0), (math.inf, 1.0), (math.nan, 0.0), (0.3, 0.3)]
)
def test_scores_are_clipped(score, clipped):
    region = Region("hb1", "cat", "tabby", Box(0, 0, 1, 1), score)
    result = prediction([annotation(region)], CONFIG, "v")
    assert (result["score"], result["result"][0]["score"]) == (clipped, clipped)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize("label", ["Hund", "Cat", "zebra"])
def test_a_label_that_the_config_does_not_have_is_an_error(label):
    region = Region("hb1", label, "tabby", Box(0, 0, 1, 1), 0.5)
    with pytest.raises(LabelUnknownError, match=f"{label}.*Map the class 'tabby' to one of: cat, dog"):
        prediction([annotation(region)], CONFIG, "v")


def test_the_pictures_of_one_task_are_told_apart_by_item_index_and_id():
    joined = prediction([annotation(TABBY), None, annotation(TABBY)], LIST, "v")
    assert [(region["item_index"], region["id"]) for region in joined["result"]] == [
        (0, "hb1-0"),
        (2, "hb1-2"),
    ]
    assert (joined["score"], joined["model_version"]) == (0.75, "v")


def test_a_picture_that_failed_does_not_hide_its_neighbours_score_and_a_doubtful_one_is_the_tasks():
    sure, unsure = Annotation(200, 100, (), absence=0.9), Annotation(200, 100, (), absence=0.2)
    assert prediction([None, annotation(TABBY), sure], LIST, "v")["score"] == 0.75
    assert prediction([annotation(TABBY), unsure], LIST, "v")["score"] == 0.2


def test_bare_data_becomes_a_task_with_its_prediction():
    made = prediction([annotation(TABBY)], CONFIG, "v")
    assert import_task({"image": "a.jpg"}, made) == {"data": {"image": "a.jpg"}, "predictions": [made]}


def test_a_failed_picture_is_imported_without_a_prediction():
    assert import_task({"data": {"image": "a.jpg"}}, None) == {"data": {"image": "a.jpg"}, "predictions": []}


def test_of_an_exported_task_the_work_of_others_is_kept_and_counters_are_not():
    made = prediction([annotation(TABBY)], CONFIG, "heatbox-new")
    other, old = {"result": [], "model_version": "yolo"}, {"result": [], "model_version": "heatbox-old"}
    kept = {"id": 7, "data": {"image": "a.jpg"}, "meta": {"k": 1}, "annotations": [{"result": []}]}
    task = {**kept, "predictions": [3, other, old], "total_annotations": 1, "drafts": []}
    assert import_task(task, made) == {**kept, "predictions": [other, made]}


def test_the_input_task_is_not_changed():
    task = {"data": {"image": "a.jpg"}, "predictions": []}
    import_task(task, {"result": []})["data"]["image"] = "b.jpg"
    assert task == {"data": {"image": "a.jpg"}, "predictions": []}
