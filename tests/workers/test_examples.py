"""Examples to learn from: three forms of data sets, boxes in input pixels, one bad picture alone."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.boxes import Box
from heatbox.errors import DatasetError
from heatbox.pictures.images import Limits
from heatbox_workers.examples import ExampleBatches, Labelled, read_dataset

LABELS = ("class 0", "class 1", "class 2")  # of the classifier, whose pictures have 32 pixels


def draw(path, size=(64, 128), level=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


@pytest.fixture
def classes(tmp_path):
    """A folder for each class, one for no class, and a picture beside them."""
    for name in ("Class_1/a.png", "Class_1/deep/b.png", "class 0/c.png", "submarine/d.png", "e.png"):
        draw(tmp_path / "set" / name)
    return tmp_path / "set"


@pytest.fixture
def coco(tmp_path):
    """Two pictures; one object of a class, one of a category that has none."""
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "images" / "b.png")
    content = {
        "images": [{"id": n, "file_name": f"{'xab'[n]}.png", "width": 64, "height": 128} for n in (1, 2)],
        "categories": [{"id": 1, "name": "Class 2"}, {"id": 2, "name": "submarine"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [16, 32, 32, 64]},
            {"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9]},
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8]},
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return tmp_path


def objects(pictures, folder):
    return {str(one.path.relative_to(folder)): one.objects for one in pictures}


def test_folders_name_classes_as_labels_do(classes):
    pictures, unmapped = read_dataset(classes, LABELS)
    assert objects(pictures, classes) == {
        "Class_1/a.png": ((1, None),),
        "Class_1/deep/b.png": ((1, None),),
        "class 0/c.png": ((0, None),),
        "e.png": (),
        "submarine/d.png": (),
    }
    assert unmapped == ["submarine"]


def test_a_folder_of_pictures_says_nothing_about_them(classes):
    pictures, unmapped = read_dataset(classes / "Class_1" / "deep", LABELS)
    assert [(one.path.name, one.objects, one.size) for one in pictures] == [("b.png", (), None)]
    assert unmapped == []


def test_a_data_set_may_be_named_from_where_one_is(classes, monkeypatch):
    monkeypatch.chdir(classes.parent)
    for source in ("set", "./set", "set/../set", "set/Class_1/.."):
        pictures, _ = read_dataset(type(classes)(source), LABELS)
        assert sum(len(one.objects) for one in pictures) == 3


@pytest.mark.parametrize("file", ["", "annotations.json"])
def test_coco_has_every_box_of_a_class(coco, file):
    pictures, unmapped = read_dataset(coco / file, LABELS)
    assert [one.path.name for one in pictures] == ["a.png", "b.png"]
    assert pictures[0].objects == ((2, Box(16, 32, 48, 96)), (2, Box(0, 0, 8, 8)))
    assert (pictures[1].objects, pictures[1].size) == ((), (64, 128))
    assert unmapped == ["submarine"]


@pytest.mark.parametrize("nothing", ["nowhere", "empty"])
def test_what_is_no_data_set_is_told(tmp_path, nothing):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=nothing):
        read_dataset(tmp_path / nothing, LABELS)


@pytest.fixture
def batches(classifier, tmp_path):
    """Return the maker of batches from (name, objects, size), pictures drawn where the name is no file yet."""

    def make(*described, **fields):
        pictures = []
        for index, (name, *known) in enumerate(described):
            path = tmp_path / name
            pictures.append(Labelled(path if path.exists() else draw(path, level=10 * index), *known))
        return ExampleBatches(pictures, classifier, Limits(), **fields)

    return make


def test_boxes_are_scaled_to_the_input_and_unknown_ones_are_nan(batches):
    (found,) = batches(("a.png", ((2, Box(16, 32, 48, 96)), (0, None)), (64, 128)), ("b.png",))
    assert found.images.shape == (2, 3, 32, 32)
    assert found.targets.tolist() == [[0, 2], [0, 0]]
    assert found.boxes[0].tolist() == [8, 8, 24, 24]
    assert bool(found.boxes[1].isnan().all())


def test_pictures_without_anything_known_have_no_rows(batches):
    (found,) = batches(("a.png",), ("b.png",))
    assert (found.targets.shape, found.boxes.shape) == ((0, 2), (0, 4))
    assert (found.targets.dtype, found.boxes.dtype) == (torch.int64, torch.float32)


def test_a_bad_picture_costs_only_itself_and_is_told_once(batches, tmp_path):
    (tmp_path / "torn.png").write_text("no picture")
    examples = batches(("a.png", ((1, None),)), ("torn.png", ((0, None),)), ("b.png", ((2, None),)))
    (found,) = examples
    assert found.targets.tolist() == [[0, 1], [1, 2]]
    assert {path.name: error.code for path, error in examples.failed.items()} == {
        "torn.png": "picture-unreadable"
    }


def test_a_bad_picture_is_not_tried_again(batches, tmp_path):
    (tmp_path / "torn.png").write_text("no picture")
    examples = batches(("torn.png",), ("a.png",))
    assert [len(batch.images) for batch in examples] == [1]
    draw(tmp_path / "torn.png")
    assert [len(batch.images) for batch in examples] == [1]
    assert len(examples.failed) == 1


def test_a_batch_of_bad_pictures_is_left_out(batches, tmp_path):
    (tmp_path / "torn.png").write_text("no picture")
    assert list(batches(("torn.png",))) == []


def test_boxes_drawn_on_another_size_are_told(batches):
    examples = batches(("a.png", ((1, Box(0, 0, 9, 9)),), (128, 64)))
    assert list(examples) == []
    (error,) = examples.failed.values()
    assert error.sentence.startswith(
        "The picture is 64 x 128 pixels upright, its boxes were drawn on 128 x 64"
    )


def test_pictures_come_in_the_same_order_every_time_and_are_counted_once(batches):
    seen = []
    examples = batches(*((f"{n}.png", ((n % 3, None),)) for n in range(11)), seen=lambda: seen.append(1))
    first, again = list(examples), list(examples)
    assert [len(batch.images) for batch in first] == [8, 3]
    assert len(seen) == 11
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
    levels = torch.cat([batch.images for batch in first])[:, 0, 0, 0]
    assert np.all(np.diff(levels.numpy()) > 0)
