"""Annotating: order kept, one bad picture alone, plugins that misbehave, same boxes again."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.annotation import Annotation
from heatbox.contract import Evidence, Examples
from heatbox.errors import (
    EvidenceError,
    LayerNotFoundError,
    NotFittedError,
    OptionError,
    PictureUnreadableError,
    PluginBrokenError,
)
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.explainers.anomaly import Anomaly
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_plugins.explainers.guided_backprop import GuidedBackprop
from heatbox_workers.annotate import Annotator, make_annotator

PIPELINE = Pipeline("gap@1", min_probability=0.0, max_labels=2)


@dataclass(frozen=True)
class Corner:
    """Marks a corner whose place depends on the class: what comes out is known."""

    def __call__(self, _classifier, _images, targets):
        heatmaps = torch.zeros(len(targets), 8, 8)
        for row, (_, target) in enumerate(targets.tolist()):
            heatmaps[row, 2 * target : 2 * target + 2, :4] = 1
        return Evidence(heatmaps=heatmaps)


@pytest.fixture
def make(classifier):
    def make_annotator(explainer=None, pipeline=PIPELINE, **fields):
        known = {label: [index] for index, label in enumerate(classifier.labels)}
        return Annotator(
            pipeline, classifier, explainer or Corner(), Components(threshold=0.5), known, Limits(), **fields
        )

    return make_annotator


@pytest.fixture
def pictures(tmp_path):
    """Five files; the third is no picture."""
    random = np.random.default_rng(1)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (40 + index, 80, 3), dtype=np.uint8)).save(path)
    paths[2].write_text("not a picture")
    return paths


def test_boxes_are_in_pixels_of_the_picture(make, pictures):
    (annotation,) = make().annotate(pictures[:1])
    assert (annotation.width, annotation.height) == (80, 40)
    for region in annotation.regions:
        row = int(region.class_name.split()[1])
        assert region.box.as_xyxy() == (0, 10 * row, 40, 10 * row + 10)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_one_bad_picture_costs_only_itself_and_order_is_kept(make, pictures, batch_size):
    outcomes = list(make(batch_size=batch_size).annotate(pictures))
    assert [type(outcome) for outcome in outcomes] == [
        Annotation,
        Annotation,
        PictureUnreadableError,
        Annotation,
        Annotation,
    ]
    assert [outcome.height for outcome in outcomes if isinstance(outcome, Annotation)] == [40, 41, 43, 44]


def test_nothing_in_nothing_out(make):
    assert list(make().annotate([])) == []


def test_pictures_are_read_only_a_little_ahead(make, pictures):
    asked = []

    def paths():
        for path in pictures * 10:
            asked.append(path)
            yield path

    next(make(batch_size=2).annotate(paths()))
    assert len(asked) <= 8


def test_the_same_picture_gets_the_same_boxes_alone_and_in_a_batch(make, pictures):
    annotator = make(GradCAM())
    together = list(annotator.annotate([pictures[0], pictures[1], pictures[3]]))
    alone = [next(annotator.annotate([path])) for path in (pictures[0], pictures[1], pictures[3])]
    again = list(annotator.annotate([pictures[0], pictures[1], pictures[3]]))
    assert together == again
    for first, second in zip(together, alone, strict=True):
        assert [region.id for region in first.regions] == [region.id for region in second.regions]


def test_region_ids_are_unique_and_scores_are_ordered(make, pictures):
    (annotation,) = make(GradCAM()).annotate(pictures[:1])
    ids = [region.id for region in annotation.regions]
    scores = [region.score for region in annotation.regions]
    assert len(set(ids)) == len(ids) > 0
    assert scores == sorted(scores, reverse=True)
    assert annotation.score == scores[-1]


def test_a_picture_without_a_confident_class_has_no_boxes(make, pictures):
    (annotation,) = make(pipeline=Pipeline("gap@1", min_probability=1.0)).annotate(pictures[:1])
    assert annotation.regions == ()
    assert annotation.evidence == ()


@dataclass(frozen=True)
class Stumbles:
    """Fails on any batch that holds the picture of 41 pixels' height, told by its brightest pixel."""

    brightest: float

    def __call__(self, classifier, images, targets):
        if float(images.max()) >= self.brightest:
            message = "stumbled"
            raise KeyError(message)
        return Corner()(classifier, images, targets)


