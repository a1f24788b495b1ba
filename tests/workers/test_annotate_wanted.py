"""Annotating what somebody asks for: known labels, places, own thresholds, masks, calibrated scores."""

import time
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Barrier, Event

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.contract import Evidence
from heatbox.errors import InternalError, PictureNotFoundError
from heatbox.pictures.images import Limits
from heatbox.pictures.wanted import Wanted
from heatbox.pipeline import Pipeline
from heatbox_plugins.box_fitters.components import Components
from heatbox_workers.annotate import Annotator, make_annotator

PIPELINE = Pipeline("gap@1", min_probability=0.0, max_labels=3)


@dataclass(frozen=True)
class Bright:
    """Marks what is bright, whatever the class: two bright squares are two boxes; the right one is half as sure."""

    def __call__(self, _classifier, images, targets):
        lightness = images.mean(dim=1)
        lowest = lightness.amin(dim=(1, 2), keepdim=True)
        return Evidence(heatmaps=(lightness - lowest)[targets[:, 0]].float())


@pytest.fixture
def make(classifier):
    """Make an annotator of bright squares; every class is a label."""

    def make(pipeline=PIPELINE, explainer=None, **fields):
        known = {label: [index] for index, label in enumerate(classifier.labels)}
        fitter = Components(threshold=0.4, min_area=0.001)
        return Annotator(pipeline, classifier, explainer or Bright(), fitter, known, Limits(), **fields)

    return make


