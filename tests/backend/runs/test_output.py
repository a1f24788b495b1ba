"""The result of a run over files, from a real ledger."""

import json

import pytest

from heatbox.errors import OutputError, RunNotFoundError, RunStateError
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.runs.output import write_results
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, Failed, NewItem, NewRun

CONFIG = make_label_config(["cat", "dog", "bird"])
PIPELINE = Pipeline("tiny@0123456789ab")


@pytest.fixture
def runs(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield Runs(ledger)
    ledger.close()


def new_run(**fields):
    return NewRun("photos", PIPELINE, **{"label_config": CONFIG, **fields})


def picture(name, **fields):
    content = {"data": {"image": f"/data/local-files/?d=photos/{name}"}, "predictions": []}
    return NewItem(name, (f"/photos/{name}",), **{"content": content, **fields})


def found(*labels):
    regions = [{"type": "rectanglelabels", "value": {"rectanglelabels": [label]}} for label in labels]
    return {"result": regions, "score": 0.5, "model_version": PIPELINE.version}


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def settle(runs, number, *labels_of_each):
    """Let the next items be annotated with these labels; None: it fails."""
    chunk = runs.take(number, len(labels_of_each))
    runs.settle(
        chunk,
        [
            Failed(item.id, "picture-memory", "Too large.")
            if labels is None
            else Computed(item.id, found(*labels), 0.1)
            for item, labels in zip(chunk.items, labels_of_each, strict=True)
        ],
    )


def test_each_item_is_one_line_in_the_order_in_which_it_came(runs, tmp_path):
    number = runs.create(new_run(), [picture("b.png"), picture("a.png"), picture("c.png")])
    settle(runs, number, ["cat"], None, [])
    written = write_results(runs, number, tmp_path / "out.jsonl")
    assert (written.lines, written.failed, written.left) == (3, 1, 0)
    first, second, third = read(tmp_path / "out.jsonl")
    assert first == {"data": {"image": "/data/local-files/?d=photos/b.png"}, "predictions": [found("cat")]}
    assert second["data"] == {"image": "/data/local-files/?d=photos/a.png"}
    assert second["error"] == {"code": "picture-memory", "message": "Too large."}
    assert second["predictions"] == []
    assert third["predictions"] == [found()]


def test_a_run_that_is_under_way_gives_what_has_ended_and_says_what_is_left(runs, tmp_path):
    number = runs.create(new_run(), [picture("a.png"), picture("b.png")])
    settle(runs, number, ["cat"])
    written = write_results(runs, number, tmp_path / "out.jsonl")
    assert (written.lines, written.left) == (1, 1)
    assert len(read(tmp_path / "out.jsonl")) == 1


def test_a_task_keeps_its_id_its_human_annotation_and_other_models_predictions(runs, tmp_path):
    others = [{"model_version": "yolo", "result": []}]
    task = {"id": 7, "data": {"image": "a.png"}, "annotations": [{"result": []}], "predictions": others}
    number = runs.create(new_run(), [picture("a.png", content=task)])
    settle(runs, number, ["dog"])
    write_results(runs, number, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl") == [{**task, "predictions": [*others, found("dog")]}]


def test_a_picture_that_an_earlier_run_annotated_has_that_prediction(runs, tmp_path):
    settle(runs, runs.create(new_run(), [picture("a.png", fingerprint="f")]), ["cat"])
    number = runs.create(new_run(), [picture("a.png", fingerprint="f")])
    assert write_results(runs, number, tmp_path / "out.jsonl").left == 0
    assert read(tmp_path / "out.jsonl")[0]["predictions"] == [found("cat")]


def test_beside_it_comes_a_label_config_with_what_was_found_unless_the_user_has_one(runs, tmp_path):
    made = runs.create(new_run(), [picture("a.png")])
    settle(runs, made, ["dog", "cat"])
    written = write_results(runs, made, tmp_path / "out.jsonl")
    assert parse_label_config(written.label_config.read_text()).label_names == ("cat", "dog")
    own = runs.create(new_run(label_config=CONFIG.replace('"label"', '"box"')), [picture("a.png")])
    settle(runs, own, ["dog"])
    assert write_results(runs, own, tmp_path / "own.jsonl").label_config is None
    assert not (tmp_path / "own.config.xml").exists()


def test_an_older_file_stays_where_the_new_one_cannot_be_written_whole(runs, tmp_path):
    (tmp_path / "out.jsonl").write_text("older")
    with pytest.raises(RunNotFoundError):
        write_results(runs, 5, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "older"
    with pytest.raises(OutputError):
        write_results(runs, runs.create(new_run()), tmp_path)


def test_of_a_run_over_a_project_it_is_told_where_its_predictions_are(runs, tmp_path):
    with pytest.raises(RunStateError, match="Label Studio"):
        write_results(runs, runs.create(new_run(project=3)), tmp_path / "out.jsonl")


def test_a_file_name_that_is_no_unicode_is_written(runs, tmp_path):
    task = {"data": {"image": "\udcff.png"}, "predictions": []}
    number = runs.create(new_run(), [picture("x.png", content=task)])
    settle(runs, number, ["cat"])
    write_results(runs, number, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")[0]["data"] == task["data"]
