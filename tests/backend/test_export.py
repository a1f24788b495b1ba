"""Datasets: what each format's own reader finds in them is what was written, and no picture is lost or overwritten."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from defusedxml import ElementTree
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import VOCDetection

from heatbox.annotation import Annotation, Region
from heatbox.boxes import Box
from heatbox.errors import OutputError, PictureNotFoundError
from heatbox.export import Dataset, Format, common_folder, write_coco, write_voc, write_yolo

CAT = Region("hb1", "cat", "tabby", Box(10.2, 20.6, 59.8, 99.5), 0.75)
DOG = Region("hb2", "<dog> & 'co'", "dog", Box(0, 0, 200, 100), 0.5)
TWO = Annotation(200, 100, (CAT, DOG))
NONE = Annotation(64, 48, ())


@pytest.fixture
def photos(tmp_path):
    """Pictures in two folders: the same name twice, twice but for the extension, and one without boxes."""
    found = []
    for name, annotation in (("a/x.jpg", TWO), ("b/x.jpg", NONE), ("b/x.png", TWO), ("b/y.jpg", TWO)):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (annotation.width, annotation.height), "teal").save(path)
        found.append((path, annotation))
    return found


def dataset(root, *labels):
    return Dataset(root / "photos", "heatbox-cam-m-0123456789", labels)


def written(write, out, pictures, root, *labels):
    write(out, iter(pictures), dataset(root, *labels))
    return out


def read_coco(file):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(file)


def read_yolo(folder):
    """Return {picture: [(name, xyxy)]} as the format's definition says, from the pictures that the folder shows."""
    data = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    found = {}
    for picture in sorted((folder / data["train"]).rglob("*.*")):
        place = picture.relative_to(folder / "images").with_suffix(".txt")
        with Image.open(picture) as opened:
            width, height = opened.size
        rows = [line.split() for line in (folder / "labels" / place).read_text().splitlines()]
        found[str(place)] = [
            (data["names"][int(number)], centred(map(float, numbers), width, height))
            for number, *numbers in rows
        ]
    return found


def centred(numbers, width, height):
    x, y, w, h = numbers
    return ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)


def test_torchvision_reads_the_voc_folder(photos, tmp_path):
    pictures = [one for one in photos if one[0].suffix == ".jpg"]
    folder = written(write_voc, tmp_path / "VOCdevkit" / "VOC2012", pictures, tmp_path)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a/x\nb/x\nb/y\n")
    (picture, found), (_, empty), _ = VOCDetection(tmp_path, year="2012", image_set="train")
    cat, dog = found["annotation"]["object"]
    assert picture.size == (200, 100)
    assert found["annotation"]["size"] == {"width": "200", "height": "100", "depth": "3"}
    assert cat["bndbox"] == {"xmin": "11", "ymin": "22", "xmax": "60", "ymax": "100"}
    assert (dog["name"], dog["bndbox"]["xmin"], dog["bndbox"]["xmax"]) == ("<dog> & 'co'", "1", "200")
    assert empty["annotation"]["object"] == []


@pytest.mark.parametrize(
    ("x1", "x2", "edges"),
    [
        (0, 200, ("1", "200")),
        (0, 0.2, ("1", "1")),
        (199.7, 200, ("200", "200")),
        (3, 4, ("4", "4")),
        (9.6, 20.4, ("11", "20")),
    ],
)
def test_voc_counts_pixels_from_1_and_a_box_has_at_least_one(tmp_path, x1, x2, edges):
    region = Region("r", "cat", "cat", Box(x1, 0, x2, 10), 1.0)
    pictures = [(tmp_path / "photos" / "a.jpg", Annotation(200, 100, (region,)))]
    folder = written(write_voc, tmp_path / "voc", pictures, tmp_path)
    box = ElementTree.parse(folder / "Annotations" / "a.xml").find("object/bndbox")
    assert (box.findtext("xmin"), box.findtext("xmax")) == edges