@pytest.fixture
def squares(tmp_path):
    """A dark picture of 128 x 64 with a bright square on the left and a less bright one on the right."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[16:48, 16:48] = 255
    pixels[16:48, 80:112] = 160
    path = tmp_path / "squares.png"
    Image.fromarray(pixels).save(path)
    return path


def annotate(annotator, path, **asked):
    (annotation,) = annotator.annotate_wanted([Wanted(str(path), **asked)], lambda _: path)
    return annotation


def lefts(annotation, label=None):
    """Return whether each box is that of the left square."""
    return sorted({one.box.x2 < 64 for one in annotation.regions if label in {None, one.label}}, reverse=True)


def test_both_squares_are_found_in_the_whole_picture(make, squares):
    found = annotate(make(), squares)
    assert lefts(found) == [True, False]
    assert {one.label for one in found.regions} == {"class 0", "class 1", "class 2"}


@pytest.mark.parametrize(("within", "left"), [((5, 0, 40, 100), True), ((55, 0, 40, 100), False)])
def test_a_rectangle_restricts_where_is_looked(make, squares, within, left):
    found = annotate(make(), squares, within=within)
    assert lefts(found) == [left]
    x, _, width, _ = (128 * share / 100 for share in within)
    for one in found.regions:
        assert x <= one.box.x1 < one.box.x2 <= x + width
        assert one.box.as_xyxy() == pytest.approx((16, 16, 48, 48) if left else (80, 16, 112, 48), abs=5)
    assert (found.width, found.height) == (128, 64)


@pytest.mark.parametrize(
    ("point", "left"), [((25, 50), True), ((75, 50), False), ((0, 0), True), ((99, 99), False)]
)
def test_a_keypoint_keeps_the_box_that_contains_it_or_is_nearest(make, squares, point, left):
    assert lefts(annotate(make(), squares, point=point, labels=("class 1",))) == [left]


def test_a_label_says_which_class_and_several_pictures_keep_their_own(make, squares):
    annotator = make(Pipeline("gap@1", min_probability=1.0))
    asked = [Wanted("a", labels=labels) for labels in (("class 1",), None, ("class 0", "class 2"), ())]
    found = list(annotator.annotate_wanted(asked, lambda _: squares))
    assert [sorted({one.label for one in annotation.regions}) for annotation in found] == [
        ["class 1"],
        [],
        ["class 0", "class 2"],
        [],
    ]
    assert [annotation.absence is None for annotation in found] == [True, False, True, False]


def test_a_picture_that_cannot_be_fetched_costs_only_itself(make, squares):
    def fetch(wanted):
        if wanted.address == "gone":
            raise PictureNotFoundError("It is gone.", "Look elsewhere.")
        return squares

    first, gone, last = make().annotate_wanted([Wanted(name) for name in ("a", "gone", "b")], fetch)
    assert isinstance(gone, PictureNotFoundError)
    assert first == last


def test_a_defect_costs_only_the_picture_that_shows_it_and_the_log_keeps_its_text(make, squares, caplog):
    def fetch(wanted):
        if wanted.address == "odd":
            raise UnicodeError("hush")
        return squares

    first, odd, last = make().annotate_wanted([Wanted(name) for name in ("a", "odd", "b")], fetch)
    assert isinstance(odd, InternalError)
    assert first == last
    assert "UnicodeError in " in caplog.text
    assert "test_annotate_wanted.py" in caplog.text
    assert "hush" not in caplog.text + str(odd)


@pytest.mark.parametrize("size", [1, 2])
def test_all_readers_work_ahead_however_small_the_batches_are(make, squares, size):
    together = Barrier(4)

    def fetch(_):
        together.wait(10)
        return squares

    asked = [Wanted(str(number)) for number in range(8)]
    assert len(list(make(batch_size=size).annotate_wanted(asked, fetch))) == 8


def test_only_a_few_pictures_are_read_ahead(make, squares):
    seen = []
    asked = (seen.append(number) or Wanted(str(number)) for number in range(100))
    with closing(make(batch_size=2).annotate_wanted(asked, lambda _: squares)) as found:
        next(found)
        assert len(seen) == 8


def test_who_leaves_early_waits_for_no_picture(make, squares):
    fetched, released = [], Event()

    def fetch(wanted):
        fetched.append(wanted.address)
        if wanted.address != "0":
            released.wait(20)
        return squares

    found = make(batch_size=1).annotate_wanted([Wanted(str(number)) for number in range(20)], fetch)
    next(found)
    began = time.monotonic()
    found.close()
    assert time.monotonic() - began < 5
    released.set()
    assert len(fetched) < 8


@pytest.mark.parametrize(("threshold", "left"), [(0.4, [True, False]), (0.8, [True])])
def test_a_label_with_a_box_threshold_of_its_own_loses_or_keeps_the_weak_square(
    make, squares, threshold, left
):
    own = {"class 1": Components(threshold=threshold, min_area=0.001)}
    found = annotate(make(own_fitters=own), squares)
    assert lefts(found, "class 1") == left
    assert lefts(found, "class 0") == [True, False]


def test_box_thresholds_of_labels_are_those_of_the_pipeline(classifier):
    pipeline = Pipeline(
        classifier.card.id,
        explainer="grad_cam",
        fitter_options={"threshold": 0.3, "min_area": 0.02},
        label_thresholds=(("class 1", 0.7),),
    )
    annotator = make_annotator(pipeline, classifier, Limits())
    assert annotator.fitter == Components(threshold=0.3, min_area=0.02)
    assert annotator.own_fitters == {"class 1": Components(threshold=0.7, min_area=0.02)}


def test_a_label_with_a_probability_of_its_own_appears_or_disappears(make, squares):
    plain = {one.label: one.probability for one in annotate(make(), squares).found}
    middle = sorted(plain.values())[1]
    (weak,) = [label for label, value in plain.items() if value < middle]
    (strong,) = [label for label, value in plain.items() if value > middle]
    limits = ((strong, 1.0), (weak, 0.0))
    limited = replace(PIPELINE, min_probability=middle, label_min_probabilities=limits)
    assert {one.label for one in annotate(make(limited), squares).regions} == plain.keys() - {strong}


@pytest.mark.parametrize(
    ("kinds", "has_mask"),
    [
        ((), False),
        (("choices", "rectanglelabels"), False),
        (("brushlabels",), True),
        (("polygonlabels",), True),
    ],
)
def test_masks_come_along_only_where_a_control_needs_them(make, squares, kinds, has_mask):
    found = annotate(make(replace(PIPELINE, kinds=kinds)), squares)
    assert {one.mask is not None for one in found.regions} == {has_mask}


def test_a_mask_is_that_of_its_box_alone(make, squares):
    for one in annotate(make(replace(PIPELINE, kinds=("brushlabels",))), squares).regions:
        rows, columns = np.nonzero(one.mask.scaled(128, 64))
        x1, y1, x2, y2 = one.box.as_xyxy()
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx(
            (x1, y1, x2, y2), abs=4
        )


def test_scores_are_calibrated_between_the_points_and_the_raw_ones_kept(make, squares):
    raw = annotate(make(), squares)
    made = annotate(make(replace(PIPELINE, calibration=((0.0, 0.5), (1.0, 0.9)))), squares)
    assert [one.raw_score for one in raw.regions] == [None] * len(raw.regions)
    assert [one.raw_score for one in made.regions] == pytest.approx([one.score for one in raw.regions])
    assert [one.score for one in made.regions] == pytest.approx(
        [0.5 + 0.4 * one.score for one in raw.regions]
    )
    assert made.score == min(one.score for one in made.regions)


@dataclass(frozen=True)
class Empty:
    """Finds nothing, of any class."""

    def __call__(self, classifier, _images, targets):
        side = classifier.input_size
        return Evidence(masks=torch.zeros(len(targets), side, side, dtype=torch.bool))


def test_what_was_looked_for_and_not_found_is_the_most_doubtful(make, squares):
    found = annotate(make(explainer=Empty()), squares, labels=("class 1",))
    assert (found.regions, found.absence, found.score) == ((), None, 0.0)
    assert [one.label for one in found.found] == ["class 1"]


def test_a_picture_in_which_nothing_was_looked_for_is_as_sure_as_the_nearest_label_is_far(make, squares):
    (best,) = {max(one.probability for one in annotate(make(), squares).found)}
    none = annotate(make(Pipeline("gap@1", min_probability=1.0)), squares)
    assert none.score == none.absence == pytest.approx(1 - best)
