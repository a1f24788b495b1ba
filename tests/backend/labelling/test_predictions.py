"""Predictions and tasks in Label Studio's JSON."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatbox.annotation import Annotation, Region, region_id
from heatbox.boxes import Box
from heatbox.errors import LabelUnknownError, TasksFileError
from heatbox.labelling.config import Control, LabelTag
from heatbox.labelling.predictions import import_task, join_predictions, prediction, task_addresses

CONTROL = Control("label", "photo", (LabelTag("cat"), LabelTag("Hund", alias="dog")), "image")
LIST = Control("label", "photo", (LabelTag("cat"),), "images", value_list=True)
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
    result = prediction(value, CONTROL, "v")["result"]
    for region in result:
        box = region["value"]
        assert min(box["x"], box["y"], box["width"], box["height"]) >= 0
        assert max(box["x"] + box["width"], box["y"] + box["height"]) <= 100
        assert 0 <= region["score"] <= 1
    assert len({region["id"] for region in result}) == len(value.regions)


def test_a_region_has_exactly_the_keys_that_label_studio_knows():
    assert prediction(annotation(TABBY), CONTROL, "heatbox-x")["result"] == [
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
    result = prediction(annotation(TABBY, BEAGLE), CONTROL, "heatbox-x")
    assert (result["score"], result["model_version"]) == (0.5, "heatbox-x")


def test_a_picture_without_boxes_is_an_empty_prediction_without_a_score():
    assert prediction(annotation(), CONTROL, "v") == {"result": [], "score": None, "model_version": "v"}


@pytest.mark.parametrize(
    ("score", "clipped"), [(1.7, 1.0), (-0.1, 0.0), (math.inf, 1.0), (math.nan, 0.0), (0.3, 0.3)]
)
def test_scores_are_clipped(score, clipped):
    region = Region("hb1", "cat", "tabby", Box(0, 0, 1, 1), score)
    result = prediction(annotation(region), CONTROL, "v")
    assert (result["score"], result["result"][0]["score"]) == (clipped, clipped)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize("label", ["Hund", "Cat", "zebra"])
def test_a_label_that_the_config_does_not_have_is_an_error(label):
    region = Region("hb1", label, "tabby", Box(0, 0, 1, 1), 0.5)
    with pytest.raises(LabelUnknownError, match=f"{label}.*Map the class 'tabby' to one of: cat, dog"):
        prediction(annotation(region), CONTROL, "v")


def test_the_pictures_of_one_task_are_told_apart_by_item_index_and_id():
    pictures = [prediction(annotation(TABBY), LIST, "v", index) for index in (0, 2)]
    joined = join_predictions(pictures)
    assert [(region["item_index"], region["id"]) for region in joined["result"]] == [
        (0, "hb1-0"),
        (2, "hb1-2"),
    ]
    assert (joined["score"], joined["model_version"]) == (0.75, "v")


def test_a_picture_without_boxes_does_not_hide_its_neighbours_score():
    pictures = [prediction(annotation(*regions), LIST, "v", 0) for regions in ((), (TABBY,))]
    assert join_predictions(pictures)["score"] == 0.75


def test_bare_data_becomes_a_task_with_its_prediction():
    made = prediction(annotation(TABBY), CONTROL, "v")
    assert import_task({"image": "a.jpg"}, made) == {"data": {"image": "a.jpg"}, "predictions": [made]}


def test_a_failed_picture_is_imported_without_a_prediction():
    assert import_task({"data": {"image": "a.jpg"}}, None) == {"data": {"image": "a.jpg"}, "predictions": []}


def test_of_an_exported_task_the_work_of_others_is_kept_and_counters_are_not():
    made = prediction(annotation(TABBY), CONTROL, "heatbox-new")
    other, old = {"result": [], "model_version": "yolo"}, {"result": [], "model_version": "heatbox-old"}
    kept = {"id": 7, "data": {"image": "a.jpg"}, "meta": {"k": 1}, "annotations": [{"result": []}]}
    task = {**kept, "predictions": [3, other, old], "total_annotations": 1, "drafts": []}
    assert import_task(task, made) == {**kept, "predictions": [other, made]}


def test_the_input_task_is_not_changed():
    task = {"data": {"image": "a.jpg"}, "predictions": []}
    import_task(task, {"result": []})["data"]["image"] = "b.jpg"
    assert task == {"data": {"image": "a.jpg"}, "predictions": []}


@pytest.mark.parametrize(
    ("task", "control", "addresses"),
    [
        ({"data": {"image": "a.jpg", "text": "x"}}, CONTROL, ["a.jpg"]),
        ({"image": "a.jpg"}, CONTROL, ["a.jpg"]),
        ({"data": {"images": ["a.jpg", "b.jpg"]}}, LIST, ["a.jpg", "b.jpg"]),
        ({"data": {"images": "a.jpg"}}, LIST, ["a.jpg"]),
    ],
)
def test_the_addresses_of_a_task_are_found_under_the_key_of_the_config(task, control, addresses):
    assert task_addresses(task, control) == addresses


@pytest.mark.parametrize(
    ("data", "control", "shown"),
    [
        ({"text": "x"}, CONTROL, "is None"),
        ({"image": ""}, CONTROL, "is ''"),
        ({"image": 3}, CONTROL, "is 3"),
        ({"image": ["a.jpg"]}, CONTROL, r"is \['a.jpg'\]"),
        ({"image": ["a.jpg" * 99]}, CONTROL, r"is \['a.jpg.{1,80}\.\.\."),
        ({"images": []}, LIST, r"is \[\]"),
        ({"images": ["a.jpg", None]}, LIST, r"is \['a.jpg', None\]"),
    ],
)
def test_a_task_without_an_address_is_named_with_what_it_has(data, control, shown):
    with pytest.raises(TasksFileError, match=rf"Task 5 has no picture: data\['{control.data_key}'\] {shown}"):
        task_addresses({"id": 5, "data": data}, control)
