"""What becomes of `heatbox run PATH...` before anything is written: real files, a real store, a real ledger."""

import json
import os
from pathlib import Path

import pytest

from heatbox.errors import (
    AddressRefusedError,
    LabelConfigError,
    LabelUnknownError,
    ModelNotFoundError,
    OptionError,
    OutputError,
    PictureNotFoundError,
    PluginNotFoundError,
)
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.pictures.wanted import Wanted
from heatbox.remote_store import open_store
from heatbox.runs.files import FilesRequest, prepare_files_run
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, ItemState
from heatbox.serving import serve_project, with_choices
from heatbox.settings import Settings

LISTS = (
    '<View><Image name="images" valueList="$photos"/><RectangleLabels name="box" toName="images">'
    '<Label value="cat"/></RectangleLabels></View>'
)


@pytest.fixture
def here(tmp_path, tiny_store):
    """Settings with the store of the tiny model and no Redis."""
    return Settings(home=tmp_path / "home", store=tiny_store, model="tiny")


@pytest.fixture
def prepare(here, tmp_path):
    """Prepare a run over paths."""

    def prepare(*paths, settings=here, **fields):
        request = FilesRequest(tuple(map(str, paths)), **{"out": tmp_path / "out.jsonl", **fields})
        return prepare_files_run(settings, request)

    return prepare


@pytest.fixture
def runs(here):
    ledger = Ledger(here.ledger_url)
    yield Runs(ledger)
    ledger.close()


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def annotate_all(runs, number):
    chunk = runs.take(number, 100)
    runs.settle(chunk, [Computed(item.id, {"result": []}, 0.1) for item in chunk.items])


def test_a_folder_becomes_items_with_real_paths_and_the_tasks_that_they_become(prepare, pictures):
    prepared = prepare(pictures, document_root=pictures.parent)
    assert (prepared.total, prepared.taken, prepared.known, prepared.wrong) == (12, 12, 0, 0)
    first = prepared.content[0]
    assert first.addresses == (os.path.realpath(pictures / "0.png"),)
    address = f"/data/local-files/?d={pictures.name}/0.png"
    assert first.content == {"data": {"image": address}, "predictions": []}


def test_the_version_is_the_one_that_the_service_has_for_the_same_settings(prepare, here, pictures, tmp_path):
    ledger = Ledger(here.ledger_url)
    own = parse_label_config(make_label_config(["cat"]))
    (tmp_path / "own.xml").write_text(make_label_config(["cat"]))
    for config, same in ((None, None), (tmp_path / "own.xml", own)):
        prepared = prepare(pictures, label_config=config)
        served = serve_project(here, open_store(here), ledger, same)
        assert prepared.new.pipeline.version == served.pipeline.version
    ledger.close()


def test_preparing_writes_no_run_and_no_file(prepare, runs, pictures, tmp_path):
    prepare(pictures)
    assert runs.newest() == []
    assert not (tmp_path / "out.jsonl").exists()


def test_a_created_run_has_the_items_in_order(prepare, runs, pictures):
    number = prepare(pictures / "3.png", pictures / "1.png").create(runs)
    assert [item.name for item in runs.items(number)] == [str(pictures / "3.png"), str(pictures / "1.png")]
    assert runs.find(number).out.endswith("/out.jsonl")


def test_a_picture_that_is_not_there_is_a_failed_item_and_costs_only_itself(prepare, runs, pictures):
    prepared = prepare(pictures / "0.png", "nowhere.png")
    assert prepared.wrong == 1
    _, wrong = runs.items(prepared.create(runs))
    assert (wrong.state, wrong.code) == (ItemState.FAILED, "picture-not-found")
    assert "nowhere.png" in wrong.reason
    assert wrong.content["data"] == {"image": "nowhere.png"}


def test_a_link_to_itself_is_a_failed_item(prepare, tmp_path, pictures):
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "a.png").symlink_to("a.png")
    (one, _) = prepare(tmp_path / "loop", pictures / "0.png").content
    assert one.code == "picture-not-found"