def test_voc_names_the_picture_and_the_version_that_made_the_boxes(photos, tmp_path):
    folder = written(write_voc, tmp_path / "voc", photos, tmp_path)
    root = ElementTree.parse(folder / "Annotations" / "b" / "x-2.xml").getroot()
    picture = folder / root.findtext("folder") / root.findtext("filename")
    assert picture.resolve() == tmp_path / "photos" / "b" / "x.png"
    assert root.findtext("source/database") == "heatbox-cam-m-0123456789"


def test_a_name_that_xml_cannot_hold_is_still_xml(tmp_path):
    region = Region("r", "c\x01at\udce9", "cat", Box(0, 0, 1, 1), 1.0)
    pictures = [(tmp_path / "photos" / "\x02é.jpg", Annotation(20, 10, (region,)))]
    folder = written(write_voc, tmp_path / "voc", pictures, tmp_path)
    root = ElementTree.parse(folder / "Annotations" / "\x02é.xml").getroot()
    assert (root.findtext("object/name"), root.findtext("filename")) == ("c\ufffdat\ufffd", "\ufffdé.jpg")


def test_pycocotools_reads_the_coco_file(photos, tmp_path):
    coco = read_coco(written(write_coco, tmp_path / "coco.json", photos, tmp_path))
    names = [coco.imgs[number]["file_name"] for number in sorted(coco.imgs)]
    assert names == ["a/x.jpg", "b/x.jpg", "b/x.png", "b/y.jpg"]
    assert [len(coco.getAnnIds(imgIds=number)) for number in sorted(coco.imgs)] == [2, 0, 2, 2]
    (first,) = coco.loadAnns(coco.getAnnIds(imgIds=1, catIds=coco.getCatIds(catNms="cat")))
    assert first["bbox"] == pytest.approx([10.2, 20.6, 49.6, 78.9])
    assert first["area"] == pytest.approx(CAT.box.area, abs=1e-3)
    assert first["score"] == 0.75
    assert coco.imgs[2] == {"id": 2, "file_name": "b/x.jpg", "width": 64, "height": 48}


def test_boxes_measured_against_themselves_by_pycocotools_are_perfect(photos, tmp_path):
    coco = read_coco(written(write_coco, tmp_path / "coco.json", photos, tmp_path))
    with contextlib.redirect_stdout(io.StringIO()):
        found = coco.loadRes(list(coco.anns.values()))
        measure = COCOeval(coco, found, "bbox")
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    assert measure.stats[0] == pytest.approx(1.0)


def test_yolo_gives_back_every_box_of_every_picture(photos, tmp_path):
    found = read_yolo(written(write_yolo, tmp_path / "yolo", photos, tmp_path))
    assert {name: len(boxes) for name, boxes in found.items()} == {
        "a/x.txt": 2,
        "b/x-2.txt": 2,
        "b/x.txt": 0,
        "b/y.txt": 2,
    }
    (cat, near), (dog, whole) = found["a/x.txt"]
    assert (cat, dog) == ("cat", "<dog> & 'co'")
    np.testing.assert_allclose(near, CAT.box.as_xyxy(), atol=2e-4)
    np.testing.assert_allclose(whole, DOG.box.as_xyxy(), atol=2e-4)


@pytest.mark.parametrize(
    "label", ["no", "1.5", "a: b # c", 'q"\\', "Bär\x7f\x85", "two\nlines", "🐈", "\xa0"]
)
def test_yolo_keeps_any_label(tmp_path, label):
    region = Region("r", label, label, Box(0, 0, 1, 1), 1.0)
    pictures = [(tmp_path / "photos" / "a.jpg", Annotation(20, 10, (region,)))]
    folder = written(write_yolo, tmp_path / "yolo", pictures, tmp_path)
    assert yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"] == {0: label}
    assert len((folder / "classes.txt").read_text(encoding="utf-8").splitlines()) == 1


