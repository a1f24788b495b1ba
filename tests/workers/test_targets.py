"""Which classes are explained."""

import pytest
import torch

from heatbox.errors import LabelUnknownError
from heatbox.pipeline import Pipeline
from heatbox_workers.targets import absence, choose_targets, classes_by_label

CLASSES = ("cat", "dog", "tabby")


def chosen(probabilities, **fields):
    pipeline = Pipeline("m@1", **fields)
    targets = choose_targets(torch.tensor(probabilities), classes_by_label(pipeline, CLASSES), pipeline)
    return [(target.label, target.class_index) for target in targets]


@pytest.mark.parametrize(
    ("probabilities", "fields", "expected"),
    [
        ([0.1, 0.8, 0.05], {}, [("dog", 1)]),
        ([0.4, 0.5, 0.3], {}, [("dog", 1), ("cat", 0), ("tabby", 2)]),
        ([0.4, 0.5, 0.3], {"max_labels": 1}, [("dog", 1)]),
        ([0.2, 0.1, 0.2], {}, []),
        ([0.2, 0.1, 0.2], {"min_probability": 0.2}, [("cat", 0), ("tabby", 2)]),
        ([0.5, 0.5, 0.5], {"max_labels": 2}, [("cat", 0), ("dog", 1)]),
        ([0.01, 0.9, 0.02], {"labels": ("cat",)}, [("cat", 0)]),
        ([0.3, 0.9, 0.6], {"label_map": (("cat", "Cat"), ("tabby", "Cat"))}, [("Cat", 2)]),
        (
            [0.3, 0.9, 0.6],
            {"label_map": (("cat", "Cat"), ("tabby", "Cat")), "labels": ("Cat",)},
            [("Cat", 2)],
        ),
    ],
)
def test_targets_are_the_asked_or_the_confident_classes(probabilities, fields, expected):
    assert chosen(probabilities, **fields) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(None, ["dog"]), (("cat",), ["cat"]), (("tabby", "dog"), ["dog", "tabby"]), ((), []), (("cow",), [])],
)
def test_labels_that_are_known_to_be_in_a_picture_are_explained_however_improbable(labels, expected):
    pipeline = Pipeline("m@1", max_labels=1)
    known = classes_by_label(pipeline, CLASSES)
    targets = choose_targets(torch.tensor([0.01, 0.9, 0.02]), known, pipeline, labels)
    assert [target.label for target in targets] == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((), ["dog"]),
        ((("cat", 0.1),), ["dog", "cat"]),
        ((("dog", 0.9),), []),
        ((("cat", 0.2),), ["dog", "cat"]),
    ],
)
def test_a_label_may_have_a_probability_of_its_own(limits, expected):
    assert [label for label, _ in chosen([0.2, 0.8, 0.1], label_min_probabilities=limits)] == expected


@pytest.mark.parametrize(
    ("probabilities", "fields", "expected"),
    [
        ([0.0, 0.0, 0.0], {}, 1.0),
        ([0.05, 0.1, 0.0], {}, 0.6),
        ([0.1, 0.2, 0.0], {"label_min_probabilities": (("cat", 0.125),)}, 0.2),
        ([0.9, 0.0, 0.0], {}, 0.0),
        ([0.0, 0.0, 0.0], {"min_probability": 0.0}, 1.0),
    ],
)
def test_absence_is_how_far_the_nearest_label_is_below_its_threshold(probabilities, fields, expected):
    pipeline = Pipeline("m@1", **fields)
    found = absence(torch.tensor(probabilities), classes_by_label(pipeline, CLASSES), pipeline)
    assert found == pytest.approx(expected)


def test_an_unknown_label_gets_the_nearest_names():
    with pytest.raises(LabelUnknownError, match="tabbi") as caught:
        classes_by_label(Pipeline("m@1", labels=("tabbi",)), CLASSES)
    assert "'tabby'" in caught.value.remedy
