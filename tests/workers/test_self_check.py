"""The self-check: boxes that mask and classifier agree with are kept, the others told with reason and figures."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.annotation import Annotation, Region, TargetEvidence
from heatbox.boxes import Box
from heatbox.contract import Evidence
from heatbox.errors import PictureUnreadableError
from heatbox.pictures.images import Limits, Picture
from heatbox.pipeline import Pipeline
from heatbox_plugins.box_fitters.components import Components
from heatbox_workers.annotate import Annotator
from heatbox_workers.self_check import check_crops, check_masks, mask_iou


def drawn(*rows):
    return np.array([[mark == "#" for mark in row] for row in rows])


FULL = drawn("####", "####", "####", "####")
CORNER = drawn("####", "#...", "#...", "#...")
SPOTS = drawn("#...", "....", "....", "...#")
APART = drawn("##..", "##..", "....", "...#")


@pytest.mark.parametrize(
    ("mask", "box", "iou"),
    [
        (FULL, Box(0, 0, 1, 1), 1.0),
        (FULL, Box(0, 0, 1, 0.75), 0.75),
        (FULL, Box(0, 0, 1, 0.5), 0.0),  # half of a component is not most of it
        (CORNER, Box(0, 0, 1, 1), 7 / 16),
        (SPOTS, Box(0, 0, 1, 1), 2 / 16),
        (APART, Box(0, 0, 0.5, 0.5), 1.0),  # the far spot is another box's
        (APART, Box(0, 0, 0.375, 0.5), 0.75),  # pixels count as far as they are inside
        (APART, Box(0.5, 0, 1, 0.5), 0.0),
    ],
)
def test_the_iou_is_that_of_the_box_with_the_components_that_are_mostly_in_it(mask, box, iou):
    assert mask_iou(mask, box) == pytest.approx(iou)


def annotation(*boxes, mask=APART, label="class 0"):
    regions = tuple(Region(str(number), label, label, box, 0.5) for number, box in enumerate(boxes))
    evidence = TargetEvidence(label, label, 0.9, mask.astype(np.float32), mask)
    return Annotation(80, 40, regions, (evidence,))


def test_a_box_whose_mask_disagrees_is_rejected_with_its_figure_and_its_neighbour_stays():
    tight, loose = Box(0, 0, 40, 20), Box(0, 0, 80, 40)
    checked = check_masks(annotation(loose, tight), 0.5)
    assert [region.box for region in checked.regions] == [tight]
    (rejected,) = checked.rejected
    assert (rejected.region.box, rejected.mask_iou) == (loose, pytest.approx(5 / 16))
    assert rejected.reason == "its IoU with its mask is 0.312, below 0.5"
    assert rejected.crop_probability is None


@pytest.mark.parametrize(("limit", "kept"), [(0.0, 1), (5 / 16, 1), (0.32, 0)])
def test_the_limit_itself_is_enough(limit, kept):
    assert len(check_masks(annotation(Box(0, 0, 80, 40)), limit).regions) == kept


@pytest.fixture
def halves(classifier):
    """A picture whose left half the classifier takes for another class than its right half, and those classes."""
    random = np.random.default_rng(3)
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = random.integers(0, 256, (40, 40, 3))
    pixels[:, 40:] = (250, 20, 60)
    logits = classifier.logits(classifier.preprocess([pixels[:, :40], pixels[:, 40:]]))
    left, right = classifier.probabilities(logits)
    return Picture(pixels, 80, 40), left, right


def test_a_crop_is_classified_alone(classifier, halves):
    picture, left, right = halves
    boxes = Box(0, 0, 40, 40), Box(40, 0, 80, 40)
    limit = float(max(left[0], right[0])) - 1e-6
    (checked,) = check_crops([(picture, annotation(*boxes))], classifier, {"class 0": [0]}, limit)
    (region,), (rejected,) = checked.regions, checked.rejected
    kept, lost = boxes if left[0] > right[0] else reversed(boxes)
    assert (region.box, rejected.region.box) == (kept, lost)
    assert rejected.crop_probability == pytest.approx(float(min(left[0], right[0])), abs=1e-6)
    assert rejected.reason.startswith("its crop is class 0 with probability 0.")


def test_a_label_is_as_probable_as_the_likeliest_of_its_classes(classifier, halves):
    picture, left, _ = halves
    pairs = [(picture, annotation(Box(0, 0, 40, 40), label="any"))]
    (checked,) = check_crops(pairs, classifier, {"any": [0, 1, 2]}, 1.0)
    assert checked.rejected[0].crop_probability == pytest.approx(float(left.max()), abs=1e-6)


def test_a_crop_is_found_in_a_picture_that_was_read_smaller(classifier, halves):
    picture, left, _ = halves
    large = replace(annotation(Box(0, 0, 400, 400)), width=800, height=400)
    pairs = [(Picture(picture.pixels, 800, 400), large)]
    (checked,) = check_crops(pairs, classifier, {"class 0": [0]}, 1.0)
    assert checked.rejected[0].crop_probability == pytest.approx(float(left[0]), abs=1e-6)


@pytest.mark.parametrize("box", [Box(0, 0, 0.1, 0.1), Box(79.9, 39.9, 80, 40), Box(0, 0, 80, 0.01)])
def test_the_smallest_box_has_a_crop(classifier, halves, box):
    (checked,) = check_crops([(halves[0], annotation(box))], classifier, {"class 0": [0]}, 1.0)
    assert 0 < checked.rejected[0].crop_probability < 1


def test_many_boxes_of_many_pictures_come_back_in_order(classifier, halves):
    picture, *_ = halves
    boxes = [Box(x, 0, x + 9, 40) for x in range(70)]
    pairs = [(picture, annotation(*boxes[:33])), (picture, annotation()), (picture, annotation(*boxes[33:]))]
    together = check_crops(pairs, classifier, {"class 0": [0]}, 1.0)
    alone = [check_crops([(picture, annotation(box))], classifier, {"class 0": [0]}, 1.0)[0] for box in boxes]
    assert [len(one.rejected) for one in together] == [33, 0, 37]
    assert [one.region.box for each in together for one in each.rejected] == boxes
    probabilities = [one.crop_probability for each in together for one in each.rejected]
    expected = [one.rejected[0].crop_probability for one in alone]
    assert probabilities == pytest.approx(expected, abs=1e-6)


@dataclass(frozen=True)
class Corner:
    """Marks an L whose box is mostly empty, and a full square; or gives both as boxes that came ready."""

    ready: bool = False

    def __call__(self, _classifier, _images, targets):
        if self.ready:
            boxes = torch.tensor([[0.0, 0, 16, 16], [24, 24, 32, 32], [4, 4, 8, 8]])
            return Evidence(boxes=[boxes] * len(targets), scores=[torch.ones(3)] * len(targets))
        heatmaps = torch.zeros(len(targets), 8, 8)
        heatmaps[:, 0, :4] = heatmaps[:, :4, 0] = 1
        heatmaps[:, 6:, 6:] = 1
        return Evidence(heatmaps=heatmaps)


@pytest.fixture
def make(classifier):
    def make_annotator(explainer=None, **limits):
        pipeline = Pipeline("gap@1", min_probability=0.0, max_labels=1, **limits)
        known = {label: [index] for index, label in enumerate(classifier.labels)}
        return Annotator(pipeline, classifier, explainer or Corner(), Components(0.5), known, Limits())

    return make_annotator


@pytest.fixture
def paths(tmp_path):
    """Three files; the second is no picture."""
    random = np.random.default_rng(1)
    found = [tmp_path / f"{number}.png" for number in range(3)]
    for path in found:
        Image.fromarray(random.integers(0, 256, (40, 80, 3), dtype=np.uint8)).save(path)
    found[1].write_text("not a picture")
    return found


@pytest.mark.parametrize(
    ("limits", "kept", "rejected"),
    [
        ({}, 2, 0),
        ({"min_mask_iou": 0.6}, 1, 1),
        ({"min_crop_probability": 1.0}, 0, 2),
        ({"min_crop_probability": 0.001}, 2, 0),
        ({"min_mask_iou": 0.6, "min_crop_probability": 1.0}, 0, 2),
    ],
)
def test_every_box_is_kept_or_rejected(make, paths, limits, kept, rejected):
    first, bad, last = make(**limits).annotate(paths)
    assert isinstance(bad, PictureUnreadableError)
    for outcome in (first, last):
        assert (len(outcome.regions), len(outcome.rejected)) == (kept, rejected)
        assert len(outcome.evidence) == 1


def test_a_box_is_told_the_first_limit_that_it_misses(make, paths):
    (outcome,) = make(min_mask_iou=0.6, min_crop_probability=1.0).annotate(paths[:1])
    figures = [(one.mask_iou is None, one.crop_probability is None) for one in outcome.rejected]
    assert figures == [(False, True), (True, False)]


def test_boxes_that_came_ready_have_no_mask_to_disagree_with(make, paths):
    (outcome,) = make(Corner(ready=True), min_mask_iou=1.0).annotate(paths[:1])
    assert (len(outcome.regions), outcome.rejected) == (3, ())


def test_what_is_kept_is_what_it_was_without_the_check(make, paths):
    (plain,), (checked,) = (one.annotate(paths[:1]) for one in (make(), make(min_mask_iou=0.6)))
    boxes = {region.box for region in plain.regions}
    assert {region.box for region in checked.regions} < boxes
    assert {region.box for region in checked.regions} | {one.region.box for one in checked.rejected} == boxes
