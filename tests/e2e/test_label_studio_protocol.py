"""Every way in which Label Studio asks for boxes, with real photographs, against the real thing in strict mode."""

import json
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from fixtures_photographs import config, control
from fixtures_redis import wait_until
from PIL import Image

from heatbox.boxes import Box

pytestmark = pytest.mark.studio

SDK = Path(__file__).parents[2] / ".venv-studio" / "bin" / "python"


def iou(first, second):
    """Return the IoU of two region values in percent."""
    return Box.from_percent(first, 1000, 1000).iou(Box.from_percent(second, 1000, 1000))


def true_box(test_data, path):
    """Return the largest true box of a photograph in percent."""
    content = json.loads((test_data / "elephants" / "annotations.json").read_text())
    image = next(one for one in content["images"] if one["file_name"] == path.name)
    boxes = [one["bbox"] for one in content["annotations"] if one["image_id"] == image["id"]]
    x, y, width, height = max(boxes, key=lambda box: box[2] * box[3])
    across, down = 100 / image["width"], 100 / image["height"]
    return {"x": x * across, "y": y * down, "width": width * across, "height": height * down}


@pytest.fixture(scope="module")
def uploaded(way, elephants):
    """A project with three uploaded photographs whose boxes were retrieved."""
    project = way.project(config())
    tasks = project.upload(*elephants[:3])
    project.retrieve()
    return project, tasks


def test_uploads_get_boxes_where_the_elephants_are(uploaded, elephants, test_data):
    project, tasks = uploaded
    overlaps = [
        iou(project.regions(task)[0]["value"], true_box(test_data, path))
        for task, path in zip(tasks, elephants, strict=False)
    ]
    assert min(overlaps) > 0.5, overlaps


def test_a_second_retrieval_makes_no_call(uploaded):
    project, tasks = uploaded
    before = project.way.proxy.count("POST /predict")
    project.retrieve()
    assert project.way.proxy.count("POST /predict") == before
    assert all(len(project.predictions(task)) == 1 for task in tasks)


def test_opening_a_task_stores_its_boxes(way, elephants):
    project = way.project(config())
    (task,) = project.upload(elephants[0])
    opened = way.api.get(f"/api/tasks/{task}/").json()
    assert opened["predictions"][0]["model_version"] == project.version
    assert project.regions(task)


def test_the_label_stream_brings_boxes_along(way, elephants):
    project = way.project(config())
    project.upload(elephants[0])
    following = way.posted(f"/api/dm/actions?id=next_task&project={project.id}", {})
    assert following["predictions"][0]["result"][0]["type"] == "rectanglelabels"


