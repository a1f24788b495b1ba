"""Trainings with the real engine, from a person's corrections in Label Studio to the version that it shows.

How jobs come and go, and what else may be killed, is the business of tests/workers/test_train_job.py.
"""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from fixtures_colours import LABELS as COLOURS
from fixtures_colours import SIDE, draw
from fixtures_redis import LABELS, served, wait_until
from fixtures_runs import Heatbox, Up, region
from PIL import Image

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import Card, ModelStore
from heatbox.processes import stop
from heatbox.settings import Settings, as_environment
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import TrainingState
from heatbox_workers.loading import register
from heatbox_workers.tiny import TinyNet

CONFIG = make_label_config(LABELS)


def add_model(store, seed, name="tiny", labels=LABELS, **about):
    """Register a version of a model with other random weights and return its id."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = TinyNet(len(labels)).state_dict()
    return register(
        store, Card(name=name, architecture="heatbox/tiny", labels=labels, input_size=64, **about), weights
    ).id


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


@pytest.fixture
def settings(settings, store):
    """Settings of a service that uses the active model."""
    return settings.model_copy(update={"model": "", "store": store.folder})


@pytest.fixture
def ledger(settings):
    ledger = Ledger(settings.ledger_url)
    yield ledger
    ledger.close()


def ask(client, picture):
    body = {"tasks": [{"data": {"image": str(picture)}}], "label_config": CONFIG}
    (found,) = client.post("/predict", json=body).json()["results"]
    return found


def boxes(prediction):
    return [(one["value"], one["score"]) for one in prediction["result"]]


def test_a_model_is_activated_while_requests_run_and_no_prediction_mixes_two(
    settings, store, ledger, pictures, start_worker
):
    first, second = add_model(store, 1), add_model(store, 2)
    ledger.activate(first)
    names = sorted(pictures.iterdir())
    start_worker()
    with served(settings) as client:
        expected = {}
        for model in (first, second):
            ledger.activate(model)
            version = client.post("/setup", json={"schema": CONFIG}).json()["model_version"]
            expected[version] = {name: boxes(ask(client, name)) for name in names}
        new, old = version, next(iter(expected))
        assert expected[new] != expected[old]
        ledger.activate(first)
        stopping, seen = threading.Event(), []

        def keep_asking(offset):
            number = offset
            while not stopping.is_set():
                name = names[number % len(names)]
                number += 1
                found = ask(client, name)
                assert boxes(found) == expected[found["model_version"]][name]
                seen.append(found["model_version"])

        with ThreadPoolExecutor() as pool:
            asking = [pool.submit(keep_asking, offset) for offset in (0, 4, 8)]
            for model, version in ((second, new), (first, old), (second, new)):
                before = len(seen)
                ledger.activate(model)
                wait_until(lambda: version in seen[before:], "predictions carry the version")  # noqa: B023 - waited for here
            stopping.set()
            for one in asking:
                one.result()
        assert ask(client, names[0])["model_version"] == new
    assert set(seen) == {old, new}


@dataclass
class Learnt:
    """A project whose pictures a person has corrected, and a `heatbox up` whose model knows nothing yet."""

    heatbox: Heatbox
    up: Up
    trainings: Trainings
    api: httpx.Client
    project: int
    first: str

    @property
    def backend(self):
        return self.api.get("/api/ml", params={"project": self.project}).json()[0]

    def shown(self):
        """Return what Label Studio says of versions: of the project, and of the backend."""
        project = self.api.get(f"/api/projects/{self.project}/").json()
        return project["model_version"], self.backend["title"], self.backend["model_version"]

    def served(self):
        """Return the version that the service names now."""
        body = {"schema": make_label_config(COLOURS), "project": str(self.project)}
        return httpx.post(f"{self.up.address}/setup", json=body).json()["model_version"]

    def models(self):
        """Return what `heatbox models list` marks, by model."""
        listed = json.loads(self.heatbox.command("models", "list", "--json"))
        marks = ("active", "before", "challenger")
        return {one["model"]: [mark for mark in marks if one[mark]] for one in listed}


def corrected(api, project, folder):
    """Submit what is on the pictures as a person's annotations."""
    truth = json.loads((folder / "annotations.json").read_text())
    names = {one["id"]: one["name"] for one in truth["categories"]}
    tasks = api.get("/api/tasks/", params={"project": project, "page_size": 100}).json()["tasks"]
    by_name = {task["data"]["image"].rpartition("/")[2]: task["id"] for task in tasks}
    for image in truth["images"]:
        regions = []
        for one in truth["annotations"]:
            if one["image_id"] == image["id"]:
                x, y, width, height = (100 * value / SIDE for value in one["bbox"])
                made = region(names[one["category_id"]])
                made["value"] |= {"x": x, "y": y, "width": width, "height": height}
                regions.append(
                    made | {"id": str(len(regions)), "original_width": SIDE, "original_height": SIDE}
                )
        address = f"/api/tasks/{by_name[image['file_name']]}/annotations/"
        assert api.post(address, json={"result": regions}).is_success


