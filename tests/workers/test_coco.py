"""Reading COCO truth: which pairs count, which class stands for a category, and files that are not COCO."""

import json

import pytest

from heatbox.boxes import Box
from heatbox.errors import DatasetError, LabelAmbiguousError
from heatbox_workers.coco import classes_by_name, read_boxes, read_coco

LABELS = ("cat", "dog, hound", "tree")
IMAGENET = tuple(f"name {index}" for index in range(1000))


def dataset(folder, categories, boxes, size=(100, 50)):
    """Write a data set of one picture; boxes are (category id, x, y, width, height)."""
    (folder / "images").mkdir(exist_ok=True)
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "categories": categories,
        "annotations": [{"image_id": 7, "category_id": first, "bbox": box} for first, *box in boxes],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_a_category_with_one_box_is_a_pair(tmp_path):
    source = dataset(tmp_path, [{"id": 1, "name": "cat"}], [(1, 10, 5, 30, 20)])
    (sample,), unmapped = read_coco(source, LABELS)
    assert sample.path == tmp_path / "images" / "a.png"
    assert (sample.width, sample.height) == (100, 50)
    assert [(one.category, one.classes, one.box) for one in sample.truths] == [
        ("cat", (0,), Box(10, 5, 40, 25))
    ]
    assert unmapped == []


@pytest.mark.parametrize(
    ("boxes", "pairs"),
    [
        ([(1, 0, 0, 10, 5)], 1),  # exactly 1 % of 100 x 50
        ([(1, 0, 0, 10, 4.9)], 0),
        ([(1, 0, 0, 50, 50), (1, 50, 0, 50, 50)], 0),
        ([(1, 0, 0, 50, 50), (1, 0, 0, 1, 1)], 0),  # the small one is a second box all the same
        ([(1, 0, 0, 50, 50), (2, 50, 0, 50, 50)], 2),
        ([(1, 120, 0, 50, 50)], 0),  # outside
        ([], 0),
    ],
)
def test_a_pair_has_exactly_one_box_of_at_least_one_percent(tmp_path, boxes, pairs):
    source = dataset(tmp_path, [{"id": 1, "name": "cat"}, {"id": 2, "name": "tree"}], boxes)
    samples, _ = read_coco(source, LABELS)
    assert sum(len(sample.truths) for sample in samples) == pairs


@pytest.mark.parametrize(
    ("category", "classes"),
    [
        ({"name": "Cat"}, (0,)),
        ({"name": "hound"}, (1,)),
        ({"name": "cat", "imagenet_indices": [2]}, (0,)),  # these are not ImageNet's classes
    ],
)
def test_a_category_is_found_by_its_name(tmp_path, category, classes):
    source = dataset(tmp_path, [{"id": 1, **category}], [(1, 0, 0, 50, 50)])
    (sample,), _ = read_coco(source, LABELS)
    assert sample.truths[0].classes == classes


def test_imagenet_indices_are_believed_where_the_classes_are_those_of_imagenet(tmp_path):
    categories = [
        {"id": 1, "name": "name 3", "imagenet_indices": [5, 9]},
        {"id": 2, "name": "name 4", "imagenet_indices": None},
        {"id": 3, "name": "name 6"},
    ]
    source = dataset(tmp_path, categories, [(number, 0, 0, 50, 50) for number in (1, 2, 3)])
    (sample,), unmapped = read_coco(source, IMAGENET)
    assert [one.classes for one in sample.truths] == [(5, 9), (6,)]
    assert unmapped == ["name 4"]


def test_categories_without_a_class_are_named_and_measure_nothing(tmp_path):
    source = dataset(tmp_path, [{"id": 1, "name": "submarine"}], [(1, 0, 0, 50, 50)])
    assert read_coco(source, LABELS) == ([], ["submarine"])


def test_two_categories_that_mean_one_class_are_an_error(tmp_path):
    categories = [{"id": 1, "name": "Cat"}, {"id": 2, "name": "CAT"}]
    with pytest.raises(LabelAmbiguousError, match="both claim"):
        read_coco(dataset(tmp_path, categories, []), LABELS)


def test_pictures_may_lie_elsewhere_than_beside_the_file(tmp_path):
    source = dataset(tmp_path, [{"id": 1, "name": "cat"}], [(1, 0, 0, 50, 50)])
    (tmp_path / "images").rename(tmp_path / "pictures")
    (sample,), _ = read_coco(source / "annotations.json", LABELS, tmp_path / "pictures")
    assert sample.path.parent.name == "pictures"
    with pytest.raises(DatasetError, match="no folder of pictures"):
        read_coco(source, LABELS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "not COCO"),
        ("{", "not COCO"),
        ('{"images": [], "categories": [], "annotations": []}', "images"),
        ('{"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}', "file_name"),
    ],
)
def test_what_is_not_coco_is_told(tmp_path, content, reason):
    file = tmp_path / "annotations.json"
    file.write_text(content)
    with pytest.raises(DatasetError, match=reason):
        read_coco(file, LABELS)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_coco(tmp_path, LABELS)


def test_every_box_of_a_class_can_be_read_also_of_pictures_without_a_pair(tmp_path):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "submarine"}]
    boxes = [(1, 0, 0, 50, 50), (1, 0, 0, 1, 1), (2, 0, 0, 9, 9)]
    (sample,), unmapped = read_boxes(dataset(tmp_path, categories, boxes), LABELS)
    assert [one.box for one in sample.truths] == [Box(0, 0, 50, 50), Box(0, 0, 1, 1)]
    assert unmapped == ["submarine"]
    (empty,), _ = read_boxes(dataset(tmp_path, categories, []), LABELS)
    assert empty.truths == ()


def test_names_without_a_class_have_no_index():
    assert classes_by_name(["Hound", "submarine"], LABELS) == {"Hound": (1,), "submarine": ()}
    assert classes_by_name(["submarine"], LABELS) == {"submarine": ()}
    assert classes_by_name([], LABELS) == {}
    assert classes_by_name(["cat"], ()) == {"cat": ()}