def test_a_drawn_rectangle_says_where_to_look(uploaded):
    project, tasks = uploaded
    value = {"x": 5, "y": 5, "width": 50, "height": 90, "rotation": 0, "rectanglelabels": ["elephant"]}
    drawn = {"id": "a", "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value}
    found = project.interact(tasks[0], drawn)
    assert found
    for region in found:
        inside = region["value"]
        assert inside["rectanglelabels"] == ["elephant"]
        assert inside["x"] >= 5 - 0.5
        assert inside["x"] + inside["width"] <= 55 + 0.5
    assert len(project.predictions(tasks[0])) == 1  # suggestions are not stored


def test_a_keypoint_says_which_class(way, elephants):
    keypoints = (
        '<KeyPointLabels name="key" toName="image" smart="true"><Label value="elephant"/></KeyPointLabels>'
    )
    project = way.project(config(control("RectangleLabels", "box"), keypoints))
    (task,) = project.upload(elephants[1])
    value = {"x": 50, "y": 50, "width": 1, "keypointlabels": ["elephant"]}
    drawn = {"id": "k", "type": "keypointlabels", "from_name": "key", "to_name": "image", "value": value}
    (found,) = project.interact(task, drawn)
    assert found["value"]["rectanglelabels"] == ["elephant"]


def test_each_kind_of_control_is_filled_from_the_same_evidence(way, elephants):
    kinds = {
        "rectanglelabels": control("RectangleLabels", "box"),
        "polygonlabels": control("PolygonLabels", "outline"),
        "brushlabels": control("BrushLabels", "mask"),
        "choices": control("Choices", "what"),
    }
    project = way.project(config(*kinds.values()))
    (task,) = project.upload(elephants[0])
    project.retrieve()
    (box,), (outline,), (mask,), (choice,) = (project.regions(task, kind) for kind in kinds)
    points = np.array(outline["value"]["points"])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    around = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    assert iou(box["value"], around) > 0.7
    assert choice["value"]["choices"] == ["elephant"]
    size = mask["original_height"], mask["original_width"]
    pixels = decoded(mask["value"]["rle"]).reshape(*size, 4)[..., 3] > 0
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    painted = {
        "x": 100 * columns[0] / size[1],
        "y": 100 * rows[0] / size[0],
        "width": 100 * np.ptp(columns) / size[1],
        "height": 100 * np.ptp(rows) / size[0],
    }
    assert iou(box["value"], painted) > 0.7


def decoded(rle):
    """Return what Label Studio's own reader makes of a brush mask."""
    code = "import json, sys; from label_studio_sdk.converter.brush import decode_rle as d; "
    code += "sys.stdout.buffer.write(d(json.load(sys.stdin)).tobytes())"
    read = subprocess.run([SDK, "-c", code], input=json.dumps(rle).encode(), capture_output=True, check=True)
    return np.frombuffer(read.stdout, np.uint8)


def test_a_column_of_the_data_says_what_to_look_for(way, elephants):
    told = control("RectangleLabels", "box", 'model_labels="$kind" model_score_threshold="1"')
    project = way.project(config(told))
    address = f"/data/local-files/?d=elephants/images/{elephants[0].name}"
    with_label, without, unknown = project.add(
        {"image": address, "kind": "Elephant"}, {"image": address}, {"image": address, "kind": ["zebra"]}
    )
    project.retrieve()
    assert [region["value"]["rectanglelabels"] for region in project.regions(with_label)] == [["elephant"]]
    assert not project.regions(without)  # no class is that sure by itself
    assert not project.regions(unknown)


def test_an_answered_question_says_what_to_look_for_also_in_a_run(way, elephants):
    asked = control("Choices", "what", 'model_score_threshold="1"')
    project = way.project(config(control("RectangleLabels", "box"), asked))
    address = f"/data/local-files/?d=elephants/images/{elephants[0].name}"
    answered, silent = project.add({"image": address}, {"image": address})
    result = {"from_name": "what", "to_name": "image", "type": "choices", "value": {"choices": ["elephant"]}}
    way.posted(f"/api/tasks/{answered}/annotations/", {"result": [result]})
    number = way.heatbox.run(project)
    way.heatbox.wait(number)
    assert {region["type"] for region in project.regions(answered)} == {"rectanglelabels", "choices"}
    assert not project.regions(silent)


def test_each_picture_of_a_task_has_its_own_boxes(way, elephants):
    project = way.project(config(control("RectangleLabels", "box"), image='valueList="$images"'))
    some = [f"/data/local-files/?d=elephants/images/{path.name}" for path in elephants[:2]]
    (task,) = project.add({"images": some})
    project.retrieve()
    assert {region["item_index"] for region in project.regions(task)} == {0, 1}


def test_a_rotated_photograph_has_its_box_where_people_see_it(uploaded, elephants, tmp_path):
    project, tasks = uploaded
    rotated = tmp_path / "rotated.jpg"
    with Image.open(elephants[0]) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6  # shown a quarter clockwise, so it is stored a quarter the other way
        picture.transpose(Image.Transpose.ROTATE_90).save(rotated, exif=exif, quality=95)
        size = picture.size
    (task,) = project.upload(rotated)
    project.retrieve()
    (first, *_), (straight, *_) = project.regions(task), project.regions(tasks[0])
    assert (first["original_width"], first["original_height"]) == size
    assert iou(first["value"], straight["value"]) > 0.9


def test_one_corrupt_picture_among_fifty_costs_its_own_prediction(way, elephants, tmp_path):
    project = way.project(config())
    for number in range(50):
        with Image.open(elephants[number % 10]) as picture:
            picture.thumbnail((160, 160))
            picture.save(tmp_path / f"{number}.jpg")
    (tmp_path / "20.jpg").write_bytes((tmp_path / "20.jpg").read_bytes()[:400])
    tasks = project.upload(*(tmp_path / f"{number}.jpg" for number in range(50)))
    project.retrieve()
    counts = [len(project.predictions(task)) for task in tasks]
    assert counts == [1] * 20 + [0] + [1] * 29


def test_the_region_links_to_a_page_with_its_evidence(uploaded):
    project, tasks = uploaded
    meta = project.regions(tasks[0])[0]["meta"]
    address = f"http://heatbox.example/v1/tasks/{tasks[0]}/evidence?project={project.id}"
    assert meta["heatbox"]["evidence"] == address
    assert meta["text"][0].endswith(address)
    page = httpx.get(project.way.address + f"/v1/tasks/{tasks[0]}/evidence?project={project.id}", timeout=60)
    assert page.status_code == 200
    assert project.version in page.text
    assert page.text.count("data:image/") >= 5  # picture, heatmap, mask, contour, box
    missing = httpx.get(project.way.address + f"/v1/tasks/999999/evidence?project={project.id}", timeout=60)
    assert (missing.status_code, missing.json()["code"]) == (404, "label-studio-refused")


@pytest.mark.parametrize("switch", ["show_collab_predictions", "evaluate_predictions_automatically"])
def test_looking_at_the_evidence_of_a_task_without_a_prediction_stores_none(way, elephants, switch):
    project = way.project(config())
    way.api.patch(f"/api/projects/{project.id}/", json={switch: True}).raise_for_status()
    (task,) = project.upload(elephants[0])
    before = way.proxy.count("POST /predict")
    page = httpx.get(way.address + f"/v1/tasks/{task}/evidence?project={project.id}", timeout=60)
    assert page.status_code == 200
    assert project.version in page.text
    assert way.proxy.count("POST /predict") == before
    assert project.predictions(task) == []


def test_the_events_of_annotating_arrive_and_hold_nobody_up(way, elephants):
    project = way.project(config())
    (task,) = project.upload(elephants[0])
    project.retrieve()
    before = way.proxy.count("POST /webhook")
    result = [{key: value for key, value in project.regions(task)[0].items() if key != "meta"}]
    annotation = way.posted(f"/api/tasks/{task}/annotations/", {"result": result})["id"]
    way.api.patch(f"/api/annotations/{annotation}/", json={"result": []}).raise_for_status()
    way.api.delete(f"/api/annotations/{annotation}/").raise_for_status()
    way.api.delete(f"/api/tasks/{task}/").raise_for_status()
    wait_until(
        lambda: way.proxy.count("POST /webhook") >= before + 4, "created, updated, deleted, task deleted"
    )


def test_a_changed_label_config_is_another_version(way, elephants):
    project = way.project(config())
    (task,) = project.upload(elephants[0])
    project.retrieve()
    other = config(control("RectangleLabels", "box", 'model_explainer="grad_cam" model_box_threshold="0.5"'))
    way.api.patch(f"/api/projects/{project.id}/", json={"label_config": other}).raise_for_status()
    project.retrieve()
    versions = [one["model_version"] for one in project.predictions(task)]
    assert len(set(versions)) == 2
    assert any(version.startswith("heatbox-grad_cam-photo-") for version in versions)


def test_labels_prints_the_map(way):
    told = control("RectangleLabels", "box", 'model_score_threshold="0.4" model_explainr="cam"')
    project = way.project(config(told))
    output = way.heatbox.command("labels", "--project", project.id)
    assert project.version in output
    assert "Indian elephant" in output
    assert "0.4" in output