def test_a_plugin_that_fails_on_one_picture_costs_only_that_picture(make, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, level in zip(paths, (10, 255, 20), strict=True):
        Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(path)
    outcomes = list(make(Stumbles(2.0)).annotate(paths))
    assert [type(outcome) for outcome in outcomes] == [Annotation, PluginBrokenError, Annotation]
    assert "KeyError" in str(outcomes[1])


@dataclass(frozen=True)
class Nan:
    """Returns NaN for class 0."""

    def __call__(self, classifier, images, targets):
        heatmaps = Corner()(classifier, images, targets).heatmaps
        heatmaps[targets[:, 1] == 0] = float("nan")
        return Evidence(heatmaps=heatmaps)


@pytest.mark.parametrize(("label", "kind"), [("class 0", EvidenceError), ("class 1", Annotation)])
def test_a_heatmap_that_is_not_finite_is_that_pictures_error(make, pictures, classifier, label, kind):
    annotator = make(Nan(), Pipeline("gap@1", labels=(label,)))
    known = {label: [classifier.labels.index(label)]}
    (outcome,) = replace(annotator, known=known).annotate(pictures[:1])
    assert type(outcome) is kind


@dataclass(frozen=True)
class Sure(Corner):
    """Is as sure of class c as it was told."""

    confidences: tuple[float, ...]

    def __call__(self, classifier, images, targets):
        found = super().__call__(classifier, images, targets)
        return replace(found, confidences=torch.tensor(self.confidences)[targets[:, 1]])


def probabilities(annotation):
    return {one.class_name: round(one.probability, 3) for one in annotation.evidence}


def test_how_sure_the_explainer_is_takes_the_place_of_the_probability(make, pictures):
    pipeline = Pipeline("gap@1", min_probability=0.0, max_labels=3)
    plain, sure = (
        next(make(one, pipeline).annotate(pictures[:1])) for one in (Corner(), Sure((0.25, 0.5, 1.5)))
    )
    assert probabilities(sure) == {"class 0": 0.25, "class 1": 0.5, "class 2": 1.0}
    scores = {region.class_name: region.score for region in plain.regions}
    for region in sure.regions:
        expected = scores[region.class_name] / probabilities(plain)[region.class_name]
        assert region.score == pytest.approx(expected * probabilities(sure)[region.class_name], rel=0.01)


@pytest.mark.parametrize(("asked", "kept"), [((), {"class 2"}), (("class 0",), {"class 0"})])
def test_what_the_explainer_is_too_little_sure_of_is_left_out_unless_it_was_asked_for(
    make, pictures, asked, kept
):
    pipeline = Pipeline("gap@1", min_probability=0.0, max_labels=3)
    (plain,) = make(Corner(), pipeline).annotate(pictures[:1])
    lowest = min(one.probability for one in plain.evidence)  # the classifier is sure enough of every class
    annotator = make(
        Sure((lowest / 2, lowest * 0.99, lowest * 1.01)),
        replace(pipeline, min_probability=lowest, labels=asked),
    )
    known = {name: annotator.known[name] for name in asked or annotator.known}
    (annotation,) = replace(annotator, known=known).annotate(pictures[:1])
    assert set(probabilities(annotation)) == kept
    assert {region.class_name for region in annotation.regions} == kept


@pytest.fixture
def anomaly(classifier):
    """Return a pipeline of a fitted anomaly explainer and the classifier with what it learnt of dark pictures."""
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.1 - 2
    nothing = Examples(images, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4))
    state = Anomaly().fit(classifier, [nothing])
    pipeline = Pipeline("gap@1", explainer="anomaly", state="0" * 12, own_label="anomaly")
    return pipeline, replace(classifier, state=state)


