"""Which pictures to label next: representative ones, doubtful ones, and a mean of both; always the same."""

import numpy as np
import pytest

from heatbox_workers.next_up.picking import choose, ranks


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def indices(*arguments, **more):
    return [one.index for one in choose(*arguments, **more)]


def test_diversity_takes_the_middle_of_the_largest_group_first_and_then_another_group():
    groups = on_circle(0, 4, 8, 12, 16, 150, 154, 158)
    assert indices({}, groups, None, 2) == [2, 6]


def test_what_people_have_corrected_is_represented_already():
    groups = on_circle(0, 4, 8, 12, 16, 150, 154, 158)
    assert indices({}, groups, on_circle(8), 1) == [6]


def test_by_doubt_alone_the_most_doubtful_come_first_and_equals_in_their_order():
    assert indices({"doubt": [0.1, 0.9, 0.5, 0.9]}, None, None, 3) == [1, 3, 2]


def test_of_alike_pictures_the_doubtful_one_is_taken():
    assert indices({"doubt": [0.2, 0.8, 0.2, 0.9]}, on_circle(0, 0, 90, 90), None, 2) == [3, 1]


def test_the_scale_of_a_criterion_does_not_matter():
    pictures = on_circle(*range(0, 90, 9))
    doubt = np.random.default_rng(0).random(10)
    assert indices({"doubt": doubt}, pictures, None, 10) == indices(
        {"doubt": doubt / 1000}, pictures, None, 10
    )


def test_nobody_is_taken_twice_and_nobody_is_left_out():
    assert sorted(indices({"doubt": [0.5] * 7}, on_circle(*[30] * 7), None, 99)) == list(range(7))


@pytest.mark.parametrize("seed", [0, 1])
def test_above_a_thousand_pictures_the_same_seed_makes_the_same_choice(seed):
    pictures = np.random.default_rng(5).normal(size=(1500, 8)).astype(np.float32)
    assert indices({}, pictures, None, 9, seed) == indices({}, pictures, None, 9, seed)


def test_a_rank_is_the_share_of_lower_values():
    assert ranks(np.array([0.3, 0.1, 0.3, 0.9])).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1])
