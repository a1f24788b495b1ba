"""The curve from raw scores to shares kept, what it is good for, and the scores that a picture then gets."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from heatbox.calibration import JudgedBox, store_calibration
from heatbox.errors import CalibrationError
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pictures.images import Limits
from heatbox.serving import serve_project
from heatbox.settings import Settings
from heatbox_workers.annotate import make_annotator
from heatbox_workers.calibrate import calibrate, calibration_error, fit_pairs
from heatbox_workers.loading import load_classifier


def boxes(count=400, per_task=2, seed=0, share=np.square):
    """Return boxes of which people keep this share of their score."""
    random = np.random.default_rng(seed)
    scores = random.random(count)
    kept = random.random(count) < share(scores)
    return [
        JudgedBox(place // per_task, float(score), bool(one))
        for place, (score, one) in enumerate(zip(scores, kept, strict=True))
    ]


@pytest.mark.parametrize("count", [40, 400, 4000])
def test_the_curve_rises_in_the_unit_square_and_has_few_corners(count):
    pairs = np.array(calibrate(boxes(count)).pairs)
    assert 2 <= len(pairs) <= 32
    assert pairs.min() >= 0
    assert pairs.max() <= 1
    assert (np.diff(pairs[:, 0]) > 0).all()
    assert (np.diff(pairs[:, 1]) >= 0).all()


def test_the_curve_is_the_share_that_people_kept():
    scores, shares = zip(*calibrate(boxes(20_000)).pairs, strict=True)
    inside = np.linspace(0.05, 0.95, 50)
    assert np.abs(np.interp(inside, scores, shares) - inside**2).max() < 0.06


def test_neither_the_order_of_boxes_nor_that_of_equal_scores_matters():
    some = [replace(one, score=round(one.score, 1)) for one in boxes(200)]
    assert calibrate(some[::-1]).pairs == calibrate(some).pairs


def test_boxes_of_one_score_have_one_share():
    kept = np.array([1.0] * 15 + [0.0] * 25)
    assert fit_pairs(np.full(40, 0.5), kept) == ((0.5, 0.375),)


def test_scores_that_fall_with_what_is_kept_are_worth_one_share():
    pairs = calibrate(boxes(400, share=lambda score: 1 - score)).pairs
    assert all(0.35 < share < 0.65 for _, share in pairs)


def test_a_few_boxes_at_the_end_do_not_make_a_score_certain():
    scores = np.linspace(0, 1, 60)
    kept = (scores > 0.95) | (np.arange(60) % 2 == 0)
    assert max(share for _, share in fit_pairs(scores, kept.astype(float))) < 1


def test_the_error_is_the_distance_of_scores_from_shares_by_bins():
    scores, kept = np.array([0.12, 0.18, 0.9, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(scores, kept) == pytest.approx((2 * (0.5 - 0.15) + 2 * (1 - 0.95)) / 4)


def test_calibrated_scores_of_tasks_that_were_held_out_are_closer_to_what_is_kept():
    found = calibrate(boxes(1000))
    assert found.error_before > 0.12
    assert found.error_after < 0.06
    assert sum(one.boxes for one in found.bins) == found.boxes == 1000
    assert all(one.low <= one.raw <= one.high for one in found.bins)


def test_a_task_is_never_measured_by_a_curve_that_it_helped_to_fit():
    kept = [JudgedBox(task, 0.95, kept=True) for task in range(0, 20, 5) for _ in range(5)]
    others = [JudgedBox(task, 0.45, kept=False) for task in range(20) if task % 5 for _ in range(5)]
    low, high = calibrate([*kept, *others]).bins  # the tasks of one fold are those with a kept box
    assert (high.kept, high.calibrated) == (1, 0)
    assert (low.kept, low.calibrated) == (0, 0)


@pytest.mark.parametrize(
    ("some", "reason"),
    [
        ([], "judged 0 predicted boxes in 0 tasks, which is too few"),
        (boxes(29), "judged 29 predicted boxes"),
        (boxes(40, per_task=10), "judged 40 predicted boxes in 4 tasks"),
        ([JudgedBox(task, 0.5, kept=True) for task in range(40)], "kept all of 40"),
        ([JudgedBox(task, 0.5, kept=False) for task in range(40)], "kept none of 40"),
    ],
    ids=["nothing", "few-boxes", "few-tasks", "all-kept", "none-kept"],
)
def test_too_little_is_refused_with_what_to_do(some, reason):
    with pytest.raises(CalibrationError, match=reason) as caught:
        calibrate(some)
    assert caught.value.remedy


def test_a_project_gets_its_own_scores_and_the_same_boxes(tmp_path, tiny_store, pictures):
    settings = Settings(home=tmp_path, store=tiny_store, model="tiny", min_probability=0)
    config = parse_label_config(make_label_config(["cat", "dog"]))
    store = ModelStore(settings.store_path)
    pairs = calibrate(boxes()).pairs
    scores, shares = zip(*pairs, strict=True)

    def regions(project):
        pipeline = serve_project(settings, store, ledger, config, project=project).pipeline
        classifier = load_classifier(store, store.find("tiny"))
        (made,) = make_annotator(pipeline, classifier, Limits()).annotate([pictures / "0.png"])
        return made.regions

    with closing(Ledger(settings.ledger_url)) as ledger:
        store_calibration(ledger, 3, serve_project(settings, store, ledger, config).pipeline, pairs, 400)
        own, others = regions(3), regions(4)
    assert {one.box: one.raw_score for one in own} == {one.box: one.score for one in others}
    assert [one.score for one in own] == pytest.approx(
        np.interp([one.raw_score for one in own], scores, shares)
    )
