"""What the ledger keeps of an annotation: what was shown, what is there now, and what was not understood."""

import json

import pytest
from fixtures_corrections import CONFIG, OWN, annotated, box, choice, predicted

from heatbox.corrections.reading import boxes_from, correction_row
from heatbox.labelling.config import parse_label_config
from heatbox.studio.corrections import AnsweredTask

LABELS = parse_label_config(CONFIG)
MASK = {"type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["cat"]}}


def row(annotation, *predictions, known=None, config=LABELS, **data):
    task = AnsweredTask(7, [annotation], predictions, data or {"image": "/a.jpg"})
    return correction_row(task, annotation, config, known)


def shown(annotation, *predictions, known=None):
    found = row(annotation, *predictions, known=known)
    return found["source"], found["version"], [one.corners[0] for one in boxes_from(found["predicted"])]


@pytest.mark.parametrize(
    ("annotation", "predictions", "expected"),
    [
        pytest.param(
            annotated(parent_prediction=3),
            [predicted(box(30), number=3, version="other"), predicted(box(50), number=4)],
            ("parent", "other", [0.3]),
            id="the-one-it-began-with",
        ),
        pytest.param(
            annotated(parent_prediction=None),
            [predicted(box(30), number=3), predicted(box(50), number=4), predicted(box(70), number=5, at=3)],
            ("older", OWN, [0.5]),
            id="the-newest-that-is-older",
        ),
        pytest.param(
            annotated(), [predicted(box(), version="other")], ("none", "", []), id="not-what-others-predicted"
        ),
        pytest.param(
            annotated(
                box(30, origin="prediction", meta={"heatbox": {"version": OWN}}),
                box(50, origin="prediction-changed"),
                box(70, origin="manual"),
                parent_prediction=9,
            ),
            [],
            ("regions", OWN, [0.3]),
            id="what-the-editor-says-is-untouched",
        ),
        pytest.param(annotated(box()), [], ("none", "", []), id="nothing"),
    ],
)
def test_what_a_person_was_shown_is_found_from_the_best_source(annotation, predictions, expected):
    assert shown(annotation, *predictions) == expected


def test_what_an_earlier_pull_knew_stays_when_the_prediction_is_replaced():
    before = row(annotated(box(32), parent_prediction=3), predicted(box(30), number=3))
    later = annotated(box(34), parent_prediction=None)
    after = row(later, predicted(box(90), number=4, version=f"{OWN[:-1]}8"), known=before)
    assert (after["source"], after["version"]) == ("parent", OWN)
    assert json.loads(after["verdicts"])[0]["kind"] == "moved"
    assert [one.corners[0] for one in boxes_from(after["predicted"])] == [0.3]


def test_a_better_source_says_more_than_an_earlier_pull_knew():
    before = row(annotated(box()))
    assert shown(annotated(parent_prediction=3), predicted(box(30), number=3), known=before)[0] == "parent"


@pytest.mark.parametrize(
    ("annotation", "predictions", "looked"),
    [
        pytest.param(annotated(), [], True, id="empty"),
        pytest.param(annotated(box()), [], True, id="boxes"),
        pytest.param(annotated(choice("cat")), [], False, id="choices-only"),
        pytest.param(annotated(choice("cat")), [predicted(box())], False, id="choices-beside-a-prediction"),
        pytest.param(
            annotated(choice("cat"), parent_prediction=1),
            [predicted(box())],
            True,
            id="deleted-what-it-began-with",
        ),
        pytest.param(annotated(MASK, parent_prediction=1), [predicted(box())], False, id="a-mask-instead"),
        pytest.param(annotated({**box(), "value": 7}), [], False, id="nothing-understood"),
        pytest.param(annotated(was_cancelled=True), [], False, id="skipped"),
    ],
)
def test_only_who_looked_for_boxes_says_where_none_is(annotation, predictions, looked):
    assert row(annotation, *predictions)["looked"] is looked


def test_choices_are_read_by_the_names_of_the_project():
    assert json.loads(row(annotated(choice("dog", "CAT"), choice("bad", name="quality")))["labels"]) == [
        ["dog", "cat"]
    ]


def test_a_label_is_called_as_the_project_calls_it():
    aliased = parse_label_config(CONFIG.replace('<Label value="cat"/>', '<Label value="Cat" alias="cat"/>'))
    found = row(annotated(box(label="Cat"), box(50, label="unheard")), config=aliased)
    assert [one.label for one in boxes_from(found["boxes"])] == ["cat", "unheard"]


@pytest.mark.parametrize(
    ("version", "explainer"),
    [
        (OWN, "grad_cam"),
        ("heatbox-cam-grad_cam-0123456789", "cam"),
        ("heatbox-unheard-tiny-0123456789", "unheard"),
        ("yolo-v8", ""),
    ],
)
def test_the_explainer_is_that_of_the_version(version, explainer):
    found = row(annotated(parent_prediction=1), predicted(version=version))
    assert (found["version"], found["explainer"]) == (version, explainer)


@pytest.mark.parametrize(
    "annotation",
    [
        annotated(7, None, "x", [], {}, {"type": "rectanglelabels", "value": {"rectanglelabels": [None]}}),
        annotated() | {"result": {"a": 1}},
        annotated() | {"result": None},
        annotated() | {"created_at": None, "updated_at": 7, "completed_by": {"id": "x"}, "lead_time": "long"},
        annotated() | {"lead_time": float("nan"), "updated_at": "0001-01-01T00:00:00+14:00"},
        annotated(parent_prediction=1),
    ],
)
def test_whatever_is_stored_becomes_a_row(annotation):
    odd = {"id": 1, "result": {"x": 1}, "model_version": "a\0\ud800" + "b" * 400, "created_at": None}
    found = row(annotation, odd, None)
    assert json.dumps(found).isascii()
    assert len(found["version"].encode()) <= 300


def test_a_task_without_a_picture_is_told():
    found = row(annotated(box()), text="hello")
    assert json.loads(found["problems"]) == {"the task names no picture": 1}
    assert json.loads(found["addresses"]) == []
