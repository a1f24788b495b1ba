"""Material: each picture once, corrections before data sets, what cannot be used told and nothing else lost."""

import json
import struct
import zlib

import pytest
from fixtures_colours import draw
from fixtures_learning import painted

from heatbox.corrections.corrected import Corrected, Placed
from heatbox.datasets.examples import Example
from heatbox.errors import DatasetError, PictureNotFoundError, TooLittleError
from heatbox.models import make_card
from heatbox.pictures.images import Limits
from heatbox.trainings.order import TrainingOrder
from heatbox_workers.training.material import Material, as_labelled, choose_head, class_names, gather, held

COLOURS = ("red", "blue")


@pytest.fixture
def folders(tmp_path):
    """A folder with a folder for each class, nine pictures in each."""
    for colour in COLOURS:
        for number in range(9):
            seed = number + 100 * COLOURS.index(colour)
            painted(tmp_path / "data" / colour / f"{number}.png", [(colour, 3 * number, 10, 20)], seed=seed)
    return tmp_path / "data"


def corrected(path, labels=("blue",), corners=(0.25, 0.25, 0.5, 0.5), task=1):
    boxes = None if corners is None else tuple(Placed(label, corners) for label in labels)
    return Corrected(1, task, str(path), tuple(labels), boxes, annotation=task)


def gathered(classes=COLOURS, hold=lambda example: example, **fields):
    def fetch(address, _task):
        from pathlib import Path

        if not Path(address).exists():
            raise PictureNotFoundError(f"There is no file {address}.", "Check the path.")
        return Path(address)

    given = {name: tuple(map(str, value)) if name == "data" else value for name, value in fields.items()}
    return gather(TrainingOrder("b@1", "new", **given), classes, fetch, Limits(), hold)


def test_a_corrected_picture_goes_before_the_same_one_in_the_data(folders):
    material = gathered(corrected=(corrected(folders / "red" / "3.png"),), data=(folders,))
    assert len(material.examples) == 18
    first = material.examples[0]
    assert (first.task, first.labels, first.boxes[0].label) == (1, ("blue",), "blue")
    assert not material.rejected


def test_the_same_content_is_there_once(folders):
    again = folders / "red" / "again.png"
    again.write_bytes((folders / "red" / "3.png").read_bytes())
    assert len(gathered(data=(folders, folders)).examples) == 18


def test_boxes_of_data_are_read_and_left_aside_where_only_labels_are_wanted(tmp_path):
    draw(tmp_path / "coco")
    whole, labels = (gathered(data=(tmp_path / "coco",), labels_only=only) for only in (False, True))
    assert all(len(one.boxes) == len(one.labels) for one in whole.examples)
    assert {one.boxes for one in labels.examples} == {None}
    assert [one.labels for one in labels.examples] == [one.labels for one in whole.examples]


def test_boxes_of_corrections_are_looked_at_also_where_data_are_labels_only(folders, tmp_path):
    own = painted(tmp_path / "own.png", [("blue", 16, 16, 16)], seed=99)
    material = gathered(corrected=(corrected(own),), data=(folders,), labels_only=True)
    assert [one.boxes is not None for one in material.examples] == [True] + [False] * 18


def huge_png():
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 60))
        + chunk(b"IEND", b"")
    )


def test_bad_pictures_lose_only_themselves_and_are_told(folders, tmp_path):
    whole = (folders / "red" / "3.png").read_bytes()
    (folders / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folders / "red" / "huge.png").write_bytes(huge_png())
    (folders / "red" / "text.png").write_text("no picture")
    material = gathered(data=(folders,), corrected=(corrected(tmp_path / "missing.png", task=7),))
    assert len(material.examples) == 18
    told = {one.name: (one.code, one.task) for one in material.rejected}
    assert told == {
        "missing.png": ("picture-not-found", 7),
        "cut.png": ("picture-unreadable", None),
        "huge.png": ("picture-too-large", None),
        "text.png": ("picture-unreadable", None),
    }
    assert all(one.reason for one in material.rejected)


def test_a_missing_file_of_a_coco_set_is_told(tmp_path):
    draw(tmp_path / "coco")
    (tmp_path / "coco" / "images" / "05.png").unlink()
    material = gathered(data=(tmp_path / "coco",))
    assert len(material.examples) == 29
    assert [one.name for one in material.rejected] == ["05.png"]


@pytest.mark.parametrize(("labels_only", "used"), [(False, 29), (True, 30)])
def test_boxes_of_another_size_cost_the_picture_only_where_they_count(tmp_path, labels_only, used):
    draw(tmp_path / "coco")
    path = tmp_path / "coco" / "annotations.json"
    content = json.loads(path.read_text())
    content["images"][4]["width"] = 640
    path.write_text(json.dumps(content))
    material = gathered(data=(tmp_path / "coco",), labels_only=labels_only)
    assert len(material.examples) == used
    assert [one.code for one in material.rejected] == ["size"] * (30 - used)