@pytest.fixture(scope="module")
def learnt(make_heatbox, tmp_path_factory, studio_server):
    folder = tmp_path_factory.mktemp("learnt")
    store, pictures = ModelStore(folder / "models"), draw(folder / "squares")
    middle = (0.5, 0.5, 0.5)
    first = add_model(store, 1, "colours", COLOURS, head="sigmoid", mean=middle, std=middle)
    changes = {"model": "", "store": store.folder, "local_roots": (pictures / "images",), "job_memory": 0}
    heatbox = make_heatbox(folder, studio_server, explainer="cam", explainer_options=(), **changes)
    ledger = Ledger(heatbox.settings.ledger_url)
    ledger.activate(first)
    with httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as api:
        content = {"title": "Colours", "label_config": make_label_config(COLOURS)}
        project = api.post("/api/projects/", json=content).json()["id"]
        tasks = [{"image": str(path)} for path in sorted((pictures / "images").iterdir())]
        assert api.post(f"/api/projects/{project}/import", json=tasks).is_success
        with heatbox.up() as up:
            heatbox.command("studio", "connect", "--project", project, "--backend", up.address)
            yield Learnt(heatbox, up, Trainings(ledger), api, project, first)
    ledger.close()


@pytest.mark.studio
def test_start_training_learns_from_corrections_and_label_studio_shows_what_is_better(learnt):
    before = learnt.served()
    assert learnt.shown() == (before,) * 3

    def press():
        assert learnt.api.post(f"/api/ml/{learnt.backend['id']}/train").is_success

    press()  # nobody has corrected anything
    wait_until(lambda: any(not one.is_open for one in learnt.trainings.newest(5)), "it has ended")
    (early,) = learnt.trainings.newest(5)
    assert (early.project, early.code) == (learnt.project, "training-too-little")
    assert f"Project {learnt.project} has 0 corrected pictures" in early.sentence

    corrected(learnt.api, learnt.project, learnt.heatbox.settings.local_roots[0].parent)
    event = {"action": "START_TRAINING", "project": {"id": learnt.project}}
    began = time.monotonic()
    answer = httpx.post(f"{learnt.up.address}/webhook", json=event)
    assert time.monotonic() - began < 1
    assert answer.json()["status"] == "queued"
    press()
    number = int(answer.json()["job"])
    wait_until(lambda: not learnt.trainings.find(number).is_open, "it has ended")
    found = learnt.trainings.find(number)
    assert (found.activated, found.champion, found.base) == (True, learnt.first, learnt.first), found
    assert [one.id for one in learnt.trainings.newest(5)] == [number, early.id]
    quality = {side: found.result["comparison"][side]["box_quality"] for side in ("challenger", "champion")}
    assert quality["challenger"] > 2 * quality["champion"] > 0
    assert learnt.trainings.ledger.active_model() == found.challenger
    wait_until(lambda: learnt.trainings.find(number).told, "Label Studio was told")
    after = learnt.served()
    assert after != before
    assert learnt.shown() == (after,) * 3
    assert learnt.models() == {learnt.first: ["before"], found.challenger: ["active"]}


