"""Tests of heatbox.metrics, on cases worked out by hand."""

import numpy as np
import pytest

from heatbox.metrics import (
    THRESHOLDS,
    Agreement,
    agreement,
    box_accuracy,
    box_quality,
    held_out,
    match,
    pointing_hit,
    threshold_ious,
)


def boxes(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def steps():
    """A map 10 wide, 4 high: heat 0.9 in columns 0-1, 0.6 in 2-3, 0.3 in 4-7, 0 behind."""
    row = np.float32([0.9, 0.9, 0.6, 0.6, 0.3, 0.3, 0.3, 0.3, 0.0, 0.0])
    return np.tile(row, (4, 1))


def two_blobs():
    """A map 10 x 10: a large component (16 pixels) of heat 0.5 and a small one (4 pixels) of heat 1."""
    heatmap = np.zeros((10, 10), dtype=np.float32)
    heatmap[0:4, 0:4] = 0.5
    heatmap[7:9, 7:9] = 1.0
    return heatmap


def test_each_threshold_gives_the_iou_of_its_own_box():
    ious = threshold_ious(steps(), boxes([0, 0, 4, 4]), thresholds=(0.0, 0.4, 0.7, 0.95))

    np.testing.assert_allclose(ious, [0.5, 1.0, 0.5, 0.0])


def test_the_mask_is_strictly_above_the_threshold():
    heatmap = np.full((2, 2), 0.5, dtype=np.float32)

    assert threshold_ious(heatmap, boxes([0, 0, 2, 2]), thresholds=(0.49, 0.5)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("components", "expected"),
    [("largest", [0.0, 1.0]), ("all", [1.0, 1.0])],
)
def test_the_first_version_takes_the_largest_component_and_the_second_all(components, expected):
    ious = threshold_ious(two_blobs(), boxes([7, 7, 9, 9]), (0.2, 0.7), components)

    assert ious.tolist() == expected


def test_the_best_of_several_true_boxes_counts():
    ious = threshold_ious(two_blobs(), boxes([5, 5, 9, 9], [0, 0, 4, 4], [0, 0, 1, 1]), (0.2,))

    assert ious.tolist() == [1.0]


def test_the_largest_component_is_the_one_with_most_pixels_not_the_largest_box():
    heatmap = np.zeros((10, 10), dtype=np.float32)
    heatmap[0:4, 0:4] = 1
    heatmap[np.arange(4, 10), np.arange(4, 10)] = 0
    heatmap[9, 4:10] = heatmap[5:10, 9] = 1  # an angle: 10 pixels in a box of 30

    assert threshold_ious(heatmap, boxes([0, 0, 4, 4]), (0.5,)).tolist() == [1.0]


def test_iou_does_not_depend_on_the_scale_of_map_and_truth():
    truth = boxes([1, 1, 5, 4])

    small = threshold_ious(steps(), truth)
    large = threshold_ious(steps().repeat(3, axis=0).repeat(2, axis=1), truth * [2, 3, 2, 3])

    np.testing.assert_allclose(large, small)


def test_box_accuracy_takes_the_best_threshold_of_each_level():
    ious = np.array([[0.8, 0.2, 0.0], [0.4, 0.6, 0.1], [0.2, 0.6, 0.7], [0.3, 0.1, 0.4]])

    result = box_accuracy(ious, thresholds=(0.1, 0.2, 0.3))

    assert result.levels == (0.3, 0.5, 0.7)
    assert result.best == (0.75, 0.5, 0.25)
    assert result.thresholds == (0.1, 0.2, 0.1)
    assert result.pictures == 4
    assert result.mean == 0.5


def test_an_iou_that_equals_the_level_is_right():
    assert box_accuracy(np.array([[0.5]]), thresholds=(0.0,), levels=(0.5,)).best == (1.0,)


def test_the_lowest_of_equally_good_thresholds_is_named():
    assert box_accuracy(np.ones((2, 100))).thresholds == (0.0, 0.0, 0.0)


def test_thresholds_are_hundredths_below_one():
    assert len(THRESHOLDS) == 100
    assert THRESHOLDS[29] == 0.29
    assert max(THRESHOLDS) < 1


def test_ious_of_the_picture_rows_feed_box_accuracy():
    rows = [threshold_ious(steps(), boxes([0, 0, 4, 4])), threshold_ious(two_blobs(), boxes([7, 7, 9, 9]))]

    result = box_accuracy(np.stack(rows))

    assert result.best == (1.0, 1.0, 1.0)
    assert result.thresholds == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([[0, 0, 4, 4]], [[0, 0, 4, 4]], [1.0]),
        ([[0, 0, 4, 4]], [[0, 0, 4, 8], [4, 4, 8, 8]], [0.5, 0.0]),
        ([[0, 0, 4, 4]], [[0, 0, 4, 5], [0, 0, 4, 4]], [0.0, 1.0]),
        ([[0, 0, 4, 4], [0, 0, 4, 4]], [[0, 0, 4, 4]], [1.0]),
        ([[0, 0, 4, 4], [0, 0, 4, 5]], [[0, 0, 4, 4], [0, 0, 4, 3]], [1.0, 0.6]),
        ([[0, 0, 4, 4]], [[0, 0, 4, 9]], [0.0]),
        ([], [[0, 0, 4, 4]], [0.0]),
        ([[0, 0, 4, 4]], [], []),
        ([], [], []),
    ],
    ids=[
        "same",
        "at the level",
        "the better pair first",
        "one to one",
        "two pairs",
        "below",
        "none",
        "no truth",
        "empty",
    ],
)
def test_boxes_are_matched_one_to_one_from_the_best_pair_down(predicted, truth, expected):
    np.testing.assert_allclose(match(boxes(*predicted), boxes(*truth)), expected)


