"""The batch behind `heatbox annotate`: files and tasks in, import file, label config and page out."""

import inspect
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heatbox.errors import (
    LabelConfigError,
    LabelUnknownError,
    ModelNotFoundError,
    OutputError,
    PictureError,
    UnsupportedError,
)
from heatbox.import_file import config_path
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.remote_store import open_store
from heatbox.serving import serve_project
from heatbox.settings import Settings
from heatbox_workers.batch import Request, prepare
from heatbox_workers.commands.annotate import annotate
from heatbox_workers.commands.demo import demo
from heatbox_workers.demo.run import Demo

LABELS = ("cat", "dog", "bird")  # of the fixture's model


@pytest.fixture
def settings(tmp_path, tiny_store):
    return Settings(home=tmp_path / "home", store=tiny_store)


@pytest.fixture
def folder(tmp_path):
    """Two pictures and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(random.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(folder / name)
    (folder / "c.jpg").write_text("<html>")
    return folder


def run(settings, tmp_path, *paths, html=None, **fields):
    """Prepare a request, write everything, and return the summary and the import file's tasks."""
    request = Request(tuple(map(str, paths)), model="tiny", **{"min_probability": 0.0, **fields})
    batch = prepare(request, settings)
    summary = batch.write(batch.annotate(), tmp_path / "out.json", html)
    return summary, json.loads((tmp_path / "out.json").read_text())


def test_a_folder_becomes_an_import_file_and_the_bad_picture_is_reported(settings, folder, tmp_path):
    summary, tasks = run(settings, tmp_path, folder)
    assert summary.pictures == 3
    assert [(Path(name).name, error.code) for name, error in summary.failed] == [
        ("c.jpg", "picture-unreadable")
    ]
    assert [Path(task["data"]["image"]).name for task in tasks] == ["a.png", "b.jpg"]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"].startswith("heatbox-fused_cam-tiny-")
    assert {region["value"]["rectanglelabels"][0] for region in prediction["result"]} <= set(LABELS)
    assert summary.boxes.total() == sum(len(task["predictions"][0]["result"]) for task in tasks)


def test_where_no_picture_can_be_annotated_an_older_file_stays(settings, folder, tmp_path):
    run(settings, tmp_path, folder)
    before = (tmp_path / "out.json").read_bytes()
    for nothing in (folder / "c.jpg", tmp_path / "nowhere"):
        with pytest.raises(PictureError):
            run(settings, tmp_path, nothing, html=tmp_path / "page.html")
    assert (tmp_path / "out.json").read_bytes() == before
    assert not (tmp_path / "page.html").exists()


def test_files_are_named_relative_to_the_document_root(settings, folder, tmp_path):
    _, tasks = run(settings, tmp_path, folder / "a.png", document_root=tmp_path)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/a.png"


def test_a_file_outside_the_document_root_is_told(settings, folder, tmp_path):
    with pytest.raises(OutputError, match="document root"):
        run(settings, tmp_path, folder / "a.png", document_root=tmp_path / "elsewhere")
    assert not (tmp_path / "out.json").exists()