@pytest.mark.studio
def test_a_challenger_that_is_not_better_is_kept_and_a_rollback_goes_to_the_one_before(learnt):
    number = ("--project", learnt.project)
    told = json.loads(learnt.heatbox.command("train", *number, "--dry-run", "--json"))
    assert (told["pictures"], sum(told["split"].values()), told["fit"]) == (30, 30, ["box_regression"])
    assert told["labels"] == {"red": 20, "blue": 20}
    assert told["boxes"] == 40
    active, served = learnt.trainings.ledger.active_model(), learnt.served()
    assert told["champion"] == told["base"] == active
    hopeless = ("--learning-rate", 1e-8, "--epochs", 1, "--fit", "box_regression", "--no-augment")
    result = json.loads(learnt.heatbox.command("train", *number, *hopeless, "--json"))
    assert (result["activated"], result["champion"]) == (False, active)
    assert "It is kept and does not serve" in result["reason"]
    assert learnt.served() == served
    assert learnt.models() == {
        learnt.first: ["before"],
        active: ["active"],
        result["challenger"]: ["challenger"],
    }
    assert f"{learnt.first} is active again, in place of {active}" in learnt.heatbox.command(
        "models", "rollback"
    )
    assert learnt.served() != served
    assert learnt.models() == {
        learnt.first: ["active"],
        active: ["challenger"],
        result["challenger"]: ["challenger"],
    }


@pytest.fixture
def coloured(tmp_path):
    """A folder of two classes of pictures that differ in colour."""
    for channel, name in enumerate(LABELS[:2]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(100 * channel + number).integers(0, 90, (64, 64, 3), dtype=np.uint8)
            noise[..., channel] += 120
            Image.fromarray(noise).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


@dataclass
class Home:
    """A home of heatbox with commands and workers of its own; the real engine."""

    settings: Settings

    def start(self, *words):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HEATBOX_")}
        return subprocess.Popen(
            [sys.executable, "-m", "heatbox", *map(str, words)],
            env={**variables, **as_environment(self.settings)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, *words):
        return self.start("train", *words, "--json")


@pytest.fixture
def start_train_worker():
    started = []

    def start(home):
        started.append(home.start("work", "--queue", "train"))
        return started[-1]

    yield start
    for worker in started:
        stop(worker, 10)
        worker.communicate()


def result_of(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output)


def learning(worker):
    """Return the processes in which a worker learns."""
    return Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()


def test_a_worker_that_is_killed_in_mid_training_is_replaced_and_the_weights_are_the_same(
    tmp_path, store, coloured, redis_server, start_train_worker
):
    base = add_model(store, 1)
    data = ("--data", coloured, "--base", base, "--unfreeze", 1)
    wish = (*data, "--epochs", 30, "--patience", 30)
    alone = Home(Settings(home=tmp_path / "one", store=store.folder, threads=1))
    home = Home(alone.settings.model_copy(update={"home": tmp_path / "two", "redis_url": redis_server.url}))
    workers = [start_train_worker(home) for _ in range(2)]
    undisturbed, queued = alone.train(*wish), home.train(*wish)
    with closing(Ledger(home.settings.ledger_url)) as ledger:
        trainings = Trainings(ledger)
        wait_until(lambda: trainings.newest(1), "it is in the ledger")
        wait_until(lambda: trainings.find(1).progress.get("epoch", 0) >= 3, "it is in the middle")
        (killed,) = [worker for worker in workers if learning(worker)]
        (left,) = [worker for worker in workers if worker is not killed]
        killed.kill()
        assert trainings.find(1).progress["epoch"] < 30
        expected = result_of(undisturbed)
        assert result_of(queued)["challenger"] == expected["challenger"]  # named by the weights' content
        assert trainings.find(1).serial == 1

        endless = home.train(*data, "--epochs", 10**6, "--patience", 10**6, "--no-follow")
        assert result_of(endless)["state"] == "queued"
        wait_until(lambda: learning(left), "it is begun without a service")
        _, errors = home.start("trainings", 2, "--cancel").communicate(timeout=20)
        assert not errors
        wait_until(lambda: not learning(left), "its process is gone", 10)
        assert trainings.find(2).state is TrainingState.CANCELLED
