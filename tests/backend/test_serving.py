import json
import os
import shutil
from pathlib import Path

import pytest

from heatbox.errors import (
    LabelConfigError,
    LabelUnknownError,
    ModelNotFoundError,
    PluginNotFoundError,
    SettingsError,
)
from heatbox.fitted import HEADER, publish_state
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.serving import check_choices, serve_project, with_choices
from heatbox.settings import Settings


@pytest.fixture
def serve(tmp_path, tiny_store):
    """Serve a project with these labels and settings."""

    def serve(labels=(), ledger=None, **settings):
        chosen = Settings(home=tmp_path, **{"store": tiny_store, "model": "tiny", **settings})
        config = parse_label_config(make_label_config(labels)) if labels else None
        return serve_project(
            chosen,
            ModelStore(chosen.store_path),
            ledger or Ledger(f"sqlite:///{tmp_path}/ledger.sqlite"),
            config,
        )

    return serve


def test_the_same_project_gets_the_same_version(serve):
    assert serve(["Cat", "Dog"]).pipeline.version == serve(["Cat", "Dog"]).pipeline.version


@pytest.mark.parametrize(
    "changed",
    [
        {"explainer": "cam"},
        {"fitter": "enclosing"},
        {"threshold": 0.4},
        {"min_probability": 0.1},
        {"max_labels": 2},
    ],
)
def test_whatever_changes_the_boxes_changes_the_version(serve, changed):
    assert serve(["cat"]).pipeline.version != serve(["cat"], **changed).pipeline.version


def test_other_labels_are_another_version(serve):
    assert serve(["cat"]).pipeline.version != serve(["dog"]).pipeline.version


def test_without_a_label_config_every_class_is_a_label_of_the_image(serve):
    serving = serve()
    assert serving.config.label_names == ("cat", "dog", "bird")
    assert serving.config.data_key == "image"


def test_labels_without_a_class_are_told(serve):
    assert any("zebra" in warning for warning in serve(["cat", "zebra"]).warnings)


def test_the_active_model_is_served_when_the_settings_name_none(serve, tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/other.sqlite")
    ledger.activate("tiny")
    assert serve(["cat"], ledger, model="").pipeline.model.startswith("tiny@")


@pytest.mark.parametrize(
    ("settings", "labels", "error"),
    [
        ({"model": ""}, ["cat"], ModelNotFoundError),
        ({"model": "resnet"}, ["cat"], ModelNotFoundError),
        ({"explainer": "gradcam"}, ["cat"], PluginNotFoundError),
        ({"fitter": "box"}, ["cat"], PluginNotFoundError),
        ({}, ["zebra"], LabelUnknownError),
    ],
)
def test_what_cannot_be_served_is_an_error(serve, settings, labels, error):
    with pytest.raises(error):
        serve(labels, **settings)


@pytest.fixture
def project(tmp_path, tiny_store):
    """Serve a project with attributes in its label config."""

    def project(attributes="", label="", more="", given=(), **settings):
        chosen = Settings(home=tmp_path, **{"store": tiny_store, "model": "tiny", **settings})
        config = parse_label_config(
            f'<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image" {attributes}>'
            f'<Label value="cat" {label}/><Label value="dog"/></RectangleLabels>{more}</View>'
        )
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
        return serve_project(chosen, ModelStore(chosen.store_path), ledger, config, given)

    return project


@pytest.mark.parametrize(
    ("attribute", "setting", "field", "expected"),
    [
        ('model_explainer="cam"', {"explainer": "grad_cam"}, "explainer", "cam"),
        ('model_fitter="max_iou"', {"fitter": "enclosing"}, "fitter", "max_iou"),
        ('model_score_threshold="0.4"', {"min_probability": 0.1}, "min_probability", 0.4),
        ('model_box_threshold="0.4"', {"threshold": 0.2}, "fitter_options", {"threshold": 0.4}),
        (
            'model_box_threshold="0.4"',
            {"fitter_options": ("threshold=0.2", "max_boxes=3")},
            "fitter_options",
            {"threshold": 0.4, "max_boxes": "3"},
        ),
        ('model_max_labels="7"', {"max_labels": 1}, "max_labels", 7),
    ],
)
def test_the_label_config_goes_before_the_settings(project, attribute, setting, field, expected):
    assert getattr(project(attribute, **setting).pipeline, field) == expected
    assert getattr(project(**setting).pipeline, field) != expected


@pytest.mark.parametrize(
    ("attribute", "setting", "field", "expected"),
    [
        ('model_explainer="cam"', {"explainer": "grad_cam"}, "explainer", "grad_cam"),
        ('model_score_threshold="0.4"', {"min_probability": 0.1}, "min_probability", 0.1),
        ('model_box_threshold="0.4"', {"threshold": 0.2}, "fitter_options", {"threshold": 0.2}),
        (
            'model_box_threshold="0.4"',
            {"fitter_options": ("threshold=0.2",)},
            "fitter_options",
            {"threshold": "0.2"},
        ),
    ],
)
def test_what_was_given_by_hand_goes_before_the_label_config(project, attribute, setting, field, expected):
    assert getattr(project(attribute, given=setting, **setting).pipeline, field) == expected


def test_another_explainer_than_the_settings_does_not_get_their_options(project):
    options = {"explainer": "rise", "explainer_options": ("masks=5",)}
    assert project('model_explainer="cam"', **options).pipeline.explainer_options == {}
    assert project('model_explainer="rise"', **options).pipeline.explainer_options == {"masks": "5"}


def test_the_label_config_names_a_registered_model(project):
    named = project('model_name="tiny"', model="")
    assert named.pipeline.model.startswith("tiny@")


def test_a_model_that_is_not_there_is_told_with_the_nearest_that_is(project):
    with pytest.raises(LabelConfigError, match=r"model_name='tinny'.*The nearest is 'tiny'"):
        project('model_name="tinny"')


def test_a_long_name_of_a_model_that_is_not_there_is_cut(project):
    with pytest.raises(LabelConfigError) as told:
        project(f'model_name="{"tin" * 60}"')
    assert len(told.value.sentence) < 200


def test_a_model_that_was_given_by_hand_and_is_not_there_is_not_the_label_configs_fault(project):
    with pytest.raises(ModelNotFoundError):
        project('model_name="tiny"', given={"model"}, model="resnet")


def test_labels_own_thresholds_kinds_and_the_key_of_known_labels_are_in_the_pipeline(project):
    polygons = '<PolygonLabels name="outline" toName="image"><Label value="cat"/></PolygonLabels>'
    label = 'model_score_threshold="0.1" model_box_threshold="0.6"'
    pipeline = project('model_labels="$kind"', label, polygons).pipeline
    assert pipeline.label_min_probabilities == (("cat", 0.1),)
    assert pipeline.label_thresholds == (("cat", 0.6),)
    assert (pipeline.kinds, pipeline.labels_from) == (("polygonlabels", "rectanglelabels"), "kind")


def test_a_label_config_without_attributes_has_the_version_that_it_always_had(project):
    pipeline = project().pipeline
    later = {"kinds", "label_thresholds", "label_min_probabilities", "labels_from", "calibration"}
    assert later.isdisjoint(pipeline.as_dict())


def test_remarks_about_attributes_are_warnings(project):
    assert any("model_explainr" in told for told in project('model_explainr="cam"').warnings)


def test_the_labels_that_can_be_found_are_those_with_a_class(serve):
    assert serve(["cat", "zebra"]).labels == {"cat"}
    assert serve().labels == {"cat", "dog", "bird"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": "nope"}, ModelNotFoundError),
        ({"explainer": "gradcam"}, PluginNotFoundError),
        ({"fitter": "nope"}, PluginNotFoundError),
        ({"local_roots": (Path("/nonexistent"),)}, SettingsError),
        ({"studio_url": "localhost:8080", "studio_api_key": "0" * 40}, SettingsError),
        ({"ca_file": Path("/nonexistent.pem")}, SettingsError),
    ],
)
def test_what_is_not_there_is_told_before_anything_starts(tmp_path, changes, error):
    with pytest.raises(error):
        check_choices(Settings(home=tmp_path, **changes))


