"""What a map compares: people's labels and the classifier's only where both mean the same by a name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heatbox.pictures.images import Limits
from heatbox.pictures.wanted import Wanted
from heatbox_workers.data_map.page import OTHER
from heatbox_workers.data_map.points import Pictured, known_classes, look, strange_names


@pytest.fixture
def picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    return Wanted(str(tmp_path / "a.png"))


def test_a_classifier_knows_the_names_that_it_was_made_for(classifier):
    assert strange_names(["Class_0", "class 2"], classifier) == []
    assert known_classes(["Class_0", "class 2"], classifier) == {
        "Class_0": (0,),
        "class 1": (1,),
        "class 2": (2,),
    }


def test_what_sounds_alike_is_no_class(classifier):
    card = classifier.card.model_copy(update={"labels": ("jack, lifting jack", "ace", "queen")})
    cars = replace(classifier, card=card)
    assert strange_names(["ace", "jack"], cars) == ["jack"]
    assert set(known_classes(["ace", "jack"], cars)) == set(card.labels)


@pytest.mark.parametrize(
    ("labels", "compared", "told"),
    [
        (("class 0",), True, True),
        (("cards",), True, False),
        (("class 0",), False, False),
        ((), True, True),
        (None, False, True),
    ],
)
def test_a_mistake_is_marked_where_both_could_say_the_same(classifier, picture, labels, compared, told):
    pictured = [Pictured("a", "#", picture, labels)]
    known = known_classes(["class 0"], classifier)
    found = look(pictured, classifier, known, Limits(), lambda one: Path(one.address), compared=compared)
    (point,) = found.points
    assert bool(point.predicted) == told
    differs = point.predicted not in {OTHER, *(labels or ())}
    assert point.mistake == (differs and told and labels is not None)
