"""What tuning promises is honest: noise gains nothing, no left-out picture has a say, and luck is taken off."""

from types import MappingProxyType

import numpy as np
import pytest

from heatbox.pipeline import Way
from heatbox_workers.targets import Target
from heatbox_workers.tune.board import Board
from heatbox_workers.tune.candidates import Candidate, Choice, Fitting
from heatbox_workers.tune.choosing import Held, Question, cross_validate, measure, sobered, worthwhile
from heatbox_workers.tune.seeing import Heat, Picture, Seen
from heatbox_workers.ways import ReadyExplainer

FOLDS, PRESENT = 5, Choice(0, Fitting.of("components"), 0.0)


def question(truths, drawn):
    """Ask for one label by boxes that come ready: truths (P, 4), drawn (E, P, 4)."""
    square = np.zeros((100, 100, 3), dtype=np.uint8)
    pictures = [
        Picture(square, {"cat": box[None]}, place % FOLDS, ("cat",)) for place, box in enumerate(truths)
    ]
    seen = Seen(targets=[{"cat": Target("cat", 0, 1.0)} for _ in truths])
    seen.heats = {
        (number, place, "cat"): Heat(boxes=box[None])
        for number, boxes in enumerate(drawn)
        for place, box in enumerate(boxes)
    }
    made = {
        number: Candidate(Way(f"e{number}"), ReadyExplainer(f"e{number}", None))
        for number in range(len(drawn))
    }
    return Question(Board(pictures, seen), ("cat",), PRESENT, made, probabilities=False)


def noise(seed, pictures=40, explainers=8):
    """Every explainer is as good as the others: the true box, and chance."""
    random = np.random.default_rng(seed)
    middles = random.uniform(30, 70, (pictures, 2))
    truths = np.hstack([middles - 15, middles + 15])
    return question(truths, truths + random.normal(0, 6, (explainers, pictures, 4)))


def gain(held):
    return measure(list(held.values()), 0)[0].gain


def test_where_all_ways_are_alike_nothing_is_expected():
    answers = [cross_validate(noise(seed)) for seed in range(60)]
    assert abs(np.mean([gain(held) for held in answers])) < 0.006
    lucky = [held for held in answers if measure(list(held.values()), 0)[1]]
    assert len(lucky) < 0.2 * len(answers)
    promised = sum(gain(sobered(held, 0)) for held in lucky) / len(answers)
    assert 0 <= promised < 0.003 < sum(map(gain, lucky)) / len(answers)


def test_where_luck_explains_all_of_a_gain_nothing_is_changed():
    answers = [cross_validate(noise(seed)) for seed in range(60)]
    lucky = [held for held in answers if measure(list(held.values()), 0)[1]]
    wanted = [left for held in lucky if (left := worthwhile(held, 0))]
    assert len(wanted) < len(lucky)
    assert all(gain(left) > 0 for left in wanted)


def test_a_left_out_picture_has_no_say():
    truths = np.tile([20.0, 20.0, 80.0, 80.0], (20, 1))
    drawn = np.tile([0.0, 0.0, 30.0, 30.0], (FOLDS + 1, 20, 1))
    drawn[0] = [20.0, 20.0, 60.0, 60.0]
    for fold in range(FOLDS):  # perfect in one fold alone: whoever chose with it would gain a lot
        drawn[fold + 1, fold::FOLDS] = truths[0]
    assert gain(cross_validate(question(truths, drawn))) <= 0


@pytest.mark.parametrize(("better", "left"), [(0.02, (0.0, 0.5)), (0.1, (0.95, 1.0))])
def test_a_gain_that_might_be_luck_is_told_as_less_and_a_plain_one_as_it_is(better, left):
    random = np.random.default_rng(1)
    before = np.stack([random.uniform(0, 2, 60), np.full(60, 2.0)], axis=1)
    after = before + np.stack([random.normal(2 * better, 0.2, 60), np.zeros(60)], axis=1)
    held = MappingProxyType({"cat": Held(before, after)})
    low, high = left
    assert low <= gain(sobered(held, 0)) / gain(held) <= high
