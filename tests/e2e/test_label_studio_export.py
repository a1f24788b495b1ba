"""`heatbox export` against a real Label Studio: people's boxes come out where they were drawn, as others read them."""

import contextlib
import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pycocotools.coco import COCO

from heatbox.labelling.config import make_label_config

pytestmark = pytest.mark.studio

LABELS = ("dog", "cat")
OWN = "heatbox-grad_cam-test-0123456789"


def box(label, x, **more):
    """Return a box over half of each side, in percent, as a person draws it on a turned picture, too."""
    value = {"x": x, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [label]}
    size = {"original_width": 48, "original_height": 64, "image_rotation": 0}
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        **size,
        "value": value,
        **more,
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight pictures that are stored lying, 64 x 48 pixels, and shown standing."""
    folder = tmp_path_factory.mktemp("export-pictures")
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(8):
        Image.new("RGB", (64, 48), (number * 20, 0, 0)).save(folder / f"{number}.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory, studio_server, make_heatbox, pictures):
    return make_heatbox(tmp_path_factory.mktemp("export"), studio_server, local_roots=(pictures,))


@pytest.fixture(scope="module")
def project(studio_server):
    """A project whose corrections are only read."""
    with httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as studio:
        return make(studio)


def make(studio):
    """Make a project with eight annotated tasks, a ninth whose picture is gone, a tenth that was skipped."""
    config = make_label_config(LABELS)
    made = studio.post("/api/projects/", json={"title": "Export", "label_config": config}).json()["id"]
    tasks = [
        {
            "data": {"image": f"/data/local-files/?d={name}.jpg"},
            "predictions": [{"model_version": OWN, "result": [box("cat", 10, id="p", score=0.5)]}],
        }
        for name in (*range(8), "gone", "skipped")
    ]
    answer = studio.post(f"/api/projects/{made}/import?return_task_ids=true", json=tasks)
    assert answer.is_success, answer.text
    for place, task in enumerate(answer.json()["task_ids"]):  # later than the prediction, which so was seen
        body = {"result": [box(LABELS[place % 2], 25, id="a")], "was_cancelled": place == 9}
        assert studio.post(f"/api/tasks/{task}/annotations/", json=body).is_success
    return made, answer.json()["task_ids"]


def test_corrections_come_out_as_coco_and_what_is_wrong_is_told(home, project, tmp_path):
    number, tasks = project
    told = home.command("export", "-p", number, "-f", "coco", "-o", tmp_path / "out", code=1)
    assert "8 pictures, 8 boxes" in told
    found = {}
    for split in ("train", "val", "test"):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(tmp_path / "out" / "annotations" / f"{split}.json")
        names = {one["id"]: one["name"] for one in coco.cats.values()}
        for one in coco.anns.values():
            image = coco.imgs[one["image_id"]]
            found[image["task"]] = names[one["category_id"]], one["bbox"], image["width"], image["height"]
    assert found == {
        task: (LABELS[place % 2], [12, 16, 24, 32], 48, 64) for place, task in enumerate(tasks[:8])
    }
    (rejected,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert (rejected["name"], rejected["task"]) == ("gone.jpg", tasks[8])
    assert json.loads((tmp_path / "out" / "card.json").read_text())["classes"] == list(LABELS)


def test_what_was_predicted_is_beside_with_its_score(home, project, tmp_path):
    home.command("export", "-p", project[0], "-f", "jsonl", "-o", tmp_path / "out", code=1)
    lists = [(tmp_path / "out" / f"{split}.jsonl").read_text() for split in ("train", "val", "test")]
    row = json.loads("".join(lists).splitlines()[0])
    (predicted,) = row["predicted"]
    assert (predicted["label"], predicted["score"], row["version"]) == ("cat", 0.5, OWN)
    assert predicted["xyxy"] == pytest.approx([4.8, 16, 28.8, 48])


def test_without_a_pull_the_last_one_counts_and_an_export_is_written_anew_only_if_told(
    home, studio, tmp_path
):
    number, tasks = make(studio)
    (annotation,) = studio.get(f"/api/tasks/{tasks[8]}/annotations/").json()

    def export(*options, code=0):
        found = home.command(
            "export", "-p", number, "-f", "yolo", "-o", tmp_path / "out", "--json", *options, code=code
        )
        return found and json.loads(found)

    first = export(code=1)
    assert studio.delete(f"/api/annotations/{annotation['id']}/").is_success
    assert export(code=3) == ""
    assert export("--replace", "--no-pull", code=1) == first
    assert sum(first["rejected"].values()) == 1
    assert export("--replace")["rejected"] == {}
    assert Path(first["folder"]) == tmp_path / "out"