def test_where_no_picture_can_be_tried_the_reason_is_told(prepare):
    with pytest.raises(PictureNotFoundError, match="nowhere"):
        prepare("nowhere.png")


def test_the_limit_takes_the_first(prepare, pictures):
    prepared = prepare(pictures, most=2)
    assert (prepared.total, prepared.taken, len(prepared.content)) == (12, 2, 2)


def test_a_picture_of_an_earlier_run_is_known_until_the_file_or_the_version_changes(
    prepare, here, runs, pictures, tmp_path
):
    copy = tmp_path / "a.png"
    copy.write_bytes((pictures / "0.png").read_bytes())
    number = prepare(copy, pictures / "1.png").create(runs)
    assert prepare(copy).known == 0
    annotate_all(runs, number)
    assert prepare(copy, pictures / "2.png").known == 1
    (again,) = runs.items(prepare(copy).create(runs))
    assert again.state is ItemState.KEPT
    assert prepare(copy, settings=with_choices(here, threshold=0.7)).known == 0
    os.utime(copy, ns=(0, 0))
    assert prepare(copy).known == 0


def test_other_names_in_the_label_config_make_the_picture_another_one(prepare, runs, pictures, tmp_path):
    (tmp_path / "a.xml").write_text(make_label_config(["cat"]))
    (tmp_path / "b.xml").write_text(make_label_config(["cat"]).replace('name="label"', 'name="box"'))
    before = prepare(pictures, label_config=tmp_path / "a.xml")
    annotate_all(runs, before.create(runs))
    after = prepare(pictures, label_config=tmp_path / "b.xml")
    assert before.new.pipeline.version == after.new.pipeline.version
    assert (prepare(pictures, label_config=tmp_path / "a.xml").known, after.known) == (12, 0)


def test_a_tasks_file_keeps_its_tasks_but_not_our_older_predictions(prepare, pictures, tmp_path):
    ours, other = {"model_version": "heatbox-cam-tiny-0"}, {"model_version": "yolo"}
    task = {"id": 7, "data": {"photo": str(pictures / "0.png")}, "predictions": [ours, other], "counter": 1}
    (item,) = prepare(write_json(tmp_path / "tasks.json", [task]), data_key="photo").content
    assert item.name == "tasks.json#7"
    assert item.content == {"id": 7, "data": task["data"], "predictions": [other]}


def test_several_pictures_of_a_task_are_one_item(prepare, pictures, tmp_path):
    (tmp_path / "lists.xml").write_text(LISTS)
    both = [str(pictures / "0.png"), str(pictures / "1.png")]
    tasks = write_json(tmp_path / "tasks.json", [{"photos": both}, {"photos": [both[0], "gone.png"]}])
    prepared = prepare(tasks, label_config=tmp_path / "lists.xml")
    good, wrong = prepared.content
    assert good.addresses == tuple(map(os.path.realpath, both))
    assert wrong.code == "picture-not-found"
    (alone,) = prepare(
        pictures / "0.png", label_config=tmp_path / "lists.xml", document_root=pictures
    ).content
    assert alone.content["data"] == {"photos": ["/data/local-files/?d=0.png"]}


def test_each_picture_of_a_task_is_asked_for_what_is_known_of_it_alone(prepare, pictures, tmp_path):
    asked = '<Choices name="what" toName="images" perItem="true"><Choice value="cat"/></Choices></View>'
    (tmp_path / "lists.xml").write_text(LISTS.replace("</View>", asked))
    answer = {"from_name": "what", "item_index": 1, "value": {"choices": ["cat"]}}
    data = {"photos": [str(pictures / "0.png"), str(pictures / "1.png")]}
    tasks = write_json(
        tmp_path / "tasks.json", [{"id": 7, "data": data, "annotations": [{"result": [answer]}]}]
    )
    (item,) = prepare(tasks, label_config=tmp_path / "lists.xml").content
    assert [Wanted.from_text(text).labels for text in item.addresses] == [None, ("cat",)]


