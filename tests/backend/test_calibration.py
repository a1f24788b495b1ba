"""Calibrated scores: which boxes people kept, what the ledger keeps, and which version a project has by it."""

from contextlib import closing

import pytest
from fixtures_redis import LABELS, served

from heatbox.calibration import (
    JudgedBox,
    calibrated,
    forget_calibration,
    judge,
    known_versions,
    store_calibration,
    uncalibrated,
)
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox.serving import serve_project
from heatbox.studio.corrections import AnsweredTask

PAIRS = ((0.1, 0.05), (0.9, 0.8))
OWN = "heatbox-grad_cam-test-0123456789"
OTHER = "heatbox-cam-test-abcdef0123"
PIPELINE = Pipeline("tiny@1")
CONFIG = make_label_config(LABELS)


@pytest.fixture
def ledger(ledger_url):
    with closing(Ledger(ledger_url)) as ledger:
        yield ledger


def box(x=10, y=10, side=20, label="cat", kind="rectanglelabels", **more):
    value = {"x": x, "y": y, "width": side, "height": side, "rotation": 0, kind: [label]}
    return {"type": kind, "from_name": "label", "to_name": "image", "value": value, **more}


def predicted(*regions, version=OWN, number=1):
    return {"id": number, "model_version": version, "result": list(regions)}


def annotated(*regions, number=1, **more):
    at = f"2026-01-0{number}T00:00:00.000000Z"
    return {"id": number, "result": list(regions), "was_cancelled": False, "updated_at": at, **more}


def kept(predictions, *annotations):
    """Return raw score and verdict of each box of a task."""
    found = judge([AnsweredTask(7, annotations, predictions)], frozenset({OWN}))
    return [(one.score, one.kept) for one in found.boxes]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        pytest.param(box(), True, id="untouched"),
        pytest.param(box(x=14), True, id="moved"),
        pytest.param(box(x=17), False, id="moved-far"),
        pytest.param(box(label="dog"), False, id="other-label"),
        pytest.param(box(item_index=1), False, id="other-picture"),
        pytest.param(box(x=50), False, id="elsewhere"),
    ],
)
def test_a_box_was_kept_where_a_person_has_it_in_about_the_same_place(drawn, expected):
    assert kept([predicted(box(score=0.4))], annotated(drawn)) == [(0.4, expected)]


def test_one_drawn_box_keeps_one_predicted_box_the_closest():
    far, near = box(x=13, score=0.9), box(x=11, score=0.2)
    assert kept([predicted(far, near)], annotated(box())) == [(0.9, False), (0.2, True)]


def test_two_drawn_boxes_keep_two_also_where_both_are_close_to_one():
    assert kept([predicted(box(score=0.9), box(x=12, score=0.2))], annotated(box(x=11), box(x=13))) == [
        (0.9, True),
        (0.2, True),
    ]


def test_the_raw_score_counts_where_the_score_was_calibrated():
    one = box(score=0.9, meta={"heatbox": {"class": "cat", "raw_score": 0.3}})
    assert kept([predicted(one)], annotated(box())) == [(0.3, True)]


def test_a_polygon_beside_its_rectangle_does_not_count_twice():
    outline = {
        "type": "polygonlabels",
        "score": 0.4,
        "value": {"points": [[0, 0]], "polygonlabels": ["cat"]},
    }
    assert kept([predicted(box(score=0.4), outline)], annotated(box())) == [(0.4, True)]


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param([annotated(box(), was_cancelled=True)], id="skipped"),
        pytest.param(
            [annotated({"type": "choices", "value": {"choices": ["cat"]}})], id="only-chose-what-is-there"
        ),
        pytest.param([annotated() | {"result": None}], id="nothing"),
        pytest.param([], id="none"),
    ],
)
def test_who_did_not_look_for_boxes_has_judged_none(annotations):
    assert kept([predicted(box(score=0.4))], *annotations) == []


@pytest.mark.parametrize(
    "annotation",
    [
        annotated(),
        annotated({"type": "choices", "value": {"choices": ["cat"]}}, parent_prediction=1),
    ],
    ids=["empty", "began-with-the-prediction"],
)
def test_who_looked_and_left_no_box_has_rejected_them(annotation):
    assert kept([predicted(box(score=0.4))], annotation) == [(0.4, False)]


def test_the_newest_annotation_counts_and_ground_truth_before_it():
    older, newer = annotated(box()), annotated(number=2)
    assert kept([predicted(box(score=0.4))], newer, older) == [(0.4, False)]
    assert kept([predicted(box(score=0.4))], newer, older | {"ground_truth": True}) == [(0.4, True)]


