"""Corrections against a real Label Studio: what people do through its API comes into the ledger, and nothing changes.

The oracle asks Label Studio itself for each annotation; no pull is believed without it.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fixtures_redis import served, wait_until

from heatbox.corrections.pulling import pull
from heatbox.corrections.records import Corrections
from heatbox.ledger import Ledger
from heatbox.queueing.redis_server import private_redis
from heatbox.settings import Settings, as_environment
from heatbox.studio.client import Studio

pytestmark = pytest.mark.studio

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
)
OWN, NEWER = "heatbox-grad_cam-tiny-0123456789", "heatbox-cam-tiny-0123456789"
TASKS = 10


def box(x, label="cat", side=20, **more):
    value = {"x": x, "y": 10, "width": side, "height": side, "rotation": 0, "rectanglelabels": [label]}
    where = {"type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    return {"id": f"b{x}", **where, "original_width": 100, "original_height": 100, "value": value, **more}


FIRST, SECOND = box(10, score=0.9), box(60, "dog", score=0.4)


class Room:
    """A project with predictions on each task, and a ledger."""

    def __init__(self, api, server, ledger, pictures):
        self.api, self.server, self.corrections = api, server, Corrections(ledger)
        self.project = self.made("/api/projects/", {"title": "Corrections", "label_config": CONFIG})["id"]
        content = [{"data": {"image": str(pictures / f"{place}.png")}} for place in range(TASKS)]
        self.tasks = self.made(f"/api/projects/{self.project}/import?return_task_ids=true", content)[
            "task_ids"
        ]
        self.predict(OWN, FIRST, SECOND)

    def made(self, address, content):
        answer = self.api.post(address, json=content)
        assert answer.is_success, answer.text
        return answer.json()

    def predict(self, version, *regions):
        content = [
            {"task": task, "model_version": version, "score": 0.4, "result": list(regions)}
            for task in self.tasks
        ]
        assert self.made(f"/api/projects/{self.project}/import/predictions", content)["created"] == len(
            self.tasks
        )

    def annotate(self, place, *regions, **more):
        task = self.tasks[place]
        return self.made(
            f"/api/tasks/{task}/annotations/", {"result": list(regions), "lead_time": 4.5, **more}
        )["id"]

    def pull(self, **options):
        before = self.truth()
        with Studio(self.server.url, self.server.token) as studio:
            pulled = pull(studio, self.corrections, self.project, **options)
        assert self.truth() == before, "a pull changes nothing"
        return pulled.new, pulled.changed, pulled.deleted

    def truth(self):
        """Return each annotation as Label Studio exports it."""
        exported = self.api.get(f"/api/projects/{self.project}/export", params={"exportType": "JSON"}).json()
        return {
            one["id"]: {**one, "task": task["id"], "created_ago": None}
            for task in exported
            for one in task["annotations"]
        }

    def agrees(self):
        """Compare the ledger with Label Studio."""
        there = {
            one.annotation: one
            for one in self.corrections.annotations(self.server.url, self.project)
            if one.deleted_at is None
        }
        truth = self.truth()
        assert there.keys() == truth.keys()
        for number, one in there.items():
            said = truth[number]
            assert (one.task, one.who, one.seconds) == (said["task"], said["completed_by"], said["lead_time"])
            assert (one.skipped, one.ground_truth) == (said["was_cancelled"], said["ground_truth"])
            assert [(box.label, round(100 * box.corners[0])) for box in one.boxes] == [
                (region["value"]["rectanglelabels"][0], region["value"]["x"]) for region in said["result"]
            ]

    def verdicts(self):
        """Return what became of boxes, by place of the task."""
        found = self.corrections.annotations(self.server.url, self.project)
        return {
            (self.tasks.index(one.task), one.annotation): [verdict.kind.value for verdict in one.verdicts]
            for one in found
            if one.deleted_at is None
        }


@pytest.fixture(scope="module")
def api(studio_server):
    with httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as api:
        yield api


@pytest.fixture
def room(api, studio_server, pictures, tmp_path):
    with closing(Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.sqlite'}")) as ledger:
        yield Room(api, studio_server, ledger, pictures)


def test_the_ledger_is_what_label_studio_holds_after_each_thing_that_people_do(room):
    numbers = [
        room.annotate(0, FIRST, SECOND),
        room.annotate(1, box(13, id="b10"), SECOND),
        room.annotate(2, box(10, side=30), SECOND),
        room.annotate(3, FIRST, box(60, "cat")),
        room.annotate(4, FIRST),
        room.annotate(5, FIRST, SECOND, box(35)),
        room.annotate(6, was_cancelled=True),
        room.annotate(7),
    ]
    assert room.pull() == (8, 0, 0)
    room.agrees()
    assert list(room.verdicts().values()) == [
        ["kept", "kept"],
        ["moved", "kept"],
        ["resized", "kept"],
        ["kept", "relabelled"],
        ["kept", "deleted"],
        ["kept", "kept", "added"],
        [],
        ["deleted", "deleted"],
    ]
    pictures = room.corrections.pictures(room.server.url, room.project)
    assert [room.tasks.index(one.task) for one in pictures] == [0, 1, 2, 3, 4, 5, 7]
    assert pictures[-1].boxes == ()
    assert all(one.version == OWN and len(one.predicted) == 2 for one in pictures)

    name = f"p{time.time_ns()}"
    person = room.made(
        "/api/users/", {"email": f"{name}@heatbox.example", "username": name, "password": "heatbox-test"}
    )
    room.annotate(0, box(40), completed_by=person["id"])
    assert room.pull(whole=False) == (1, 0, 0)
    room.agrees()
    assert room.corrections.pictures(room.server.url, room.project)[0].who == person["id"]

    changed = room.api.patch(f"/api/annotations/{numbers[1]}/", json={"result": [box(14, id="b10")]})
    assert changed.is_success
    assert room.pull(whole=False) == (0, 1, 0)
    room.agrees()
    assert room.verdicts()[1, numbers[1]] == ["moved", "deleted"]

    assert room.api.delete(f"/api/annotations/{numbers[2]}/").is_success
    assert room.pull(whole=False) == (0, 0, 1)
    room.agrees()

    selected = {"selectedItems": {"all": False, "included": [room.tasks[3]]}}
    room.made(f"/api/dm/actions?id=delete_tasks_annotations&project={room.project}", selected)
    assert room.pull(whole=False) == (0, 0, 1)
    room.agrees()

    assert room.api.delete(f"/api/tasks/{room.tasks[4]}/").is_success
    assert room.pull(whole=False) == (0, 0, 0)
    assert room.pull() == (0, 0, 1)
    room.agrees()
    assert room.pull() == (0, 0, 0)


def test_what_was_predicted_stays_after_heatbox_has_replaced_it(room):
    parent = room.api.get("/api/predictions/", params={"project": room.project}).json()
    first = next(one for one in parent if one["task"] == room.tasks[0])
    room.annotate(0, box(13, id="b10"), parent_prediction=first["id"])
    room.annotate(1, FIRST)
    room.pull()
    for one in parent:
        assert room.api.delete(f"/api/predictions/{one['id']}/").is_success
    room.predict(NEWER, box(80))
    room.annotate(2, box(80))
    assert room.pull()[0] == 1
    room.agrees()
    found = room.corrections.pictures(room.server.url, room.project)
    assert [(one.version, len(one.predicted)) for one in found] == [(OWN, 2), (OWN, 2), (NEWER, 1)]
    sources = [one.source for one in room.corrections.annotations(room.server.url, room.project)]
    assert sources == ["parent", "older", "older"]


def test_an_event_of_label_studio_brings_the_correction_without_anybody_asking(
    room, tiny_store, tmp_path, studio_server
):
    with private_redis(tmp_path / "redis") as redis:
        settings = Settings(
            home=tmp_path / "home",
            store=tiny_store,
            model="tiny",
            redis_url=redis.url,
            studio_url=studio_server.url,
            studio_api_key=studio_server.token,
        )
        with served(settings) as client:
            hook = {"project": room.project, "url": f"{str(client.base_url).rstrip('/')}/webhook"}
            room.made("/api/webhooks/", {**hook, "send_for_all_actions": True, "send_payload": True})
            room.annotate(0, FIRST)
            wait_until(room.verdicts, "the annotation is in the ledger")
            room.agrees()
            assert room.api.delete(f"/api/tasks/{room.tasks[0]}/").is_success
            wait_until(lambda: not room.verdicts(), "its end is in the ledger")


def test_the_commands_pull_and_report(room, tmp_path, pictures):
    room.annotate(0, FIRST, box(64, "dog", id="b60"))
    room.annotate(1, box(10, side=45))
    room.annotate(2, was_cancelled=True)
    settings = Settings(home=tmp_path / "home", local_roots=(pictures,))
    studio = {"LABEL_STUDIO_URL": room.server.url, "LABEL_STUDIO_API_KEY": room.server.token}
    page = tmp_path / "report.html"

    def run(*words):
        command = [sys.executable, "-m", "heatbox", "corrections", *words, "--project", str(room.project)]
        environment = {**os.environ, **as_environment(settings), **studio}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return " ".join((ran.stdout + ran.stderr).split()), ran.stdout

    assert "3 new, 0 changed, 0 deleted; 3 annotations are in the ledger" in run("pull")[0]
    told, _ = run("report", "--html", str(page))
    assert "2 tasks, 2 compared with what was predicted, 1 skips" in told
    assert "Median editing time: 4.5 s (2 annotations) with a prediction" in told
    assert json.loads(run("report", "--json")[1])["labels"][0]["label"] == "cat"
    text = page.read_text()
    assert text.count("data:image/jpeg") == 2
    assert text.count('class="predicted"') == 4
    assert Path(page).stat().st_size < 2**20
