"""Pipelines: the version is one pure function of what decides the boxes."""

import dataclasses
import json
from pathlib import Path

import pytest

from heatbox.fitted import FittedState
from heatbox.models import Card
from heatbox.pipeline import Pipeline, Way, pipeline_for

PIPELINE = Pipeline(
    model="mobilenet_v2@0123456789ab",
    explainer="grad_cam",
    explainer_options={"layer": "features.17", "relu": True},
    fitter="components",
    fitter_options={"threshold": 0.4, "min_area": 0.01},
    label_map=(("tabby", "cat"),),
)

WAY = Way("layer_cam", {"layers": ["features.7"]}, "max_iou", {"threshold": 0.3}, "0123456789ab")
CHANGES = {
    "model": "mobilenet_v2@ba9876543210",
    "explainer": "cam",
    "explainer_options": {"layer": "features.18", "relu": True},
    "fitter": "enclosing",
    "fitter_options": {"threshold": 0.41, "min_area": 0.01},
    "normalisation": "minmax",
    "min_probability": 0.26,
    "max_labels": 4,
    "labels": ("cat",),
    "label_map": (("tabby", "Cat"),),
    "min_mask_iou": 0.5,
    "min_crop_probability": 0.2,
    "state": "0123456789ab",
    "own_label": "anomaly",
    "kinds": ("brushlabels", "rectanglelabels"),
    "label_thresholds": (("cat", 0.3),),
    "label_min_probabilities": (("cat", 0.1),),
    "labels_from": "kind",
    "calibration": ((0.0, 0.1), (1.0, 0.9)),
    "label_ways": (("cat", WAY),),
}


def test_the_version_is_the_one_that_label_studio_already_knows():
    """A failure here means that every prediction ever made counts as another version's: change it knowingly."""
    assert PIPELINE.version == "heatbox-grad_cam-mobilenet_v2-03c9290ffe"


def test_the_order_of_options_does_not_change_the_version():
    options = dict(reversed(PIPELINE.fitter_options.items()))
    reordered = dataclasses.replace(PIPELINE, fitter_options=options)
    assert list(reordered.fitter_options) != list(PIPELINE.fitter_options)
    assert (reordered.version, hash(reordered)) == (PIPELINE.version, hash(PIPELINE))
    assert reordered == PIPELINE


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Pipeline)])
def test_another_value_of_any_field_is_another_version(field):
    assert dataclasses.replace(PIPELINE, **{field: CHANGES[field]}).version != PIPELINE.version


def test_a_self_check_that_is_off_is_not_named_so_that_older_versions_stay():
    off = dataclasses.replace(PIPELINE, min_mask_iou=0.0, min_crop_probability=0.0)
    assert off.as_dict().keys().isdisjoint({"min_mask_iou", "min_crop_probability"})
    assert dataclasses.replace(PIPELINE, min_mask_iou=0.5).as_dict()["min_mask_iou"] == 0.5


def test_what_no_explainer_has_learnt_is_not_named_so_that_older_versions_stay():
    assert PIPELINE.as_dict().keys().isdisjoint({"state", "own_label"})
    fitted = dataclasses.replace(PIPELINE, state="0123456789ab", own_label="anomaly")
    assert (fitted.as_dict()["state"], fitted.as_dict()["own_label"]) == ("0123456789ab", "anomaly")


def test_what_no_label_config_chooses_is_not_named_so_that_older_versions_stay():
    later = {
        "kinds",
        "label_thresholds",
        "label_min_probabilities",
        "labels_from",
        "calibration",
        "label_ways",
    }
    assert PIPELINE.as_dict().keys().isdisjoint(later)
    chosen = dataclasses.replace(PIPELINE, **{field: CHANGES[field] for field in later})
    assert later < chosen.as_dict().keys()


def test_a_label_without_a_probability_of_its_own_has_that_of_all():
    pipeline = dataclasses.replace(PIPELINE, label_min_probabilities=(("cat", 0.9),))
    assert [pipeline.min_probability_of(label) for label in ("cat", "dog")] == [0.9, 0.25]


@pytest.mark.parametrize(
    "pipeline",
    [
        PIPELINE,
        Pipeline("tiny@0"),
        Pipeline("tiny@0", labels=("a", "b")),
        Pipeline("tiny@0", min_mask_iou=0.5, min_crop_probability=0.2),
        Pipeline("tiny@0", state="0123456789ab", own_label="anomaly"),
        Pipeline("tiny@0", kinds=("choices", "polygonlabels"), labels_from="kind"),
        Pipeline("tiny@0", label_thresholds=(("a", 0.3),), label_min_probabilities=(("a", 0.1), ("b", 0.2))),
        Pipeline("tiny@0", calibration=((0.0, 0.1), (1.0, 0.9))),
        Pipeline("tiny@0", label_ways=(("a", WAY), ("b", Way("cam")))),
    ],
)
def test_a_pipeline_survives_json_with_its_version(pipeline):
    back = Pipeline.from_dict(json.loads(json.dumps(pipeline.as_dict())))
    assert back == pipeline
    assert back.version == pipeline.version


def test_the_version_is_readable_and_safe_in_any_file_name_or_address():
    assert Pipeline("my model/ä@0").version.startswith("heatbox-fused_cam-my-model-")


def test_later_changes_to_the_given_options_do_not_reach_the_pipeline():
    options = {"threshold": 0.4}
    pipeline = Pipeline("tiny@0", fitter_options=options)
    options["threshold"] = 0.5
    assert pipeline.fitter_options == {"threshold": 0.4}
    with pytest.raises(TypeError):
        pipeline.fitter_options["threshold"] = 0.5


@pytest.mark.parametrize(("given", "options"), [(0.5, {"threshold": 0.5}), (None, {})])
def test_a_threshold_is_in_the_pipeline_only_when_it_was_given(given, options):
    card = Card(name="m", architecture="heatbox/tiny", labels=("a",), input_size=64, box_threshold=0.2)
    pipeline = pipeline_for(card, given, explainer="cam")
    assert pipeline.fitter_options == options
    assert (pipeline.model, pipeline.explainer) == (card.id, "cam")


def test_a_threshold_among_the_fitters_options_wins():
    card = Card(name="m", architecture="heatbox/tiny", labels=("a",), input_size=64)
    pipeline = pipeline_for(card, 0.5, fitter_options={"threshold": 0.6, "max_boxes": 2})
    assert pipeline.fitter_options == {"threshold": 0.6, "max_boxes": 2}


def test_an_explainer_that_learnt_has_the_options_that_it_learnt_with():
    card = Card(name="m", architecture="heatbox/tiny", labels=("a",), input_size=64)
    state = FittedState("anomaly", "0123456789ab", Path("state"), {"bank": 7, "seed": 1}, "anomaly", 3)
    pipeline = pipeline_for(card, state=state, explainer="anomaly", explainer_options={"seed": 1})
    assert pipeline.explainer_options == {"bank": 7, "seed": 1}
    assert (pipeline.state, pipeline.own_label) == ("0123456789ab", "anomaly")
    assert pipeline_for(card, explainer="anomaly").state == ""
