"""`heatbox annotate` in other formats, and what its self-check rejected: on the page, in the summary, in the files."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from defusedxml import ElementTree
from PIL import Image

from heatbox.errors import OutputError
from heatbox.export import Format
from heatbox.settings import Settings
from heatbox_workers.batch import Request, prepare

LABELS = ("cat", "dog", "bird")  # of the fixture's model


@pytest.fixture
def settings(tmp_path, tiny_store):
    return Settings(home=tmp_path / "home", store=tiny_store)


@pytest.fixture
def folder(tmp_path):
    """Two pictures of the same name in two folders, and a file that is none."""
    random = np.random.default_rng(0)
    for name in ("x/a.png", "y/a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "c.jpg").write_text("<html>")
    return tmp_path / "photos"


def run(settings, paths, out, form, html=None, **fields):
    request = Request(tuple(map(str, paths)), model="tiny", **{"min_probability": 0.0, **fields})
    batch = prepare(request, settings)
    return batch, batch.write(batch.annotate(), out, html, form)


def read_voc(out):
    """Return the labels of each picture that is there."""
    found = {}
    for file in (out / "Annotations").rglob("*.xml"):
        root = ElementTree.parse(file).getroot()
        with Image.open(out / "JPEGImages" / root.findtext("filename")) as picture:
            assert root.findtext("size/width") == str(picture.width)
        found[root.findtext("filename")] = [one.text for one in root.findall("object/name")]
    return found


def read_coco(out):
    content = json.loads(out.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    boxes = [(box["image_id"], names[box["category_id"]]) for box in content["annotations"]]
    return {
        image["file_name"]: [label for number, label in boxes if number == image["id"]]
        for image in content["images"]
    }


def read_yolo(out):
    names = yaml.safe_load((out / "data.yaml").read_text())["names"]
    return {
        str(file.relative_to(out / "labels").with_suffix(".png")): [
            names[int(line.split()[0])] for line in file.read_text().splitlines()
        ]
        for file in (out / "labels").rglob("*.txt")
    }


@pytest.mark.parametrize(
    ("form", "read"), [(Format.VOC, read_voc), (Format.COCO, read_coco), (Format.YOLO, read_yolo)]
)
def test_each_format_has_the_good_pictures_with_the_boxes_that_were_counted(
    settings, folder, tmp_path, form, read
):
    _, summary = run(settings, [folder], tmp_path / "out", form)
    found = read(tmp_path / "out")
    assert sorted(found) == ["x/a.png", "y/a.png"]
    assert sum(map(len, found.values())) == summary.boxes.total() > 0
    assert {label for labels in found.values() for label in labels} == set(summary.boxes)
    assert [error.code for _, error in summary.failed] == ["picture-unreadable"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_labels_that_were_asked_for_are_numbered_in_their_order(settings, folder, tmp_path):
    run(settings, [folder], tmp_path / "out", Format.YOLO, labels=("dog", "bird", "cat"))
    assert (tmp_path / "out" / "classes.txt").read_text() == "dog\nbird\ncat\n"


def test_two_tasks_with_one_picture_are_one_picture_of_a_dataset(settings, folder, tmp_path):
    tasks = [{"data": {"image": str(folder / "x" / "a.png")}}] * 2
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    _, summary = run(settings, [tmp_path / "tasks.json"], tmp_path / "out.json", Format.COCO)
    assert list(read_coco(tmp_path / "out.json")) == ["a.png"]
    assert summary.pictures == 2


def test_a_dataset_needs_no_document_root(settings, folder, tmp_path):
    run(settings, [folder / "x"], tmp_path / "out.json", Format.COCO, document_root=tmp_path / "elsewhere")
    assert list(read_coco(tmp_path / "out.json")) == ["a.png"]


def test_a_folder_that_is_there_is_told_before_the_work(settings, folder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="there already"):
        run(settings, [folder], tmp_path / "out", Format.VOC)


def test_what_was_rejected_is_in_the_summary_and_on_the_page_and_not_in_the_files(settings, folder, tmp_path):
    html = tmp_path / "page.html"
    batch, summary = run(
        settings, [folder], tmp_path / "out.json", Format.LABEL_STUDIO, html, min_crop_probability=1.0
    )
    assert batch.pipeline.min_crop_probability == 1.0
    assert (summary.boxes.total(), summary.without_boxes) == (0, 2)
    assert {Path(name).parent.name for name, _ in summary.rejected} == {"x", "y"}
    page = html.read_text()
    assert "probability in the crop at least 1" in page
    assert all(f"rejected: <bdi>{rejected.sentence}</bdi>" in page for _, rejected in summary.rejected)
    tasks = json.loads((tmp_path / "out.json").read_text())
    assert [task["predictions"][0]["result"] for task in tasks] == [[], []]


def test_the_self_check_makes_another_version(settings, folder):
    requests = ({}, {"min_mask_iou": 0.0}, {"min_mask_iou": 0.5}, {"min_crop_probability": 0.5})
    versions = [
        prepare(Request((str(folder),), model="tiny", **fields), settings).pipeline.version
        for fields in requests
    ]
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3
