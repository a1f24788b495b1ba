"""The whole way on one machine: a real Label Studio asks a real `heatbox up` for boxes and stores them."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from fixtures_redis import wait_until

from heatbox.labelling.config import make_label_config

pytestmark = pytest.mark.studio


@pytest.fixture
def heatbox_up(tmp_path, tiny_store, pictures):
    """A running `heatbox up`: its address, and a label of its model."""
    log = tmp_path / "up.log"
    environment = {
        **os.environ,
        "HEATBOX_HOME": str(tmp_path / "home"),
        "HEATBOX_STORE": str(tiny_store),
        "HEATBOX_MODEL": "tiny",
        "HEATBOX_MIN_PROBABILITY": "0",
    }
    command = [sys.executable, "-m", "heatbox", "up", "--port", "0", "--root", str(pictures)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    wait_until(lambda: "heatbox is up" in log.read_text() or process.poll() is not None, "it is up")
    yield re.search(r"heatbox is up\s+(http://\S+)", log.read_text())[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_label_studio_retrieves_boxes_and_stores_each_once(studio, heatbox_up, tiny_store):
    (card,) = tiny_store.glob("*/*/model.json")
    labels = json.loads(card.read_text())["labels"]
    project = studio.post(
        "/api/projects", json={"title": "heatbox up", "label_config": make_label_config(labels)}
    ).json()["id"]
    tasks = [{"image": f"/data/local-files/?d={name}"} for name in ("0.png", "1.png", "none.png")]
    studio.post(f"/api/projects/{project}/import", json=tasks).raise_for_status()
    connected = studio.post("/api/ml", json={"project": project, "url": heatbox_up, "title": "heatbox"})
    connected.raise_for_status()
    version = studio.get(f"/api/ml/{connected.json()['id']}").json()["model_version"]
    assert version.startswith("heatbox-fused_cam-tiny-")

    for _ in range(2):  # the second retrieval asks again only for what has no prediction of this version
        answer = studio.post(
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
            json={"selectedItems": {"all": True}},
        )
        answer.raise_for_status()
    predictions = studio.get(f"/api/predictions/?project={project}").json()
    assert [prediction["model_version"] for prediction in predictions] == [version, version]
    assert all(prediction["result"][0]["value"]["rectanglelabels"][0] in labels for prediction in predictions)
