"""Measures of what to label next: how far two explainers' boxes are apart, and tasks with several pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heatbox.annotation import Annotation, Region
from heatbox.boxes import Box
from heatbox.errors import PluginNotFoundError
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pictures.images import Limits
from heatbox.pictures.wanted import Wanted
from heatbox.settings import Settings
from heatbox_workers.next_up.judging import BY, Judge, Measured, disagreement, make_judge, order


def annotation(*boxes):
    regions = tuple(
        Region(str(place), label, label, Box(*box), 0.5) for place, (label, *box) in enumerate(boxes)
    )
    return Annotation(100, 100, regions)


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ([("cat", 0, 0, 50, 50)], [("cat", 0, 0, 50, 50)], 0.0),
        ([("cat", 0, 0, 50, 50)], [("dog", 0, 0, 50, 50)], 1.0),
        ([("cat", 0, 0, 50, 50)], [], 1.0),
        ([], [], 0.0),
        ([("cat", 0, 0, 50, 50)], [("cat", 0, 0, 25, 50)], 0.5),
    ],
)
def test_disagreement_is_what_the_boxes_of_each_label_do_not_share(first, second, value):
    assert disagreement(annotation(*first), annotation(*second)) == pytest.approx(value)
    assert disagreement(annotation(*second), annotation(*first)) == pytest.approx(value)


def measured(task, doubt):
    return Measured(task, {"doubt": doubt}, np.ones(3, dtype=np.float32))


def test_tasks_get_places_from_one_with_the_reasons():
    placed = order([measured(7, 0.1), measured(9, 0.8)], None, ["doubt"], 5)
    assert [(one.place, one.task, one.values) for one in placed] == [
        (1, 9, {"doubt": 0.8}),
        (2, 7, {"doubt": 0.1}),
    ]
    assert order([], None, ["doubt"], 5) == []


def test_a_task_needs_one_picture_that_can_be_read(classifier, tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    good, bad = Wanted(str(tmp_path / "red.png")), Wanted(str(tmp_path / "gone.png"))
    limits = Limits.from_settings(Settings())
    judge = Judge(("diversity",), classifier, limits, lambda one: Path(one.address))
    found = judge.measure({1: [good, bad], 2: [bad], 3: [good]})
    assert [one.task for one in found] == [1, 3]
    assert set(judge.failed) == {2}


@pytest.mark.parametrize("by", sorted(BY))
def test_an_explainer_that_is_none_is_told_also_where_it_would_not_be_asked(tmp_path, by):
    config = make_label_config(["cat"])
    given = (Settings(home=tmp_path), ModelStore(tmp_path), Ledger("sqlite://"), parse_label_config(config))
    with pytest.raises(PluginNotFoundError, match="nosuch"):
        make_judge(*given, 1, lambda _: tmp_path, by=by, against="nosuch")
