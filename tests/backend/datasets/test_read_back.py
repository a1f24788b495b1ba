"""Every format is read back by a reader that is not ours, and its boxes are where the red field of its picture is."""

import contextlib
import gc
import io
import json
import warnings
from pathlib import Path

import globox
import numpy as np
import pandas as pd
import pytest
import webdataset
import yaml
from globox.image_utils import get_image_size
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import CocoDetection, ImageFolder, VOCDetection

from heatbox.datasets.examples import SPLITS

FIELD = (16, 8, 40, 24)


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def read_coco(folder, split):
    """Yield picture, labels and boxes as torchvision reads them."""
    with quiet():
        found = CocoDetection(folder / "images", folder / "annotations" / f"{split}.json")
    names = {number: one["name"] for number, one in found.coco.cats.items()}
    for picture, rows in found:
        boxes = [
            (names[row["category_id"]], (x, y, x + w, y + h)) for row in rows for x, y, w, h in [row["bbox"]]
        ]
        yield picture, boxes


def read_yolo(folder, split, labels="labels"):
    """Yield picture and boxes as globox reads them."""
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    for path in sorted((folder / "images" / split).iterdir()):
        text = folder / labels / split / f"{path.stem}.txt"
        read = globox.Annotation.from_yolo_v5(text, image_size=_size(path), image_id=path.name)
        yield opened(path), [(names[int(box.label)], box.ltrb) for box in read.boxes]


def _size(path):
    return get_image_size(path) if path.suffix in {".jpg", ".png"} else opened(path).size


def opened(path):
    with Image.open(path) as picture:
        return picture.copy()


def read_voc(folder, split):
    """Yield picture and boxes as torchvision reads them; it has no `test` of 2012, so its list is given as `val`."""
    if split == "test":
        sets = folder / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main"
        split = (sets / "test.txt").replace(sets / "val.txt").stem
    for picture, read in VOCDetection(folder, "2012", split):
        rows = [(one["name"], one["bndbox"]) for one in read["annotation"]["object"]]
        edges = [(name, [int(box[key]) for key in ("xmin", "ymin", "xmax", "ymax")]) for name, box in rows]
        yield picture, [(name, (x1 - 1, y1 - 1, x2, y2)) for name, (x1, y1, x2, y2) in edges]


