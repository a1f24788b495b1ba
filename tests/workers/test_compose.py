"""The demo's scenes: seeded, boxes exact and inside, several documents that hardly cover each other."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from heatbox.boxes import Box
from heatbox_workers.demo.clutter import CLUTTER
from heatbox_workers.demo.compose import DOCUMENTS, LABELS, Scene, compose, extent


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(compose(seed=5, count=60, size=96))


def test_the_same_seed_gives_the_same_bytes_and_boxes(scenes):
    again = list(compose(seed=5, count=3, size=96))
    assert [scene.pixels.tobytes() for scene in again] == [scene.pixels.tobytes() for scene in scenes[:3]]
    assert [scene.boxes for scene in again] == [scene.boxes for scene in scenes[:3]]


@pytest.mark.parametrize(("seed", "part"), [(6, "training"), (5, "held-out")])
def test_another_seed_or_part_gives_other_pictures(scenes, seed, part):
    (other,) = compose(seed=seed, count=1, size=96, part=part)
    assert np.abs(other.pixels.astype(int) - scenes[0].pixels).mean() > 5


def test_zero_to_three_documents_are_in_a_picture(scenes):
    assert set(Counter(len(scene.boxes) for scene in scenes)) == {0, 1, 2, 3}


def test_every_class_is_about_as_frequent_as_the_others(scenes):
    counts = Counter(label for scene in scenes for label, _ in scene.boxes)
    assert set(counts) == set(LABELS)
    assert min(counts.values()) > sum(counts.values()) / len(LABELS) / 2


def test_image_labels_are_the_classes_of_the_boxes_once_each(scenes):
    twice = next(scene for scene in scenes if len(scene.boxes) > len(scene.labels))
    assert twice.labels == tuple(sorted({label for label, _ in twice.boxes}))


@pytest.mark.parametrize("size", [64, 97, 224])
def test_boxes_lie_inside_pictures_of_the_asked_size(size):
    for scene in compose(seed=1, count=8, size=size):
        assert scene.pixels.shape == (size, size, 3)
        assert all(box.x2 <= size and box.y2 <= size for _, box in scene.boxes)


def test_documents_hardly_cover_each_other(scenes):
    pairs = [pair for scene in scenes for pair in combinations([box for _, box in scene.boxes], 2)]
    assert pairs
    assert max(first.iou(second) for first, second in pairs) < 0.4


def test_an_extent_is_the_smallest_box_around_the_visible_pixels():
    visible = np.zeros((20, 30), bool)
    visible[4, 7] = visible[11, 3] = True
    assert extent(visible) == Box(3, 4, 8, 12)


def test_a_box_holds_a_picture_of_its_document():
    scene = next(
        s for s in compose(seed=2, count=40, size=160) if s.labels == ("receipt",) and len(s.boxes) == 1
    )
    box = scene.boxes[0][1]
    inside = scene.pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]
    assert np.percentile(inside.min(axis=2), 75) > 120  # white paper


@pytest.mark.parametrize("draw", [*DOCUMENTS.values(), *CLUTTER])
def test_a_drawing_varies_with_the_seed_and_only_with_it(draw):
    drawings = [draw(np.random.default_rng(seed)) for seed in (1, 1, 2, 3)]
    assert all(drawing.shape[2] == 4 and drawing.dtype == np.uint8 for drawing in drawings)
    assert drawings[0].tobytes() == drawings[1].tobytes()
    assert len({drawing.tobytes() for drawing in drawings}) > 1


@pytest.mark.parametrize("draw", DOCUMENTS.values())
def test_most_of_a_document_is_opaque(draw):
    assert (draw(np.random.default_rng(0))[..., 3] == 255).mean() > 0.95