def test_labels_known_beforehand_keep_their_numbers_and_others_follow(photos, tmp_path):
    labels = ("bird", "cat")
    folder = written(write_yolo, tmp_path / "yolo", photos, tmp_path, *labels)
    coco = read_coco(written(write_coco, tmp_path / "coco.json", photos, tmp_path, *labels))
    assert (folder / "classes.txt").read_text() == "bird\ncat\n<dog> & 'co'\n"
    assert [coco.cats[number]["name"] for number in (1, 2, 3)] == ["bird", "cat", "<dog> & 'co'"]


def test_names_that_differ_in_case_or_extension_only_are_numbered(tmp_path):
    names = ("a.jpg", "a.png", "A.jpg", "a-2.jpg", "a.jpg")
    pictures = [(tmp_path / "photos" / name, NONE) for name in names]
    folder = written(write_yolo, tmp_path / "yolo", pictures, tmp_path)
    links = {link.name: link.readlink().name for link in (folder / "images").iterdir()}
    assert links == {"a.jpg": "a.jpg", "a-2.png": "a.png", "A-3.jpg": "A.jpg", "a-2-2.jpg": "a-2.jpg"}
    assert len(list((folder / "labels").iterdir())) == 4


def test_no_picture_is_a_dataset_too(tmp_path):
    coco = read_coco(written(write_coco, tmp_path / "coco.json", [], tmp_path))
    assert (coco.imgs, coco.anns, coco.cats) == ({}, {}, {})
    assert read_yolo(written(write_yolo, tmp_path / "yolo", [], tmp_path)) == {}
    assert list(written(write_voc, tmp_path / "voc", [], tmp_path).iterdir()) == []


@pytest.mark.parametrize("write", [write_voc, write_yolo])
@pytest.mark.parametrize("kind", ["file", "folder", "link to nothing"])
def test_what_is_there_already_is_never_touched(photos, tmp_path, write, kind):
    out = tmp_path / "out"
    make = {"file": out.touch, "folder": out.mkdir, "link to nothing": lambda: out.symlink_to("gone")}[kind]
    make()
    pictures = iter(photos)
    with pytest.raises(OutputError, match="there already"):
        write(out, pictures, dataset(tmp_path))
    assert next(pictures) == photos[0]  # told before any work is done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


@pytest.mark.parametrize("write", [write_voc, write_coco, write_yolo])
def test_an_error_in_the_middle_leaves_nothing(photos, tmp_path, write):
    def fails():
        yield photos[0]
        raise PictureNotFoundError("It is gone.", "Look for it.")

    with pytest.raises(PictureNotFoundError):
        write(tmp_path / "out", fails(), dataset(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("write", [write_voc, write_coco, write_yolo])
def test_a_place_that_cannot_be_written_is_told(photos, tmp_path, write):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "out", photos, dataset(tmp_path))


@pytest.mark.parametrize("write", [write_voc, write_coco, write_yolo])
def test_a_picture_outside_the_root_is_refused_and_nothing_is_written_beside_the_folder(tmp_path, write):
    with pytest.raises(ValueError, match="subpath"):
        write(tmp_path / "out", [(tmp_path / "x.jpg", NONE)], dataset(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_coco_file_is_one_line_per_picture_and_box(photos, tmp_path):
    text = written(write_coco, tmp_path / "coco.json", photos, tmp_path).read_text()
    assert len(text.splitlines()) == len(photos) + 6 + 2 + 4
    assert json.loads(text)["info"] == {"description": "heatbox-cam-m-0123456789"}


@pytest.mark.parametrize(
    ("names", "folder"),
    [(("/p/a/x.jpg", "/p/b/y.jpg"), "/p"), (("/p/a/x.jpg",), "/p/a"), (("/p/x", "/q/y"), "/"), ((), "/")],
)
def test_the_common_folder_is_the_deepest_that_holds_all(names, folder):
    assert common_folder(map(Path, names)) == Path(folder)


def test_each_format_has_a_place_where_none_is_named():
    places = {form.value: form.default_out for form in Format}
    assert places == {
        "label-studio": "heatbox.json",
        "voc": "heatbox-voc",
        "coco": "heatbox-coco.json",
        "yolo": "heatbox-yolo",
    }