def test_of_several_predictions_the_newest_of_a_known_version_counts_and_others_are_counted():
    predictions = [
        predicted(box(score=0.4), number=3),
        predicted(box(score=0.2), number=1),
        predicted(box(score=0.9), version=OTHER, number=9),
        predicted(box(score=0.8), version="yolo", number=10),
    ]
    found = judge([AnsweredTask(7, [annotated(box())], predictions)], frozenset({OWN}))
    assert found.boxes == (JudgedBox(7, 0.4, kept=True),)
    assert found.skipped == 1


@pytest.mark.parametrize(
    "region",
    [
        box(),
        box(score=1.7),
        box(score=float("nan")),
        box(score="0.4"),
        box(score=0.4) | {"value": {"rectanglelabels": ["cat"]}},
        box(score=0.4) | {"value": {**box()["value"], "rectanglelabels": []}},
        box(score=0.4) | {"value": {**box()["value"], "x": None}},
        "region",
    ],
)
def test_a_region_that_is_no_scored_box_is_left_out(region):
    assert kept([predicted(region)], annotated(box())) == []


def test_a_project_without_a_calibration_has_the_version_it_always_had(ledger):
    assert calibrated(ledger, 1, PIPELINE) == PIPELINE


def test_the_newest_calibration_of_the_project_and_pipeline_counts(ledger):
    assert store_calibration(ledger, 1, PIPELINE, ((0.0, 0.1), (1.0, 0.2)), 30)
    assert store_calibration(ledger, 1, PIPELINE, PAIRS, 40)
    assert calibrated(ledger, 1, PIPELINE).calibration == PAIRS
    assert calibrated(ledger, 2, PIPELINE).calibration == ()
    assert calibrated(ledger, 1, Pipeline("tiny@2")).calibration == ()


def test_the_same_calibration_again_is_nothing_new(ledger):
    assert store_calibration(ledger, 1, PIPELINE, PAIRS, 40)
    once = calibrated(ledger, 1, PIPELINE)
    assert not store_calibration(ledger, 1, once, PAIRS, 41)
    assert calibrated(ledger, 1, once) == once


def test_a_forgotten_calibration_is_unused_and_its_predictions_are_known(ledger):
    store_calibration(ledger, 1, PIPELINE, PAIRS, 40)
    once = calibrated(ledger, 1, PIPELINE)
    assert forget_calibration(ledger, 1, once)
    assert not forget_calibration(ledger, 1, once)
    assert calibrated(ledger, 1, once) == uncalibrated(once) == PIPELINE
    assert known_versions(ledger, 1, PIPELINE) == {PIPELINE.version, once.version}


def test_a_ledger_of_before_gets_the_table(ledger_url):
    with closing(Ledger(ledger_url)) as ledger, ledger.writing() as connection:
        connection.exec_driver_sql("DROP TABLE calibrations")
    with closing(Ledger(ledger_url)) as ledger:
        assert store_calibration(ledger, 1, PIPELINE, PAIRS, 40)


def serve(settings, ledger, project):
    config = parse_label_config(CONFIG)
    return serve_project(settings, ModelStore(settings.store_path), ledger, config, project=project).pipeline


def test_setup_and_predict_name_one_version_before_and_after(settings, start_worker, pictures):
    def version(client, project):
        body = {"schema": CONFIG, "project": f"{project}.1700000000"}
        return client.post("/setup", json=body).json()["model_version"]

    def prediction(client, project):
        task = {"id": 1, "data": {"image": str(pictures / "0.png")}}
        body = {"tasks": [task], "label_config": CONFIG, "project": f"{project}.1700000000"}
        (made,) = client.post("/predict", json=body).json()["results"]
        return made

    start_worker()
    with served(settings) as client, closing(Ledger(settings.ledger_url)) as ledger:
        raw = prediction(client, 3)
        before = version(client, 3)
        assert raw["model_version"] == before == version(client, 4) == serve(settings, ledger, None).version
        store_calibration(ledger, 3, serve(settings, ledger, 3), PAIRS, 40)
        made = prediction(client, 3)
        after = version(client, 3)
        assert made["model_version"] == after == serve(settings, ledger, 3).version != before
        assert version(client, 4) == before
    scores = {one["meta"]["heatbox"]["raw_score"]: one["score"] for one in made["result"]}
    assert sorted(scores) == sorted(one["score"] for one in raw["result"])
    assert all(0.05 <= score <= 0.8 for score in scores.values())