def test_boxes_that_do_not_touch_never_match():
    assert match(boxes([0, 0, 1, 1]), boxes([2, 2, 3, 3]), iou=0.0).tolist() == [0.0]


def test_agreement_sums_over_pictures():
    pictures = [
        (boxes([0, 0, 4, 4], [8, 8, 9, 9]), boxes([0, 0, 4, 4], [0, 0, 4, 8])),
        (boxes(), boxes([1, 1, 2, 2])),
        (boxes([1, 1, 2, 2]), boxes()),
    ]

    result = agreement(pictures)

    assert result == Agreement(pictures=3, truths=3, predictions=3, matched=1, mean_iou=0.5)
    assert result.found == pytest.approx(1 / 3)
    assert result.precision == pytest.approx(1 / 3)
    assert result.false_boxes == pytest.approx(2 / 3)


def test_agreement_of_nothing_is_zero():
    result = agreement([])

    assert (result.mean_iou, result.found, result.precision, result.false_boxes) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([], 1.0),
        ([(boxes(), boxes())], 1.0),
        ([(boxes([0, 0, 4, 4]), boxes([0, 0, 4, 4]))], 1.0),
        ([(boxes([0, 0, 4, 4]), boxes([0, 0, 4, 8]))], 0.5),
        ([(boxes([0, 0, 4, 4], [6, 6, 8, 8]), boxes([0, 0, 4, 4]))], 2 / 3),
        ([(boxes([0, 0, 4, 4]), boxes([0, 0, 4, 4])), (boxes(), boxes([0, 0, 1, 1]))], 2 / 3),
        ([(boxes([0, 0, 1, 1]), boxes([2, 2, 3, 3]))], 0.0),
    ],
)
def test_box_quality_falls_with_overlap_and_with_each_box_missing_or_too_many(pictures, expected):
    assert box_quality(pictures) == pytest.approx(expected)


def test_empty_lists_of_boxes_may_have_any_shape():
    assert agreement([(np.array([]), np.array([[0, 0, 1, 1]]))]).found == 0.0


def test_held_out_thresholds_come_from_the_other_half():
    ious = np.array([[1.0, 0.0], [0.0, 1.0]])  # what is best for one picture is worst for the other

    found = held_out(ious, np.array([0, 1]))

    assert found.accuracy == (0.0, 0.0, 0.0)
    assert found.mean_iou == 0.0
    assert found.single == (0.0, 0.0, 0.0)


def test_held_out_is_the_oracle_where_one_threshold_suits_all():
    ious = np.tile([0.1, 0.6, 0.2], (10, 1))

    found = held_out(ious, np.arange(10))

    assert found.accuracy == (1.0, 1.0, 0.0)
    assert found.mean_iou == pytest.approx(0.6)
    assert found.single == (1.0, 1.0, 0.0)


def test_rows_of_one_picture_stay_in_one_half():
    ious = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])

    assert held_out(ious, np.array([4, 4, 9])).mean_iou == 0.0


def test_a_single_picture_chooses_on_itself():
    assert held_out(np.array([[0.2, 0.8]]), np.array([3])).mean_iou == 0.8


def test_the_split_depends_on_the_seed_alone():
    ious = np.random.default_rng(1).random((30, 20))

    first, same, other = (held_out(ious, np.arange(30), seed=seed) for seed in (1, 1, 2))

    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("heat", "hit"),
    [
        ({(2, 3): 1.0}, 1.0),  # row 2, column 3
        ({(3, 2): 1.0}, 0.0),
        ({(2, 3): 0.5, (9, 9): 1.0}, 0.0),
        ({(2, 3): 1.0, (9, 9): 1.0}, 0.5),  # two equal peaks share the point
        ({}, 0.0),
    ],
)
def test_the_pointing_game_asks_where_the_peak_is(heat, hit):
    heatmap = np.zeros((10, 10), dtype=np.float32)
    for place, value in heat.items():
        heatmap[place] = value

    assert pointing_hit(heatmap, boxes([3, 2, 5, 3])) == hit


def test_any_true_box_may_hold_the_peak():
    heatmap = np.zeros((10, 10), dtype=np.float32)
    heatmap[8, 8] = 1

    assert pointing_hit(heatmap, boxes([0, 0, 2, 2], [8, 8, 9, 9])) == 1.0
