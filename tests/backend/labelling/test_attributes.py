"""The `model_*` attributes: each value that can be, and what is said about one that cannot."""

import pytest

from heatbox.errors import LabelConfigError
from heatbox.labelling.attributes import Attributes
from heatbox.labelling.config import parse_label_config


def config(attributes="", label="", more=""):
    return parse_label_config(
        f'<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image" {attributes}>'
        f'<Label value="cat" {label}/><Label value="dog"/></RectangleLabels>{more}</View>'
    )


def polygons(attributes):
    return f'<PolygonLabels name="outline" toName="image" {attributes}><Label value="cat"/></PolygonLabels>'


@pytest.mark.parametrize(
    ("attribute", "written", "field", "value"),
    [
        ("model_name", "resnet@0123456789ab", "model", "resnet@0123456789ab"),
        ("model_explainer", "grad_cam", "explainer", "grad_cam"),
        ("model_fitter", " max_iou ", "fitter", "max_iou"),
        ("model_score_threshold", "0.4", "score_threshold", 0.4),
        ("model_score_threshold", "0", "score_threshold", 0.0),
        ("model_score_threshold", "1", "score_threshold", 1.0),
        ("model_box_threshold", "0.35", "box_threshold", 0.35),
        ("model_max_labels", "5", "max_labels", 5),
        ("model_labels", "$kind", "labels_key", "kind"),
    ],
)
def test_each_attribute_is_read(attribute, written, field, value):
    read = config(f'{attribute}="{written}"')
    assert read.attributes == Attributes(**{field: value})
    assert read.notes == ()


@pytest.mark.parametrize("attribute", ["model_explainer", "model_score_threshold", "model_labels"])
def test_an_empty_attribute_is_none(attribute):
    assert config(f'{attribute}=" "').attributes == Attributes()


def test_a_label_may_have_thresholds_of_its_own():
    cat, dog = config(label='model_score_threshold="0.1" model_box_threshold="0.6"').labels
    assert (cat.score_threshold, cat.box_threshold) == (0.1, 0.6)
    assert (dog.score_threshold, dog.box_threshold) == (None, None)


@pytest.mark.parametrize(
    ("attribute", "written", "nearest"),
    [
        ("model_explainer", "grad-camm", "nearest is grad_cam;"),
        ("model_explainer", "GradCAM", "nearest is grad_cam;"),
        ("model_fitter", "maxiou", "nearest is max_iou;"),
        ("model_score_threshold", "1.5", "from 0 to 1; the nearest is 1."),
        ("model_score_threshold", "-1", "nearest is 0."),
        ("model_score_threshold", "inf", "nearest is 1."),
        ("model_score_threshold", "nan", "such as 0.25."),
        ("model_score_threshold", "high", "such as 0.25."),
        ("model_box_threshold", "0", "nearest is 0.001."),
        ("model_box_threshold", "1", "nearest is 0.999."),
        ("model_max_labels", "0", "nearest is 1."),
        ("model_max_labels", "2.5", "whole number"),
        ("model_max_labels", "9999999999", "whole number"),
        ("model_labels", "kind", "nearest is $kind."),
        ("model_labels", "$a,$b", "nearest is $ab."),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_attribute_and_the_nearest_that_can(
    attribute, written, nearest
):
    with pytest.raises(LabelConfigError) as told:
        config(f'{attribute}="{written}"')
    assert told.value.sentence == f"<RectangleLabels> 'box' has {attribute}='{written}', which cannot be."
    assert nearest in told.value.remedy


@pytest.mark.parametrize(
    "attribute",
    ["model_name", "model_explainer", "model_score_threshold", "model_max_labels", "model_labels"],
)
def test_a_long_value_that_cannot_be_is_cut(attribute):
    with pytest.raises(LabelConfigError, match=f"has {attribute}='xxx") as told:
        config(f'{attribute}="{"x" * 9999}"')
    assert len(told.value.sentence) < 200
    assert "x" * 100 not in told.value.remedy


def test_a_long_attribute_that_nobody_knows_is_cut():
    (note,) = config(f'model_{"x" * 9999}="1"').notes
    assert len(note) < 200


@pytest.mark.parametrize("attribute", ["model_score_threshold", "model_box_threshold"])
def test_a_labels_own_value_that_cannot_be_names_the_label(attribute):
    with pytest.raises(LabelConfigError, match=f"<Label> 'cat' has {attribute}='2', which cannot be"):
        config(label=f'{attribute}="2"')


@pytest.mark.parametrize(
    ("attributes", "label", "remark"),
    [
        (
            'model_explainr="cam"',
            "",
            "<RectangleLabels> 'box': model_explainr is not known; the nearest is model_explainer.",
        ),
        (
            'model_path="yolov8n.pt"',
            "",
            "<RectangleLabels> 'box': model_path is not read; model_name names a registered model.",
        ),
        (
            "",
            'model_treshold="1"',
            "<Label> 'cat': model_treshold is not known; the nearest is model_box_threshold.",
        ),
    ],
)
def test_an_attribute_that_nobody_knows_is_a_remark_with_the_nearest(attributes, label, remark):
    assert config(attributes, label).notes == (remark,)


@pytest.mark.parametrize("first", ["", 'model_explainer="cam"'])
def test_an_attribute_may_stand_in_any_control_that_is_filled(first):
    assert config(first, more=polygons('model_explainer="cam"')).attributes.explainer == "cam"


def test_two_controls_that_choose_differently_are_both_named():
    with pytest.raises(LabelConfigError) as told:
        config('model_explainer="cam"', more=polygons('model_explainer="grad_cam"'))
    assert told.value.sentence == (
        "model_explainer is 'cam' in <RectangleLabels> 'box' and 'grad_cam' in <PolygonLabels> 'outline'."
    )
