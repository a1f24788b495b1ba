"""Champion and challenger: what is measured, and which of them is better."""

from dataclasses import replace

import pytest
from fixtures_learning import example_of, painted

from heatbox.boxes import Box
from heatbox.datasets.examples import Marked
from heatbox.errors import LabelUnknownError
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline, Way, pipeline_for
from heatbox_workers.loading import load_classifier
from heatbox_workers.training.contest import Measured, is_better, measure, pipeline_of

BOTH = {"explainer": "cam", "min_probability": 0.5}


def measured(accuracy, quality=None):
    return Measured(accuracy, quality, None, None, {})


@pytest.mark.parametrize(
    ("ours", "theirs", "better"),
    [
        ((0.9, 0.5), (0.8, 0.5), True),
        ((0.8, 0.6), (0.8, 0.5), True),
        ((0.79, 0.6), (0.8, 0.5), True),  # one in a hundred may be chance
        ((0.77, 0.9), (0.8, 0.5), False),
        ((0.9, 0.48), (0.8, 0.5), False),
        ((0.9, 0.495), (0.8, 0.5), True),
        ((0.8, 0.5), (0.8, 0.5), False),
        ((0.8, 0.503), (0.8, 0.5), False),  # so little may be chance too
        ((0.9, None), (0.8, None), True),
        ((0.8, None), (0.8, None), False),
        ((None, None), (None, None), False),
        ((0.9, 0.5), (0.8, None), True),
        ((0.9, None), (0.8, 0.5), True),
        ((None, 0.6), (None, 0.5), True),
        ((0.1, 0.1), None, True),
        ((None, None), None, True),
    ],
)
def test_better_is_better_in_one_and_worse_in_neither(ours, theirs, better):
    assert is_better(measured(*ours), theirs and measured(*theirs)) is better


def test_what_was_measured_is_json_ready():
    rows = {"red": {"pictures": 2, "accuracy": 1.0}}
    assert Measured(0.5, None, None, 0.25, rows).as_dict() == {
        "accuracy": 0.5,
        "box_quality": None,
        "mean_iou": None,
        "found": 0.25,
        "labels": rows,
    }


@pytest.fixture
def red_and_blue(colours):
    return load_classifier(colours.store, colours.card)


@pytest.fixture
def examples(tmp_path):
    """Red alone, blue alone, both, nothing."""
    shown = [("red", 4, 8, 24)], [("blue", 36, 24, 24)], [("red", 4, 8, 24), ("blue", 36, 24, 24)], []
    found = []
    for number, own in enumerate(shown):
        path = painted(tmp_path / f"{number}.png", own, seed=number)
        boxes = [(label, x, y, x + side, y + side) for label, x, y, side in own]
        found.append(example_of(path, [label for label, *_ in own], boxes))
    return found


def test_a_model_that_is_right_has_full_accuracy_and_good_boxes(colours, red_and_blue, examples):
    told = []
    pipeline = pipeline_for(colours.card, **BOTH)
    found = measure(red_and_blue, pipeline, colours.store, examples, Limits(), lambda: told.append(1))
    assert found.accuracy == 1.0
    assert found.box_quality > 0.5
    assert found.found == 1.0
    assert found.labels["red"]["pictures"] == found.labels["red"]["boxes"] == 2
    assert len(told) == 4


def test_wrong_labels_and_boxes_elsewhere_are_measured_as_such(colours, red_and_blue, examples):
    contrary = {"red": "blue", "blue": "red"}
    wrong = [
        replace(
            one,
            labels=tuple(sorted(contrary[label] for label in one.labels)),
            boxes=tuple(Marked(contrary[box.label], Box(box.box.x1, 0, box.box.x2, 4)) for box in one.boxes),
        )
        for one in examples
    ]
    found = measure(red_and_blue, pipeline_for(colours.card, **BOTH), colours.store, wrong, Limits())
    assert found.accuracy == 0.5  # right where both are, and where none is
    assert found.box_quality == 0.0


def test_pictures_where_nobody_looked_for_boxes_do_not_count_for_them(colours, red_and_blue, examples):
    unmarked = [replace(one, boxes=None) for one in examples]
    found = measure(red_and_blue, pipeline_for(colours.card, **BOTH), colours.store, unmarked, Limits())
    assert (found.accuracy, found.box_quality, found.mean_iou) == (1.0, None, None)
    assert found.labels["red"]["box_quality"] is None


def test_boxes_too_many_cost_quality(colours, red_and_blue, examples):
    """In the picture of both, people left only one."""
    pipeline = pipeline_for(colours.card, **BOTH)
    whole = measure(red_and_blue, pipeline, colours.store, examples, Limits())
    fewer = [*examples[:2], replace(examples[2], boxes=examples[2].boxes[:1]), examples[3]]
    found = measure(red_and_blue, pipeline, colours.store, fewer, Limits())
    assert found.labels["blue"]["box_quality"] < whole.labels["blue"]["box_quality"]
    assert found.labels["red"]["box_quality"] == whole.labels["red"]["box_quality"]


def test_labels_are_those_of_the_project_where_classes_are_mapped(colours, red_and_blue, examples):
    mapped = pipeline_for(colours.card, **BOTH, label_map=(("red", "warm"), ("blue", "cold")))
    named = {"red": "warm", "blue": "cold"}
    asked = [
        replace(
            one,
            labels=tuple(sorted(named[label] for label in one.labels)),
            boxes=tuple(replace(box, label=named[box.label]) for box in one.boxes),
        )
        for one in examples
    ]
    found = measure(red_and_blue, mapped, colours.store, asked, Limits())
    assert (found.accuracy, found.found, sorted(found.labels)) == (1.0, 1.0, ["cold", "warm"])


def test_nothing_held_out_is_nothing_measured(colours, red_and_blue):
    found = measure(red_and_blue, pipeline_for(colours.card, **BOTH), colours.store, [], Limits())
    assert found == Measured(None, None, None, None, {})


def test_the_challenger_s_pipeline_is_the_champion_s_with_its_own_model_classes_and_states(colours):
    before = Pipeline(
        colours.card.id,
        explainer="grad_cam",
        fitter_options={"threshold": 0.3},
        labels=("red", "gone"),
        label_map=(("red", "red"), ("tomato", "red")),
        calibration=((0.1, 0.2), (0.9, 1.0)),
        state="0123456789ab",
        label_ways=(
            ("red", Way("cam", state="ba9876543210")),
            ("gone", Way("cam")),
        ),
    )
    after = pipeline_of(before, colours.card, colours.store, ("red", "green"))
    assert after.model == colours.card.id
    assert after.label_map == (("red", "red"), ("green", "green"))
    assert after.labels == ("red",)
    assert after.label_ways == (("red", Way("cam")),)
    assert (after.state, after.calibration) == ("", ())
    assert (after.explainer, dict(after.fitter_options)) == ("grad_cam", {"threshold": 0.3})


def test_without_a_map_every_class_has_its_own_name(colours):
    after = pipeline_of(pipeline_for(colours.card), colours.card, colours.store, ("red", "green"))
    assert after.label_map == ()


def test_a_label_that_the_model_does_not_know_is_an_error(colours, red_and_blue, examples):
    pipeline = pipeline_for(colours.card, **BOTH, labels=("gone",))
    with pytest.raises(LabelUnknownError):
        measure(red_and_blue, pipeline, colours.store, examples, Limits())
