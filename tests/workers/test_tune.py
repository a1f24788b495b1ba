"""Tuning: what is chosen for labels, on which pictures it is measured, and what is left as it is."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from fixtures_colours import LABELS

from heatbox.boxes import Box
from heatbox.contract import Evidence
from heatbox.datasets.examples import Marked, for_comparison
from heatbox.errors import TuningError, UnsupportedError
from heatbox.fitted import list_states
from heatbox.metrics import box_quality
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline, Way
from heatbox.profiles import with_profile
from heatbox_workers.annotate import make_annotator
from heatbox_workers.fitting import with_state
from heatbox_workers.loading import load_classifier
from heatbox_workers.targets import Target
from heatbox_workers.tune import TuneOptions, tune
from heatbox_workers.tune.board import Board
from heatbox_workers.tune.candidates import Candidate, Choice, Fitting
from heatbox_workers.tune.choosing import Question, choose, cross_validate, measure
from heatbox_workers.tune.learning import SeenExamples, cross_fit, remembering
from heatbox_workers.tune.seeing import Heat, Picture, Seen, doubles, fold_of
from heatbox_workers.tune.sources import read_examples
from heatbox_workers.ways import ReadyExplainer

FAST = TuneOptions(explainers=("grad_cam",), folds=3, least_pictures=5)


@pytest.fixture
def classifier(colours):
    return load_classifier(colours.store, colours.card)


@pytest.fixture
def examples(colours):
    return read_examples(colours.data, LABELS)[0]


@pytest.fixture
def tuned(colours, classifier, examples):
    """Tune a pipeline of Grad-CAM with these options, on these examples."""

    def tuned(options=FAST, pictures=None, **fields):
        pipeline = Pipeline(classifier.card.id, **{"explainer": "grad_cam", **fields})
        return pipeline, tune(classifier, colours.store, pipeline, pictures or examples, options)

    return tuned


def real_quality(pipeline, classifier, examples, states=None):
    """Return the box quality that annotating the pictures really has."""
    found = make_annotator(pipeline, classifier, Limits(), states).annotate([one.path for one in examples])
    return box_quality(
        (
            np.array([r.box.as_xyxy() for r in each.regions if r.label == label]).reshape(-1, 4),
            np.array([m.box.as_xyxy() for m in one.boxes if m.label == label]).reshape(-1, 4),
        )
        for each, one in zip(found, examples, strict=True)
        for label in LABELS
    )


def test_what_is_wrong_with_a_threshold_is_found_and_really_gained(colours, classifier, examples, tuned):
    half = sorted(examples, key=lambda one: one.name)
    pipeline, found = tuned(pictures=half[:20], fitter_options={"threshold": 0.95})
    assert found.measured.gain > 0.2
    assert all(one.chosen for one in found.labels)
    changed, notes = with_profile(pipeline, found.profile, colours.store, classifier.card)
    gained = real_quality(changed, classifier, half[20:]) - real_quality(pipeline, classifier, half[20:])
    assert (gained > 0.2, notes) == (True, ())


def test_the_present_quality_is_that_of_annotating(classifier, examples, tuned):
    pipeline, found = tuned(fitter_options={"threshold": 0.8})
    assert found.measured.before == pytest.approx(real_quality(pipeline, classifier, examples), abs=2e-3)


def test_the_same_pictures_in_another_order_or_twice_give_the_same_profile(examples, tuned):
    _, first = tuned(fitter_options={"threshold": 0.8})
    _, second = tuned(pictures=[*reversed(examples), *examples[:5]], fitter_options={"threshold": 0.8})
    assert second.profile == first.profile
    assert second.pictures == first.pictures == len({one.sha256 for one in examples})


def test_where_nothing_may_change_nothing_is_gained(tuned):
    _, found = tuned(replace(FAST, ways=False, probabilities=False), fitter_options={"threshold": 0.95})
    assert (found.measured.gain, found.profile.labels) == (0, ())
    assert all(one.reason == "nothing was better on left-out pictures" for one in found.labels)


def test_a_label_whose_limits_stand_in_the_label_config_keeps_them(tuned):
    options = replace(FAST, keep_thresholds=frozenset({"red"}), keep_probabilities=frozenset({"red"}))
    _, found = tuned(options, fitter_options={"threshold": 0.95})
    assert found.profile.labels == ("blue",)


def test_a_label_with_few_pictures_keeps_what_it_has(examples, tuned):
    few = [
        replace(one, boxes=tuple(m for m in one.boxes if m.label == "blue" or place < 9))
        for place, one in enumerate(examples)
    ]
    _, found = tuned(replace(FAST, least_pictures=10), few, fitter_options={"threshold": 0.95})
    red = next(one for one in found.labels if one.label == "red")
    assert (red.measured, red.chosen, red.reason) == (None, "", "fewer than 10 pictures have boxes of it")
    assert found.profile.labels == ("blue",)


def test_labels_with_too_few_pictures_of_their_own_are_tuned_together(examples, tuned):
    _, found = tuned(replace(FAST, least_pictures=25), examples, fitter_options={"threshold": 0.95})

    assert all(gain.pictures < 25 for gain in found.labels)
    assert len({gain.chosen for gain in found.labels}) == 1
    assert found.labels[0].chosen
    assert found.measured.gain > 0.1


def test_too_few_pictures_of_all_labels_are_an_error_with_the_figures(examples, tuned):
    with pytest.raises(TuningError, match=r"than 50 pictures.*\(blue \d+, red \d+\)"):
        tuned(replace(FAST, least_pictures=50), examples)


def test_pictures_in_which_nobody_looked_for_boxes_do_not_count(examples, tuned):
    _, found = tuned(pictures=[*examples[:20], *(replace(one, boxes=None) for one in examples[20:])])
    assert found.pictures == 20


def test_a_picture_that_cannot_be_read_and_a_label_without_a_class_are_told(examples, tuned, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    pictures = [
        replace(examples[0], path=broken, name="broken.png"),
        replace(examples[1], boxes=(Marked("green", examples[1].boxes[0].box),)),
        *examples[2:],
    ]
    _, found = tuned(pictures=pictures)
    assert any("broken.png" in note for note in found.notes)
    assert "No class of the model stands for green." in found.notes


def test_labels_keep_the_ways_that_they_had_where_nothing_is_better(tuned):
    ways = (("red", Way("eigen_cam", {}, "enclosing", {"threshold": 0.4})),)
    _, found = tuned(replace(FAST, ways=False, probabilities=False), label_ways=ways)
    assert found.profile.label_ways == ways


def test_an_explainer_whose_finds_are_no_class_cannot_be_tuned(tuned):
    with pytest.raises(UnsupportedError, match="no class of the model"):
        tuned(explainer="anomaly", own_label="anomaly", state="0123456789ab")


LEARNING = replace(FAST, explainers=("box_regression",), probabilities=False, folds=2)


@pytest.fixture
def corners(examples):
    """The pictures with boxes that no heatmap shows, and that can be learnt: the upper left quarter."""
    quarter = Box(0.0, 0.0, 32.0, 32.0)
    return [replace(one, boxes=tuple(replace(m, box=quarter) for m in one.boxes)) for one in examples]


def test_a_learnt_way_is_published_with_its_state_and_serves(colours, classifier, tuned, corners):
    pipeline, found = tuned(LEARNING, corners)
    (state,) = list_states(colours.store, classifier.card)
    assert [way.state for _, way in found.profile.label_ways] == [state.id] * 2
    changed, _ = with_profile(pipeline, found.profile, colours.store, classifier.card)
    states = {state.id: with_state(classifier, state).state}
    assert real_quality(changed, classifier, corners, states) > found.measured.before + 0.1


def test_what_serves_has_not_learnt_from_pictures_that_models_are_compared_on(
    colours, classifier, examples, tuned, corners
):
    apart = for_comparison(examples)
    assert {one.split for one in apart} == {"val", "test"}
    tuned(LEARNING, corners)
    (state,) = list_states(colours.store, classifier.card)
    assert state.examples == len(examples) - len(apart)


def test_a_dry_run_publishes_no_state(colours, classifier, tuned, corners):
    _, found = tuned(replace(LEARNING, publish=False), corners)
    assert found.profile.labels == ("blue", "red")
    assert list_states(colours.store, classifier.card) == []


# the parts


@dataclass(frozen=True)
class Spy:
    """Learns the pictures that it is shown, and fails where it is asked about one of them."""

    def fit(self, _classifier, examples):
        return {"known": torch.cat([batch.images.sum(dim=(1, 2, 3)) for batch in examples])}

    def __call__(self, classifier, images, targets):
        asked = images.sum(dim=(1, 2, 3))
        assert not torch.isin(asked, classifier.state["known"]).any()
        return Evidence(heatmaps=torch.ones(len(targets), 2, 2))


def test_an_explainer_is_never_asked_about_a_picture_that_it_learnt_from(classifier):
    random = np.random.default_rng(0)
    squares = random.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    pictures = [
        Picture(square, {"red": np.array([[0.0, 0, 9, 9]])}, place % 3)
        for place, square in enumerate(squares)
    ]
    target = Target("red", 0, 1.0)
    seen = Seen([[target]] * 12, [{"red": target}] * 12)
    examples = SeenExamples(pictures, seen, remembering(classifier), frozenset({"red"}))
    told = []
    cross_fit(examples, 5, ReadyExplainer("spy", Spy()), lambda: told.append(1))
    assert (seen.broken, len(seen.heats), len(told)) == ({}, 12, 3)


def test_a_remembered_feature_map_is_the_networks(classifier):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    memory = remembering(classifier)
    first, again = memory.feature_maps(images), memory.feature_maps(images.clone())
    assert len(memory.remembered) == 1
    assert torch.equal(first, again)
    assert torch.allclose(first, classifier.feature_maps(images), atol=1e-2)


def test_folds_depend_on_the_content_alone_and_not_on_the_digits_of_the_parts():
    digests = [f"00000000{number:08x}" + 48 * "0" for number in range(50)]
    assert {fold_of(one, 5) for one in digests} == {0, 1, 2, 3, 4}
    assert fold_of(digests[7], 5) == fold_of(f"{'f' * 8}{digests[7][8:]}", 5)


def cells(rows):
    """Return a heatmap of 8 x 8 cells with a hot square and a warm frame around it."""
    heat = np.zeros((8, 8), np.float16)
    heat[1:7, 1:7] = 0.45
    heat[rows, rows] = 1
    return heat


@pytest.fixture
def question():
    """Six pictures of three folds with one label; a true box is the hot square alone, or in the last two nothing."""
    square = np.zeros((64, 64, 3), np.uint8)
    box, none = np.array([[16.0, 16, 48, 48]]), {}
    pictures = [Picture(square, {"red": box} if place < 4 else none, place % 3) for place in range(6)]
    sure = (0.9, 0.9, 0.9, 0.9, 0.3, 0.3)
    seen = Seen(targets=[{"red": Target("red", 0, one)} for one in sure])
    seen.heats = {(0, place, "red"): Heat(cells(slice(2, 6))) for place in range(6)}
    candidate = Candidate(Way("grad_cam"), ReadyExplainer("grad_cam", Spy()))
    present = Choice(0, Fitting.of("components", threshold=0.2), 0.25)
    return Question(Board(pictures, seen), ("red",), present, {0: candidate})


def test_a_threshold_and_a_probability_are_chosen_that_fit_the_pictures(question):
    best = choose(question, np.ones(6, dtype=bool))
    assert best.fitting.threshold > 0.45
    assert best.min_probability > 0.3


def test_left_out_pictures_have_no_say_in_what_is_chosen(question):
    rows = np.array([one.fold != 0 for one in question.board.pictures])
    first = choose(question, rows)
    wrong = [
        replace(one, truths={"red": np.array([[0.0, 0, 5, 5]])}) if one.fold == 0 else one
        for one in question.board.pictures
    ]
    board = Board(wrong, question.board.seen)
    assert choose(replace(question, board=board), rows) == first
    assert not np.array_equal(board.parts("red", first)[~rows], question.board.parts("red", first)[~rows])


def test_what_is_measured_is_the_left_out_part_of_each_choice(question):
    held = cross_validate(question)
    found, is_sure = measure(list(held.values()), 0)
    assert (found.after, is_sure) == (pytest.approx(1, abs=0.05), True)
    assert found.before == pytest.approx(box_quality_of_present(question))
    assert found.low <= found.gain <= found.high


def box_quality_of_present(question):
    parts = question.board.parts("red", question.present)
    return parts[:, 0].sum() / parts[:, 1].sum()


def test_where_the_present_way_is_as_good_as_any_it_stays(question):
    every = np.ones(6, dtype=bool)
    perfect = choose(question, every)
    assert choose(replace(question, present=perfect), every) == perfect
    held = cross_validate(replace(question, present=perfect))
    assert measure(list(held.values()), 0)[1] is False


def test_explainers_with_the_same_maps_are_tried_once():
    seen = Seen(targets=[{"red": Target("red", 0, 0.9)}])
    heat = np.random.default_rng(0).random((4, 4)).astype(np.float16)
    for number, one in enumerate([heat, heat * np.float16(0.5), 1 - heat, heat[:2]]):
        seen.heats[number, 0, "red"] = Heat(one)
    assert doubles(seen, [0, 1, 2, 3]) == {1}