def samples(shards):
    """Return what the webdataset package reads; it leaves files to the garbage collector."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        paths = [str(path) for path in sorted(shards)]
        found = list(webdataset.WebDataset(paths, shardshuffle=False).decode("pil")) if paths else []
        gc.collect()
    return found


def read_webdataset(folder, split):
    for sample in samples(folder.glob(f"{split}-*.tar")):
        picture = next(sample[suffix] for suffix in ("jpg", "png") if suffix in sample)
        yield picture, [(one["label"], one["xyxy"]) for one in sample["json"]["boxes"]]


def read_jsonl(folder, split):
    path = folder / f"{split}.jsonl"
    for row in pd.read_json(path, lines=True).itertuples() if path.stat().st_size else ():
        yield opened(folder / row.file_name), [(one["label"], one["xyxy"]) for one in row.boxes]


READERS = {
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "webdataset": read_webdataset,
    "jsonl": read_jsonl,
}


def is_red_where(picture, box):
    """Return whether the red pixels of a picture are those of a box, whoever looks at its EXIF and whoever does not."""
    x1, y1, x2, y2 = (round(edge) for edge in box)
    for seen in (picture, ImageOps.exif_transpose(picture)):
        pixels = np.asarray(seen.convert("RGB")).astype(int)
        red = (pixels[..., 0] > 150) & (pixels[..., 2] < 100)
        if not (red[y1:y2, x1:x2].all() and red.sum() == (y2 - y1) * (x2 - x1)):
            return False
    return True


@pytest.mark.parametrize("form", READERS)
def test_a_foreign_reader_finds_each_box_where_it_belongs_in_each_orientation(many, tmp_path, form):
    exported = many.export(tmp_path / "out", form)
    found = [one for split in SPLITS for one in READERS[form](tmp_path / "out", split)]
    assert exported.rejected == ()
    assert sorted(label for _, boxes in found for label, _ in boxes) == ["cat"] * 12 + ["dog"] * 8
    assert sum(not boxes for _, boxes in found) == 1
    for picture, boxes in found:
        assert picture.size == (64, 48)
        for _, box in boxes:
            assert box == pytest.approx(FIELD, abs=1e-3)
            assert is_red_where(picture, box)


@pytest.mark.parametrize("form", READERS)
def test_a_foreign_reader_finds_each_picture_in_the_split_of_its_content(many, tmp_path, form):
    exported = many.export(tmp_path / "out", form)
    counts = {split: len(list(READERS[form](tmp_path / "out", split))) for split in SPLITS}
    assert counts == {split: exported.counts.pictures[split] for split in SPLITS}
    assert sum(counts.values()) == 21


def folder_rows(folder, split):
    folders = {
        name: label for label, name in json.loads((folder / "card.json").read_text())["folders"].items()
    }
    for kind in (folder / split, folder / "crops" / split):
        read = ImageFolder(kind, allow_empty=True)
        yield [(picture, folders[read.classes[number]]) for picture, number in read]  # the class, by the card


def test_torchvision_reads_whole_pictures_and_crops_by_class(many, tmp_path):
    exported = many.export(tmp_path / "out", "imagefolder")
    wholes, crops = zip(*(folder_rows(tmp_path / "out", split) for split in SPLITS), strict=True)
    whole, crop = ([one for row in rows for one in row] for rows in (wholes, crops))
    assert [one.code for one in exported.rejected] == ["not-one-label"]
    for rows in (whole, crop):
        assert sorted(label for _, label in rows) == ["cat"] * 12 + ["dog"] * 8
    assert all(is_red_where(picture, FIELD) for picture, _ in whole)
    assert {picture.size for picture, _ in crop} == {(24, 16)}
    assert all(is_red_where(picture, (0, 0, 24, 16)) for picture, _ in crop)


def test_pycocotools_measures_the_predictions_against_the_corrections(many, tmp_path):
    many.export(tmp_path / "out", "coco")
    with quiet():
        truth = COCO(tmp_path / "out" / "annotations" / "train.json")
        found = truth.loadRes(str(tmp_path / "out" / "predictions_train.json"))
        measure = COCOeval(truth, found, "bbox")
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    assert {one["score"] for one in found.anns.values()} == {0.75}
    assert measure.stats[0] == pytest.approx(1.0)


def test_pycocotools_sees_that_a_prediction_was_moved(photos, tmp_path):
    for number in range(12):
        one = photos.add(f"{number}.png")
        x1, y1, x2, y2 = one.boxes[0].corners
        far = type(one.boxes[0])("cat", (x1 / 2, y1, x2 / 2, y2), 0.5)
        photos.corrected[-1] = type(one)(**{**vars(one), "predicted": (far,)})
    photos.export(tmp_path / "out", "coco")
    with quiet():
        truth = COCO(tmp_path / "out" / "annotations" / "train.json")
        measure = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / "predictions_train.json")), "bbox")
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    assert measure.stats[1] == 0


def test_globox_reads_the_predictions_beside_the_labels_with_their_scores(many, tmp_path):
    many.export(tmp_path / "out", "yolo")
    predicted = tmp_path / "out" / "labels_predicted"
    read = [
        globox.Annotation.from_yolo_v5(path, image_size=(64, 48), image_id=path.stem)
        for path in predicted.rglob("*.txt")
    ]
    assert {box.confidence for one in read for box in one.boxes} == {0.75}
    assert all(box.ltrb == pytest.approx(FIELD, abs=1e-3) for one in read for box in one.boxes)


def test_globox_reads_the_voc_folder_too_with_the_score_of_predictions_apart(many, tmp_path):
    many.export(tmp_path / "out", "voc")
    root = tmp_path / "out" / "VOCdevkit" / "VOC2012"
    found = globox.AnnotationSet.from_pascal_voc(root / "Annotations")
    assert {Path(name).suffix for name in found.image_ids} == {".jpg"}
    assert found.nb_boxes() == 20
    assert "<score>0.750000</score>" in (root / "Predicted" / "a0.xml").read_text()
    assert "score" not in (root / "Annotations" / "a0.xml").read_text()


def test_webdataset_gives_the_number_of_the_class_where_a_picture_has_one_label(many, tmp_path):
    exported = many.export(tmp_path / "out", "webdataset")
    found = samples((tmp_path / "out").glob("*.tar"))
    with_class = [one for one in found if "cls" in one]
    assert len(found) == len(with_class) + 1 == 21
    for one in with_class:
        assert [exported.classes[one["cls"]]] == one["json"]["labels"]


def test_webdataset_has_several_shards_of_a_large_split(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("heatbox.datasets.webdataset.PICTURES_PER_SHARD", 4)
    for number in range(20):
        photos.add(f"{number}.png")
    train = photos.export(tmp_path / "out", "webdataset").counts.pictures["train"]
    shards = sorted((tmp_path / "out").glob("train-*.tar"))
    assert len(shards) == -(-train // 4) > 1
    assert len({one["__key__"] for one in samples(shards)}) == train


def test_pandas_reads_whence_each_picture_came(photos, tmp_path):
    one = photos.add("a.png")
    exported = photos.export(tmp_path / "out")
    (split,) = exported.counts.pictures
    (row,) = pd.read_json(tmp_path / "out" / f"{split}.jsonl", lines=True).to_dict("records")
    assert (row["task"], row["annotation"], row["version"]) == (one.task, one.annotation, one.version)
    assert row["predicted"] == [{"label": "cat", "score": 0.75, "xyxy": list(FIELD)}]
    assert (row["width"], row["height"]) == (64, 48)
