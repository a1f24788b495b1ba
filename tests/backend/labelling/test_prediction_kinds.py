"""Predictions of every kind: polygons, brushes and choices beside rectangles, names, pages, several pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatbox.annotation import Annotation, Found, Region
from heatbox.boxes import Box
from heatbox.errors import LabelUnknownError
from heatbox.labelling.predictions import evidence_url, prediction
from heatbox.labelling.tags import Control, LabelConfig, LabelTag
from heatbox.masks import Mask

CAT, DOG = LabelTag("cat"), LabelTag("Hund", alias="dog")
KINDS = ("rectanglelabels", "polygonlabels", "brushlabels")
FOUND = (Found("dog", "beagle", 0.9), Found("cat", "tabby", 0.6), Found("cat", "lynx", 0.7))


def square():
    pixels = np.zeros((10, 20), bool)
    pixels[2:6, 5:10] = True
    return Mask.of(pixels)


TABBY = Region("hb1", "cat", "tabby", Box(50, 20, 100, 60), 0.75, square())
PICTURE = Annotation(200, 100, (TABBY,), found=FOUND)


def control(kind, *labels, **fields):
    return Control(kind.removesuffix("labels"), "photo", labels or (CAT, DOG), kind, **fields)


def config(*controls, **fields):
    return LabelConfig(tuple(controls), **fields)


def regions(annotations, *controls, **fields):
    return prediction(annotations, config(*controls, **fields), "v")["result"]


def test_one_find_is_a_region_of_each_kind_with_an_id_of_its_own():
    found = regions([PICTURE], *map(control, KINDS))
    assert [(one["type"], one["from_name"], one["id"]) for one in found] == [
        ("rectanglelabels", "rectangle", "hb1"),
        ("polygonlabels", "polygon", "hb1-polygon"),
        ("brushlabels", "brush", "hb1-brush"),
    ]
    for one in found:
        assert one["value"][one["type"]] == ["cat"]
        assert (one["original_width"], one["original_height"], one["score"]) == (200, 100, 0.75)


def test_a_polygon_is_the_outline_of_the_mask_in_percent():
    (found,) = regions([PICTURE], control("polygonlabels"))
    assert found["value"]["closed"]
    xs, ys = zip(*found["value"]["points"], strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((25, 50, 20, 60), abs=0.3)


@pytest.mark.parametrize("mask", [None, Mask(20, 10, (200,))])
def test_without_a_mask_a_polygon_is_the_box_and_there_is_no_brush(mask):
    picture = Annotation(200, 100, (replace(TABBY, mask=mask),))
    (found,) = regions([picture], control("polygonlabels"), control("brushlabels"))
    assert found["value"]["points"] == [[25, 20], [50, 20], [50, 60], [25, 60]]


def test_a_brush_covers_the_whole_picture_at_its_own_size():
    (found,) = regions([PICTURE], control("brushlabels"))
    assert found["value"]["format"] == "rle"
    rle = found["value"]["rle"]
    assert int.from_bytes(rle[:4], "big") == 200 * 100 * 4
    assert all(type(byte) is int and 0 <= byte <= 255 for byte in rle)


@given(
    st.lists(st.tuples(*[st.floats(0, 40)] * 4), max_size=4),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_whatever_is_found_is_inside_the_picture_with_unique_ids(corners, seed, several):
    boxes = [box for corner in corners if (box := Box.clipped(corner, 40, 30)) is not None]
    pixels = np.random.default_rng(seed).random((6, 8)) < 0.5
    found = tuple(
        Region(f"hb{rank}", "cat", "tabby", box, 0.5, Mask.of(pixels)) for rank, box in enumerate(boxes)
    )
    picture = Annotation(40, 30, found, found=FOUND)
    question = control("choices", several=True, per_item=True)
    made = regions([picture] * (1 + several), *map(control, KINDS), question, value_list=several)
    for one in made:
        points = one["value"].get("points", [])
        assert all(0 <= side <= 100 for point in points for side in point)
    assert len({one["id"] for one in made}) == len(made)
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_a_label_is_stored_under_each_controls_own_name_and_left_out_where_a_control_lacks_it():
    controls = (
        control("rectanglelabels", CAT, DOG),
        control("polygonlabels", LabelTag("cat", alias="feline")),
        control("choices", LabelTag("Hund"), LabelTag("Cat", alias="c"), several=True),
    )
    dog = replace(TABBY, id="hb2", label="dog", class_name="beagle")
    found = regions([replace(PICTURE, regions=(TABBY, dog))], *controls)
    assert [(one["type"], one["value"][one["type"]]) for one in found] == [
        ("rectanglelabels", ["cat"]),
        ("rectanglelabels", ["dog"]),
        ("polygonlabels", ["feline"]),
        ("choices", ["Hund", "c"]),
    ]


@pytest.mark.parametrize(("several", "chosen"), [(False, ["dog"]), (True, ["dog", "cat"])])
def test_a_question_is_answered_with_the_most_probable_or_with_all_that_were_found(several, chosen):
    (found,) = regions([PICTURE], control("choices", several=several))
    assert found["value"] == {"choices": chosen}
    assert (found["score"], found["meta"]["heatbox"]["class"]) == (0.9, "beagle")
    assert "original_width" not in found


def test_a_question_about_nothing_that_was_found_has_no_answer():
    assert regions([replace(PICTURE, found=())], control("choices")) == []


@pytest.mark.parametrize(
    ("per_item", "answers"),
    [(False, [(None, ["dog"])]), (True, [(0, ["cat"]), (2, ["dog"])])],
)
def test_a_question_is_answered_once_or_for_each_picture(per_item, answers):
    cat, dog = (Annotation(20, 10, (), found=(one,)) for one in (FOUND[1], FOUND[0]))
    found = regions([cat, None, dog], control("choices", per_item=per_item), value_list=True)
    assert [(one.get("item_index"), one["value"]["choices"]) for one in found] == answers
    assert len({one["id"] for one in found}) == len(answers)


def test_a_region_says_which_class_score_version_explainer_and_page_it_comes_from():
    calibrated = replace(PICTURE, regions=(replace(TABBY, raw_score=0.4, explainer="cam"),))
    made = prediction([calibrated], config(control("rectanglelabels")), "v", "https://h/v1/tasks/7/evidence")
    assert made["result"][0]["meta"] == {
        "text": ["tabby 0.75\nhttps://h/v1/tasks/7/evidence"],
        "heatbox": {
            "class": "tabby",
            "version": "v",
            "raw_score": 0.4,
            "explainer": "cam",
            "evidence": "https://h/v1/tasks/7/evidence",
        },
    }


def test_a_region_of_a_further_picture_links_to_that_pictures_page():
    page = "https://h/v1/tasks/7/evidence?project=1"
    controls = (control("rectanglelabels"), control("choices", per_item=True))
    made = prediction([PICTURE, PICTURE], config(*controls, value_list=True), "v", page)
    links = [(one["type"], one["item_index"], one["meta"]["heatbox"]["evidence"]) for one in made["result"]]
    kinds = ("rectanglelabels", "choices")
    assert links == [
        (kind, index, page + more) for kind in kinds for index, more in enumerate(("", "&item=1"))
    ]
    assert made["result"][1]["meta"]["text"][0].endswith("&item=1")


@pytest.mark.parametrize(
    ("people_url", "project", "task", "address"),
    [
        ("https://h:9090", 1, 7, "https://h:9090/v1/tasks/7/evidence?project=1"),
        ("", 1, 7, ""),
        ("https://h:9090", 1, None, ""),
        ("https://h:9090", None, 7, ""),
    ],
)
def test_the_page_of_a_task_has_an_address_where_people_reach_the_service(people_url, project, task, address):
    assert evidence_url(people_url, project, task) == address


def test_a_label_that_was_found_and_is_not_in_the_config_is_an_error():
    strange = replace(PICTURE, found=(Found("zebra", "zebra", 0.5),))
    with pytest.raises(LabelUnknownError, match="label 'zebra' is not in the label config"):
        prediction([strange], config(control("choices")), "v")


def test_sorted_by_score_the_most_doubtful_come_first():
    sure, empty, unsure = replace(TABBY, score=0.9), 0.8, replace(TABBY, score=0.3)
    pictures = {
        "nothing came of a label that was looked for": Annotation(200, 100, ()),
        "nearly a find": Annotation(200, 100, (), absence=0.1),
        "one doubtful box": Annotation(200, 100, (sure, unsure)),
        "surely empty": Annotation(200, 100, (), absence=empty),
        "a sure box": Annotation(200, 100, (sure,)),
    }
    made = config(control("rectanglelabels"))
    scores = {name: prediction([one], made, "v")["score"] for name, one in pictures.items()}
    assert sorted(scores, key=scores.__getitem__) == list(pictures)
