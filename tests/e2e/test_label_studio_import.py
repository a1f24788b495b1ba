"""What heatbox writes, read back from a real Label Studio whose prediction validation is switched on."""

import httpx
import pytest

from heatbox.annotation import Annotation, Region, region_id
from heatbox.boxes import Box
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.labelling.predictions import import_task, prediction
from heatbox.labelling.tasks import task_addresses

pytestmark = pytest.mark.studio

VERSION = "heatbox-grad_cam-test-0123456789"
LABELS = ["cat", "dog & <bone>", '"Größe" 標識 💳']
CONFIG = make_label_config(LABELS)
READ = parse_label_config(CONFIG)


def create_project(studio: httpx.Client, config: str = CONFIG) -> int:
    answer = studio.post("/api/projects/", json={"title": "heatbox test", "label_config": config})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def import_tasks(studio: httpx.Client, project: int, tasks: list) -> httpx.Response:
    return studio.post(f"/api/projects/{project}/import", params={"return_task_ids": "true"}, json=tasks)


def stored_predictions(studio: httpx.Client, project: int) -> dict[str, list]:
    answer = studio.get("/api/tasks/", params={"project": project, "fields": "all", "page_size": 100})
    assert answer.status_code == 200, answer.text
    return {task["data"]["image"]: task["predictions"] for task in answer.json()["tasks"]}


def annotation(*labels: str) -> Annotation:
    """Return odd boxes, the first over the whole picture."""
    boxes = [Box(0, 0, 641, 427), Box(1 / 3, 0.1, 2 / 3, 426.9), Box(640.9, 426.9, 641, 427)]
    regions = (
        Region(region_id(VERSION, label, rank, boxes[rank]), label, "tabby", boxes[rank], 1 / (rank + 1))
        for rank, label in enumerate(labels)
    )
    return Annotation(641, 427, tuple(regions))


def sent_prediction(*labels: str) -> dict:
    return prediction([annotation(*labels)], READ, VERSION)


def content(stored: dict) -> dict:
    return {key: stored[key] for key in ("result", "score", "model_version")}


def test_imported_predictions_read_back_equal(studio):
    project = create_project(studio)
    sent = {f"http://photos.example/{n}.jpg": sent_prediction(*LABELS[:n]) for n in range(4)}
    answer = import_tasks(studio, project, [import_task({"image": url}, one) for url, one in sent.items()])
    assert (answer.status_code, answer.json()["prediction_count"]) == (201, 4)
    stored = stored_predictions(studio, project)
    assert {url: [content(one) for one in several] for url, several in stored.items()} == {
        url: [one] for url, one in sent.items()
    }


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda sent: sent["result"][0]["value"].update(rectanglelabels=["zebra"]), "zebra"),
        (lambda sent: sent["result"][0]["value"].update(x=100.01), "out of bounds"),
        (lambda sent: sent["result"][0].update(from_name="boxes"), "boxes"),
        (lambda sent: sent.update(score=1.01), "Score must be"),
    ],
    ids=["label", "percent", "control", "score"],
)
def test_the_same_server_refuses_what_heatbox_never_writes(studio, wrong, reason):
    project, sent = create_project(studio), sent_prediction("cat")
    wrong(sent)
    answer = import_tasks(studio, project, [import_task({"image": "http://photos.example/a.jpg"}, sent)])
    assert answer.status_code == 400
    assert reason in answer.text


def test_the_stored_label_is_the_alias(studio):
    config = CONFIG.replace('value="cat"', 'value="cat" alias="feline"')
    sent = prediction([annotation("feline")], parse_label_config(config), VERSION)
    task = import_task({"image": "http://photos.example/a.jpg"}, sent)
    assert import_tasks(studio, create_project(studio, config), [task]).status_code == 201


def test_a_task_with_several_pictures_keeps_the_item_indices(studio):
    config = CONFIG.replace('value="$image"', 'valueList="$image"')
    project = create_project(studio, config)
    joined = prediction([annotation("cat")] * 2, parse_label_config(config), VERSION)
    task = import_task({"image": ["http://photos.example/a.jpg", "http://photos.example/b.jpg"]}, joined)
    task_ids = import_tasks(studio, project, [task]).json()["task_ids"]
    stored = studio.get(f"/api/tasks/{task_ids[0]}").json()
    assert task_addresses(stored, parse_label_config(config)) == task["data"]["image"]
    assert [content(one) for one in stored["predictions"]] == [joined]


def test_pushed_predictions_are_all_created(studio):
    project = create_project(studio)
    tasks = [{"image": f"http://photos.example/{n}.jpg"} for n in range(20)]
    task_ids = import_tasks(studio, project, tasks).json()["task_ids"]
    pushed = [{"task": task_id, **sent_prediction(*LABELS)} for task_id in task_ids]
    answer = studio.post(f"/api/projects/{project}/import/predictions", json=pushed)
    assert (answer.status_code, answer.json()["created"]) == (201, len(pushed))
    stored = stored_predictions(studio, project)
    assert {url: [content(one) for one in several] for url, several in stored.items()} == {
        task["image"]: [sent_prediction(*LABELS)] for task in tasks
    }


def test_an_exported_task_is_imported_again_with_its_human_annotation(studio):
    project = create_project(studio)
    task = import_task({"image": "http://photos.example/a.jpg"}, sent_prediction("cat"))
    (task_id,) = import_tasks(studio, project, [task]).json()["task_ids"]
    human = studio.post(
        f"/api/tasks/{task_id}/annotations/", json={"result": task["predictions"][0]["result"]}
    )
    assert human.status_code == 201
    (exported,) = studio.get(f"/api/projects/{project}/export", params={"exportType": "JSON"}).json()
    answer = import_tasks(studio, project, [import_task(exported, sent_prediction("cat"))])
    assert (answer.json()["annotation_count"], answer.json()["prediction_count"]) == (1, 1)
