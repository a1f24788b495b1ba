"""Tests of heatbox.trainings.figures: what a training came to, for people."""

from heatbox.trainings.figures import figures, label_figures, told_apart

LABELS = {
    "cat": {"pictures": 4, "accuracy": 1.0, "box_quality": 0.5},
    "dog": {"pictures": 2, "accuracy": 0.5, "box_quality": None},
}
RESULT = {
    "comparison": {
        "challenger": {"accuracy": 0.75, "box_quality": 0.5, "labels": LABELS},
        "champion": {"accuracy": 0.5, "box_quality": None, "labels": {"cat": {"accuracy": 0.25}}},
    },
    "rejected": [{"code": "picture-format"}, {"code": "label-unknown"}, {"code": "label-unknown"}],
    "unlearnt": ["horse"],
    "untaught": ["box_regression: no boxes."],
}


def test_the_comparison_is_one_line():
    assert figures(RESULT) == " (accuracy 0.750 against 0.500, box quality 0.500)"


def test_each_label_has_a_row_with_before_and_after():
    assert label_figures(RESULT) == [
        ("cat", "4", "0.250", "1.000", "-", "0.500"),
        ("dog", "2", "-", "0.500", "-", "-"),
    ]


def test_what_was_not_used_is_told_with_the_most_frequent_reasons_first():
    assert told_apart(RESULT) == [
        ("rejected", "label-unknown 2, picture-format 1"),
        ("no picture of", "horse"),
        ("not fitted", "box_regression: no boxes."),
    ]


def test_a_result_without_comparison_has_neither():
    assert (figures({}), label_figures({}), told_apart({})) == ("", [], [])