def test_a_list_is_no_address_where_the_label_config_shows_one_picture(prepare, pictures, tmp_path):
    tasks = write_json(
        tmp_path / "tasks.json", [{"image": [str(pictures / "0.png")]}, {"image": str(pictures / "0.png")}]
    )
    assert [item.code for item in prepare(tasks, data_key="image").content] == ["tasks-file", None]


def test_pictures_that_the_workers_may_not_read_are_told_before_anything_is_written(
    prepare, pictures, tmp_path
):
    linked, copied = tmp_path / "linked.png", tmp_path / "copied.png"
    linked.symlink_to(pictures / "0.png")
    copied.write_bytes(linked.read_bytes())
    assert prepare(linked, roots=(pictures,)).taken == 1
    with pytest.raises(AddressRefusedError, match="1 of 2 pictures") as told:
        prepare(linked, copied, roots=(pictures,))
    assert "--root" in told.value.remedy
    assert "HEATBOX_LOCAL_ROOTS" in told.value.remedy


def test_the_label_map_and_labels_without_a_class_are_told(prepare, pictures, tmp_path):
    (tmp_path / "own.xml").write_text(make_label_config(["Cat", "zebra"]))
    prepared = prepare(pictures, label_config=tmp_path / "own.xml")
    assert prepared.classes_by_label == {"Cat": ("cat",), "zebra": ()}
    assert any("zebra" in warning for warning in prepared.warnings)


def test_labels_that_were_asked_for_are_looked_for_however_written(prepare, pictures):
    prepared = prepare(pictures, labels=("CAT",))
    assert (prepared.new.pipeline.labels, prepared.classes_by_label) == (("CAT",), {"CAT": ("cat",)})
    assert parse_label_config(prepared.new.label_config).label_names == ("CAT",)


def test_the_data_key_is_that_of_the_tasks_and_of_the_label_config(prepare, pictures):
    prepared = prepare(pictures / "0.png", data_key="photo")
    assert list(prepared.content[0].content["data"]) == ["photo"]
    assert parse_label_config(prepared.new.label_config).data_key == "photo"


@pytest.mark.parametrize(
    ("choices", "fields", "error"),
    [
        ({"model": "resnet"}, {}, ModelNotFoundError),
        ({"explainer": "gradcam"}, {}, PluginNotFoundError),
        ({"fitter": "box"}, {}, PluginNotFoundError),
        ({"explainer_options": ("layer",)}, {}, OptionError),
        ({"fitter_options": ("=1",)}, {}, OptionError),
        ({}, {"labels": ("zebra",)}, LabelUnknownError),
        ({}, {"data_key": "two words"}, LabelConfigError),
        ({}, {"label_config": Path("none.xml")}, LabelConfigError),
    ],
)
def test_what_is_plainly_wrong_is_told_at_once(prepare, here, choices, fields, error):
    with pytest.raises(error):
        prepare("a.png", settings=with_choices(here, **choices), **fields)


def test_a_label_that_the_label_config_has_no_class_for_is_told(prepare, pictures, tmp_path):
    (tmp_path / "own.xml").write_text(make_label_config(["cat"]))
    with pytest.raises(LabelUnknownError, match="'dog'"):
        prepare(pictures, label_config=tmp_path / "own.xml", labels=("dog",))


@pytest.mark.parametrize("place", ["", "file.txt/out.jsonl"], ids=["a folder", "below a file"])
def test_a_place_that_could_not_be_written_in_the_morning_is_told(prepare, pictures, tmp_path, place):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare(pictures, out=tmp_path / place)


def test_a_new_folder_for_the_result_is_no_error(prepare, pictures, tmp_path):
    assert prepare(pictures, out=tmp_path / "new" / "folder" / "out.jsonl").taken == 12
    assert not (tmp_path / "new").exists()