def test_tasks_keep_their_data_and_a_failed_one_comes_without_a_prediction(settings, folder, tmp_path):
    tasks = [
        {"id": 7, "data": {"photo": str(folder / "a.png"), "note": "kept"}},
        {"id": 8, "data": {"photo": str(folder / "gone.png")}},
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    summary, written = run(settings, tmp_path, tmp_path / "tasks.json", data_key="photo")
    assert [task["id"] for task in written] == [7, 8]
    assert written[0]["data"] == tasks[0]["data"]
    assert [len(task["predictions"]) for task in written] == [1, 0]
    assert [error.code for _, error in summary.failed] == ["picture-not-found"]


def test_the_label_config_is_written_only_where_the_user_has_none(settings, folder, tmp_path):
    summary, _ = run(settings, tmp_path, folder)
    written = parse_label_config(config_path(tmp_path / "out.json").read_text())
    assert written.label_names == tuple(sorted(summary.boxes))
    config_path(tmp_path / "out.json").unlink()
    (tmp_path / "own.xml").write_text(make_label_config(LABELS))
    run(settings, tmp_path, folder, label_config=tmp_path / "own.xml")
    assert not config_path(tmp_path / "out.json").exists()


def test_a_label_config_gives_names_and_labels(settings, folder, tmp_path):
    config = (
        '<View><Image name="photo" value="$url"/><RectangleLabels name="box" toName="photo">'
        '<Label value="Pet" predicted_values="cat,dog"/></RectangleLabels></View>'
    )
    (tmp_path / "own.xml").write_text(config)
    _, tasks = run(settings, tmp_path, folder / "a.png", label_config=tmp_path / "own.xml")
    (region, *_) = tasks[0]["predictions"][0]["result"]
    assert (region["from_name"], region["to_name"]) == ("box", "photo")
    assert region["value"]["rectanglelabels"] == ["Pet"]
    assert "url" in tasks[0]["data"]


TOLD = (
    '<View><Image name="photo" value="$image"/><RectangleLabels name="box" toName="photo" {}>'
    '<Label value="cat"/><Label value="dog" model_box_threshold="0.5"/></RectangleLabels>'
    '<PolygonLabels name="p" toName="photo"><Label value="cat"/><Label value="dog"/></PolygonLabels>'
    '<Choices name="what" toName="photo"><Choice value="cat"/><Choice value="dog"/></Choices></View>'
)


@pytest.fixture
def told(folder, tmp_path):
    """Write a label config with attributes, and a tasks file of the first picture."""

    def told(attributes="", annotations=(), **data):
        (tmp_path / "own.xml").write_text(TOLD.format(attributes))
        task = {"id": 1, "data": {"image": str(folder / "a.png"), **data}, "annotations": list(annotations)}
        (tmp_path / "tasks.json").write_text(json.dumps([task]))
        return tmp_path / "tasks.json"

    return told


def labels_of(tasks):
    shapes = [one for one in tasks[0]["predictions"][0]["result"] if one["type"] != "choices"]
    return {one["value"][one["type"]][0] for one in shapes}


@pytest.mark.parametrize("label", ["cat", "dog"])
def test_what_a_task_says_of_its_picture_is_looked_for_and_nothing_else(settings, told, tmp_path, label):
    key = {"label_config": tmp_path / "own.xml", "data_key": "image", "min_probability": 1.0}
    _, tasks = run(settings, tmp_path, told('model_labels="$kind"', kind=[label]), **key)
    assert labels_of(tasks) == {label}
    answer = {"result": [{"from_name": "what", "value": {"choices": [label]}}]}
    _, tasks = run(settings, tmp_path, told(annotations=[answer]), **key)
    assert labels_of(tasks) == {label}
    _, tasks = run(settings, tmp_path, told(), **key)
    assert labels_of(tasks) == set()


def test_the_version_is_the_services_where_the_options_are_those_of_its_settings(settings, told, tmp_path):
    config = parse_label_config(TOLD.format('model_labels="$kind"'))
    ledger = Ledger(settings.ledger_url)
    served = serve_project(
        settings.model_copy(update={"model": "tiny"}), open_store(settings), ledger, config
    )
    ledger.close()
    request = Request(
        (str(told('model_labels="$kind"')),),
        model="tiny",
        label_config=tmp_path / "own.xml",
        data_key="image",
    )
    batch = prepare(request, settings)
    assert batch.pipeline.version == served.pipeline.version
    assert batch.warnings == ()


def test_attributes_that_the_options_decide_change_no_version_and_are_told(settings, told, tmp_path):
    def prepared(attributes):
        request = Request((str(told(attributes)),), model="tiny", label_config=tmp_path / "own.xml")
        return prepare(request, settings)

    others = (
        'model_explainer="grad_cam" model_score_threshold="0.9" model_max_labels="1" model_fitter="max_iou"'
    )
    plain, other = prepared(""), prepared(others)
    assert other.pipeline.version == plain.pipeline.version
    assert plain.warnings == ()
    assert [warning for warning in other.warnings if "options of the command decide" in warning]


def test_a_label_that_was_asked_for_is_looked_for_in_every_picture_however_it_is_written(
    settings, folder, tmp_path
):
    _, tasks = run(settings, tmp_path, folder, labels=("BIRD",), min_probability=1.0)
    labels = [
        label
        for task in tasks
        for region in task["predictions"][0]["result"]
        for label in region["value"]["rectanglelabels"]
    ]
    assert set(labels) == {"BIRD"}


def test_the_same_request_twice_writes_the_same_bytes(settings, folder, tmp_path):
    run(settings, tmp_path, folder)
    first = (tmp_path / "out.json").read_bytes()
    run(settings, tmp_path, folder)
    assert (tmp_path / "out.json").read_bytes() == first


def test_the_page_shows_every_picture_and_the_failed_one(settings, folder, tmp_path):
    run(settings, tmp_path, folder, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert all(name in page for name in ("a.png", "b.jpg", "c.jpg", "picture-unreadable"))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "nothing-like-it"}, ModelNotFoundError),
        ({"model": "tiny@ffff"}, ModelNotFoundError),
        ({"labels": ("cow",)}, LabelUnknownError),
        ({"labels": ("cat", "cow")}, LabelUnknownError),
        ({"label_config": Path("none.xml")}, LabelConfigError),
        ({"explainer": "cam", "explainer_options": ("layer=features.0",)}, UnsupportedError),
    ],
)
def test_a_request_that_cannot_be_met_is_told_before_anything_is_written(settings, folder, fields, error):
    with pytest.raises(error):
        prepare(Request((str(folder),), **{"model": "tiny", **fields}), settings)


def test_without_a_model_the_active_one_is_taken(settings, folder):
    with pytest.raises(ModelNotFoundError, match="active"):
        prepare(Request((str(folder),)), settings)
    Ledger(settings.ledger_url).activate("tiny")
    assert prepare(Request((str(folder),)), settings).pipeline.model.startswith("tiny@")


def test_the_command_the_request_the_settings_and_the_pipeline_have_the_same_defaults():
    command = {name: one.default for name, one in inspect.signature(annotate).parameters.items()}
    pipeline = {field.name: field.default for field in fields(Pipeline)}
    request = {field.name: field.default for field in fields(Request)}
    for name in ("explainer", "fitter", "min_probability", "max_labels"):
        assert command[name] == request[name] == Settings.model_fields[name].default == pipeline[name]


def test_the_demo_command_has_the_demos_defaults():
    command = {name: one.default for name, one in inspect.signature(demo).parameters.items()}
    made = Demo()
    assert (command["pictures"], command["held_out"], command["epochs"], command["seed"]) == (
        made.training,
        made.held_out,
        made.epochs,
        made.seed,
    )
