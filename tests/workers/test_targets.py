"""Which classes are explained."""

import pytest
import torch

from heatbox.errors import LabelUnknownError
from heatbox.pipeline import Pipeline
from heatbox_workers.targets import choose_targets, classes_by_label

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


def test_an_unknown_label_gets_the_nearest_names():
    with pytest.raises(LabelUnknownError, match="tabbi") as caught:
        classes_by_label(Pipeline("m@1", labels=("tabbi",)), CLASSES)
    assert "'tabby'" in caught.value.remedy