def test_unknown_labels_are_told_and_their_pictures_count_as_nothing(folders, tmp_path):
    own = painted(tmp_path / "own.png", [("green", 16, 16, 16)], seed=98)
    material = gathered(classes=("red",), corrected=(corrected(own, ("green",)),), data=(folders,))
    assert {one.labels for one in material.examples} == {("red",)}
    reasons = {one.name: one.reason for one in material.rejected if one.code == "label-unknown"}
    assert reasons == {"own.png": "Not among the classes: 'green'.", "data": "Not among the classes: 'blue'."}
    assert sum(one.code == "unlabelled" for one in material.rejected) == 9


def test_a_picture_in_no_folder_of_a_class_is_told(folders):
    painted(folders / "loose.png", [("red", 1, 1, 20)], seed=97)
    (told,) = gathered(data=(folders,)).rejected
    assert (told.name, told.code) == ("loose.png", "unlabelled")


def test_a_coco_picture_without_boxes_is_one_of_nothing(tmp_path):
    draw(tmp_path / "coco")
    path = tmp_path / "coco" / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 4]
    path.write_text(json.dumps(content))
    found = [one for one in gathered(data=(tmp_path / "coco",)).examples if not one.labels]
    assert [(one.name, one.boxes) for one in found] == [("04.png", ())]


def test_too_little_is_an_error_with_a_remedy(tmp_path):
    painted(tmp_path / "data" / "red" / "1.png", [("red", 1, 1, 9)])
    with pytest.raises(TooLittleError, match="pictures to learn from") as caught:
        gathered(data=(tmp_path / "data",))
    assert "--data" in caught.value.remedy


def test_pictures_that_show_none_of_the_classes_are_an_error_that_names_these(tmp_path):
    draw(tmp_path / "coco")
    with pytest.raises(TooLittleError, match=r"shows zebra, a, b, c, d, \.\.\.") as caught:
        gathered(("zebra", *"abcde"), data=(tmp_path / "coco",))
    assert "--label" in caught.value.remedy


def test_classes_are_those_of_folders_with_pictures_and_of_coco_s_boxes(folders, tmp_path):
    (folders / "empty").mkdir()
    draw(tmp_path / "coco")
    assert class_names([str(folders)]) == ("blue", "red")
    assert class_names([str(tmp_path / "coco"), str(folders)]) == ("red", "blue")


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_data_that_name_no_classes_are_an_error(tmp_path, name):
    painted(tmp_path / "one.png", [])
    with pytest.raises(DatasetError):
        class_names([str(tmp_path / name)])


def material_of(*labels):
    sides = [Example(None, f"{n}.png", f"{n:064x}", 8, 8, own, None) for n, own in enumerate(labels)]
    return Material(COLOURS, sides)  # hashes that begin with zeros: all of the training part


@pytest.mark.parametrize(
    ("head", "used", "reasons"),
    [
        ("sigmoid", 3, []),
        ("softmax", 2, ["It shows nothing, which a softmax head cannot learn."]),
        (
            "arcface",
            1,
            [
                "It shows nothing, which a arcface head cannot learn.",
                "It shows several things, which an arcface head cannot learn.",
            ],
        ),
    ],
)
def test_what_a_head_cannot_learn_is_told(head, used, reasons):
    material = material_of(("red",), (), ("blue", "red"))
    assert len(material.usable(head)) == used
    assert [one.reason for one in material.rejected] == reasons


@pytest.mark.parametrize(
    ("wish", "base", "known", "labels", "head"),
    [
        ("sigmoid", "softmax", COLOURS, [("red",)], "sigmoid"),
        ("keep", "sigmoid", COLOURS, [("red",)], "sigmoid"),
        ("keep", "softmax", COLOURS, [("blue", "red")], "softmax"),
        ("keep", "sigmoid", ("cat",), [("red",)], "softmax"),
        ("keep", "softmax", ("cat",), [("red",), ()], "sigmoid"),
        ("keep", "arcface", ("cat",), [("red",)], "arcface"),
        ("keep", "arcface", ("cat",), [("red", "blue")], "sigmoid"),
    ],
)
def test_the_head_is_the_base_s_where_it_suits(wish, base, known, labels, head):
    card = make_card(name="b", architecture="heatbox/tiny", labels=known, input_size=64, head=base)
    assert choose_head(wish, card, material_of(*labels)) == head


def test_a_held_picture_stays_when_its_file_goes(folders, tmp_path):
    material = gathered(data=(folders,), hold=lambda one: held(one, tmp_path / "held"))
    content = (folders / "red" / "3.png").read_bytes()
    (folders / "red" / "3.png").unlink()
    found = {one.path.read_bytes() for one in material.examples}
    assert content in found
    again = held(material.examples[0], tmp_path / "held")
    assert again.path == material.examples[0].path


def test_explainers_learn_boxes_and_labels_without_one(tmp_path):
    path = painted(tmp_path / "own.png", [("blue", 16, 16, 16)])
    more = [painted(tmp_path / f"{n}.png", [], seed=n) for n in range(20)]
    one = Corrected(1, 1, str(path), ("blue", "red"), (Placed("blue", (0.25, 0.25, 0.5, 0.5)),))
    material = gathered(corrected=(one, *(corrected(other, task=n) for n, other in enumerate(more))))
    (example,) = (one for one in material.examples if one.name == "own.png")
    labelled = as_labelled(example, COLOURS)
    assert [(index, box and box.as_xyxy()) for index, box in labelled.objects] == [
        (1, (16, 16, 32, 32)),
        (0, None),
    ]
