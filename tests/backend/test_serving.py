import json
import os
import shutil
from pathlib import Path

import pytest

from heatbox.errors import LabelUnknownError, ModelNotFoundError, PluginNotFoundError, SettingsError
from heatbox.fitted import HEADER, publish_state
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.serving import check_choices, serve_project
from heatbox.settings import Settings


@pytest.fixture
def serve(tmp_path, tiny_store):
    """Serve a project with these labels and settings."""

    def serve(labels=(), ledger=None, **settings):
        chosen = Settings(home=tmp_path, **{"store": tiny_store, "model": "tiny", **settings})
        control = parse_label_config(make_label_config(labels)).control if labels else None
        return serve_project(
            chosen,
            ModelStore(chosen.store_path),
            ledger or Ledger(f"sqlite:///{tmp_path}/ledger.sqlite"),
            control,
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
    assert serving.control.label_names == ("cat", "dog", "bird")
    assert serving.control.data_key == "image"


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


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": "nope"}, ModelNotFoundError),
        ({"explainer": "gradcam"}, PluginNotFoundError),
        ({"fitter": "nope"}, PluginNotFoundError),
        ({"local_roots": (Path("/nonexistent"),)}, SettingsError),
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
    assert serve(explainer="anomaly", store=fitted.store).control.label_names == ("anomaly",)
    assert serve(store=fitted.store).control.label_names == ("cat", "dog", "bird")


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