def bright_and_dark(folder):
    """Return pictures of dark noise, the first with a bright corner."""
    random = np.random.default_rng(1)
    for name in ("bright.png", "dark.png"):
        pixels = random.integers(0, 12, (64, 64, 3), dtype=np.uint8)
        pixels[:24, :24] += np.uint8(200 * (name == "bright.png"))
        Image.fromarray(pixels).save(folder / name)
    return [folder / "bright.png", folder / "dark.png"]


def test_finds_of_an_explainer_with_a_label_of_its_own_have_that_label(anomaly, tmp_path):
    pipeline, classifier = anomaly
    annotator = make_annotator(replace(pipeline, min_probability=0.6), classifier, Limits())
    bright, dark = annotator.annotate(bright_and_dark(tmp_path))
    assert {(region.label, region.class_name) for region in bright.regions} == {("anomaly", "anomaly")}
    assert bright.regions[0].box.x1 < 24
    assert dark.regions == ()
    assert bright.regions[0].score > 0.6


def test_the_projects_name_for_the_own_label_is_used(anomaly, tmp_path):
    pipeline, classifier = anomaly
    mapped = replace(pipeline, label_map=(("anomaly", "Strange"),), min_probability=0.6)
    bright, _ = make_annotator(mapped, classifier, Limits()).annotate(bright_and_dark(tmp_path))
    assert {(region.label, region.class_name) for region in bright.regions} == {("Strange", "anomaly")}


def test_crops_of_what_is_no_class_cannot_be_classified_again(anomaly):
    pipeline, classifier = anomaly
    with pytest.raises(OptionError, match="No class of the model is 'anomaly'"):
        make_annotator(replace(pipeline, min_crop_probability=0.5), classifier, Limits())
    assert make_annotator(replace(pipeline, min_mask_iou=0.5), classifier, Limits())


@pytest.mark.parametrize("name", ["anomaly", "faster_grad_cam", "box_regression"])
def test_an_explainer_that_has_not_learnt_says_how_it_learns(classifier, name):
    with pytest.raises(NotFittedError) as told:
        make_annotator(Pipeline(classifier.card.id, explainer=name), classifier, Limits())
    assert told.value.remedy == f"Run: heatbox fit {name} DATASET --model {classifier.card.id}."


@pytest.mark.parametrize(
    ("given", "explainer", "of_card", "used"),
    [
        ({"threshold": 0.6}, "guided_backprop", 0.2, 0.6),
        ({}, "guided_backprop", 0.2, GuidedBackprop.box_threshold),
        ({}, "grad_cam", 0.2, 0.2),
        ({}, "grad_cam", None, Components().threshold),
    ],
)
def test_the_threshold_is_the_one_given_the_explainers_the_cards_or_the_fitters(
    classifier, given, explainer, of_card, used
):
    card = classifier.card.model_copy(update={"box_threshold": of_card})
    pipeline = Pipeline(card.id, explainer=explainer, fitter_options=given)
    assert make_annotator(pipeline, replace(classifier, card=card), Limits()).fitter.threshold == used


def test_a_layer_that_is_not_there_is_told_before_any_picture_is_read(classifier):
    pipeline = Pipeline(
        classifier.card.id, explainer="layer_cam", explainer_options={"layers": ["features", "no"]}
    )
    with pytest.raises(LayerNotFoundError, match="no layer 'no'"):
        make_annotator(pipeline, classifier, Limits())


def test_a_layer_that_is_watched_and_puts_out_no_map_is_the_error_of_each_picture(classifier, pictures):
    options = {"middle": "features", "fine": "head"}
    pipeline = Pipeline(classifier.card.id, explainer="fused_cam", explainer_options=options)
    found = list(make_annotator(pipeline, classifier, Limits()).annotate(pictures))
    assert [error.code for error in found] == [
        "picture-unreadable" if index == 2 else "layer-not-found" for index in range(5)
    ]


def test_a_layer_that_is_watched_and_not_there_is_told_before_any_picture_is_read(classifier):
    pipeline = Pipeline(classifier.card.id, explainer="fused_cam", explainer_options={"fine": "no"})
    with pytest.raises(LayerNotFoundError, match="no layer 'no'"):
        make_annotator(pipeline, classifier, Limits())
