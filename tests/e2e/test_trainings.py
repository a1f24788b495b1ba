"""A model that is activated while requests run: no restart, no mixture, and Label Studio sees the new version."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from fixtures_redis import LABELS, served, wait_until
from PIL import Image

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import Card, ModelStore
from heatbox.settings import Settings, as_environment
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import NewTraining
from heatbox_workers.loading import register
from heatbox_workers.tiny import TinyNet

CONFIG = make_label_config(LABELS)


def add_model(store, seed):
    """Register a version of `tiny` with other weights and return its id."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = TinyNet(len(LABELS)).state_dict()
    card = Card(name="tiny", architecture="heatbox/tiny", labels=LABELS, input_size=64)
    return register(store, card, weights).id


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


@pytest.fixture
def connected(make_heatbox, tmp_path, studio_server, store):
    """A home of heatbox over the store with one active model, and a `heatbox up` on it."""
    first = add_model(store, 1)
    heatbox = make_heatbox(
        tmp_path, studio_server, model="", store=store.folder, explainer="cam", explainer_options=()
    )
    ledger = Ledger(heatbox.settings.ledger_url)
    ledger.activate(first)
    with heatbox.up() as up:
        yield heatbox, up, ledger, first
    ledger.close()


def test_label_studio_shows_the_version_of_an_accepted_challenger_without_a_restart(
    connected, make_project, studio, store
):
    heatbox, up, ledger, first = connected
    project = make_project(4)
    heatbox.command("studio", "connect", "--project", project.id, "--backend", up.address)

    def shown():
        row = studio.get("/api/ml", params={"project": project.id}).json()[0]
        return (
            studio.get(f"/api/projects/{project.id}/").json()["model_version"],
            row["title"],
            row["model_version"],
        )

    before = shown()
    assert len(set(before)) == 1
    trainings, second = Trainings(ledger), add_model(store, 2)
    number, _ = trainings.create(NewTraining("project", project.id, order={}, base=first, champion=first))
    trainings.settle(trainings.find(number), {"model": second, "better": True}, None)
    wait_until(lambda: trainings.find(number).told, "Label Studio was told")
    after = shown()
    assert len(set(after)) == 1
    assert after != before
    body = {"schema": CONFIG, "project": str(project.id)}
    assert httpx.post(f"{up.address}/setup", json=body).json()["model_version"] == after[0]


def test_start_training_is_queued_once_and_says_why_there_is_too_little(connected, make_project, studio):
    heatbox, up, _, _ = connected
    project = make_project(4)
    heatbox.command("studio", "connect", "--project", project.id, "--backend", up.address)
    row = studio.get("/api/ml", params={"project": project.id}).json()[0]
    answer = studio.post(f"/api/ml/{row['id']}/train")
    assert answer.is_success, answer.text
    trainings = Trainings(Ledger(heatbox.settings.ledger_url))
    wait_until(lambda: any(not one.is_open for one in trainings.newest(5)), "it has ended")
    (found,) = trainings.newest(5)
    assert (found.project, found.code) == (project.id, "training-too-little")
    assert "3 corrected pictures" in (found.sentence or "")
    trainings.ledger.close()


@pytest.fixture
def coloured(tmp_path):
    """A folder of two classes of pictures that differ in colour."""
    for channel, name in enumerate(LABELS[:2]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(24):
            noise = np.random.default_rng(100 * channel + number).integers(0, 90, (64, 64, 3), dtype=np.uint8)
            noise[..., channel] += 120
            Image.fromarray(noise).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def train(home, base, *arguments):
    """Start the command that trains by itself; the real engine."""
    settings = Settings(home=home, store=base.folder, threads=1, local_roots=(home.parent,))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HEATBOX_")}
    command = [sys.executable, "-m", "heatbox", "train", *map(str, arguments), "--json"]
    environment = {**variables, **as_environment(settings)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result_of(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output)


def test_a_training_that_is_killed_in_the_middle_ends_with_the_same_weights(tmp_path, store, coloured):
    base = add_model(store, 1)
    wish = ("--data", coloured, "--base", base, "--unfreeze", 1, "--epochs", 30, "--patience", 30)
    undisturbed = result_of(train(tmp_path / "one", store, *wish))
    killed = train(tmp_path / "two", store, *wish)
    ledger = Ledger(f"sqlite:///{tmp_path / 'two' / 'ledger.sqlite'}")
    trainings = Trainings(ledger)
    wait_until(lambda: trainings.newest(1), "it is in the ledger")
    wait_until(lambda: trainings.find(1).progress.get("epoch", 0) >= 3, "it is in the middle")
    killed.kill()
    killed.communicate()
    assert trainings.find(1).is_open
    again = result_of(train(tmp_path / "two", store, "--resume", 1))
    assert again["challenger"] == undisturbed["challenger"]  # named by the weights' content
    ledger.close()
