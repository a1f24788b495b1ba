"""Annotating: order kept, one bad picture alone, plugins that misbehave, same boxes again."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.annotation import Annotation
from heatbox.contract import Evidence
from heatbox.errors import EvidenceError, PictureUnreadableError, PluginBrokenError
from heatbox.images import Limits
from heatbox.pipeline import Pipeline
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_workers.annotate import Annotator

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
        for path in pictures * 4:
            asked.append(path)
            yield path

    next(make(batch_size=2).annotate(paths()))
    assert len(asked) <= 4


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