def test_no_model_yet_is_no_reason_not_to_start(tmp_path):
    check_choices(Settings(home=tmp_path))


@pytest.fixture
def fitted(tmp_path, tiny_store):
    """Return what makes `anomaly` learn about the model of a store of this test's own, each time a second later."""
    store = ModelStore(shutil.copytree(tiny_store, tmp_path / "own"))
    times = iter(range(1_000_000_000, 1_000_000_100))

    def fit(**options):
        about = {"explainer": "anomaly", "options": options, "label": "anomaly", "examples": 3}
        header = json.dumps({"__metadata__": {HEADER: json.dumps(about)}}).encode()
        content = len(header).to_bytes(8, "little") + header
        write = lambda path: path.write_bytes(content)  # noqa: E731 - said once
        state = publish_state(store, store.find("tiny"), "anomaly", write)
        os.utime(state.path, (next(times),) * 2)
        return state

    fit.store = store.folder
    return fit


def test_an_explainer_with_a_label_of_its_own_serves_that_label(serve, fitted):
    state = fitted(bank=7)
    serving = serve(["zebra", "Anomaly"], explainer="anomaly", store=fitted.store)
    assert serving.pipeline.label_map == (("anomaly", "Anomaly"),)
    assert serving.pipeline.explainer_options == {"bank": 7}
    assert (serving.pipeline.own_label, serving.pipeline.state) == ("anomaly", state.id)
    assert any("zebra" in warning for warning in serving.warnings)


def test_without_a_label_config_its_own_label_is_the_only_one(serve, fitted):
    fitted()
    assert serve(explainer="anomaly", store=fitted.store).config.label_names == ("anomaly",)
    assert serve(store=fitted.store).config.label_names == ("cat", "dog", "bird")


def test_classes_are_no_labels_of_an_explainer_with_its_own(serve, fitted):
    fitted()
    with pytest.raises(LabelUnknownError):
        serve(["cat"], explainer="anomaly", store=fitted.store)


def test_learning_again_is_another_version_and_leaves_other_explainers_alone(serve, fitted):
    def versions():
        return [
            serve(["anomaly", "cat"], explainer=name, store=fitted.store).pipeline.version
            for name in ("anomaly", "fused_cam")
        ]

    fitted(bank=7)
    before = versions()
    fitted(bank=8)
    after = versions()
    assert before[0] != after[0]
    assert before[1] == after[1] == serve(["anomaly", "cat"]).pipeline.version


def test_what_is_not_chosen_stays_as_the_settings_say():
    here = Settings()
    assert with_choices(here, model=None, threshold=None) == here
    assert with_choices(here, threshold=0.3).threshold == 0.3


def test_options_are_added_but_another_explainer_has_only_its_own():
    own = Settings(explainer="rise", explainer_options=("masks=10", "seed=1"))
    same = with_choices(own, explainer="rise", explainer_options=("masks=5",))
    assert same.explainer_options == ("masks=10", "seed=1", "masks=5")
    assert with_choices(own, explainer="cam").explainer_options == ()
    assert with_choices(own, fitter="max_iou").explainer_options == own.explainer_options
