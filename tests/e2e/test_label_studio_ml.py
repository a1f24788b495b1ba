"""heatbox inside the real label-studio-ml 1.0.9, in its own environment and process, asked by the real Label Studio.

`make ml-env` makes the environment, without torch: the boxes come from a worker in ours.
"""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fixtures_redis import LABELS, served, wait_until

from heatbox.labelling.config import make_label_config
from heatbox.settings import as_environment
from heatbox.supervisor import listen

pytestmark = pytest.mark.studio

PROGRAMS = Path(__file__).parents[2] / ".venv-ml" / "bin"
CONFIG = make_label_config(LABELS)
DRAWN = {
    "result": [
        {
            "id": "drawn",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": 80,
            "original_height": 60,
            "image_rotation": 0,
            "origin": "manual",
            "value": {"x": 50, "y": 50, "width": 40, "height": 40, "rotation": 0, "rectanglelabels": ["dog"]},
        }
    ]
}
"""What the editor sends when somebody has drawn a rectangle."""


@dataclass
class Server:
    """A running `label-studio-ml start`."""

    process: "subprocess.Popen[bytes]"
    url: str
    folder: Path
    log: Path

    def ask(self, path: str, **body: object) -> httpx.Response:
        """Post what Label Studio posts."""
        return httpx.post(f"{self.url}/{path}", json=body, timeout=60)

    def answers(self) -> bool:
        """Return whether it is up."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health").is_success
        return False


@pytest.fixture
def environment(settings):
    """Of label-studio-ml: its programs first, and the settings of heatbox."""
    if not (PROGRAMS / "label-studio-ml").exists():
        pytest.skip("no label-studio-ml: run make ml-env")
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "PYTHONPATH") if name in os.environ}
    return {**kept, **as_environment(settings), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}


@pytest.fixture
def server(tmp_path, environment):
    """What docs/how-to/label-studio-ml.md says."""
    (tmp_path / "model.py").write_text("from heatbox.label_studio_ml import HeatboxModel\n")
    made = ["label-studio-ml", "init", "boxes", "--script", "model.py:HeatboxModel"]
    subprocess.run(made, cwd=tmp_path, env=environment, check=True, capture_output=True)
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    log = tmp_path / "label-studio-ml.log"
    command = [
        "label-studio-ml",
        "start",
        "boxes",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "WARNING",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(process, f"http://127.0.0.1:{port}", tmp_path / "boxes", log)
    try:
        wait_until(lambda: server.answers() or process.poll() is not None, "it answers")
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it runs its server through a shell
        process.wait()


def task(number, name):
    return {"id": number, "data": {"image": f"/data/local-files/?d={name}"}}


def test_label_studio_stores_heatbox_boxes_once_with_heatbox_version(studio, server, settings, start_worker):
    start_worker()
    project = studio.post("/api/projects", json={"title": "label-studio-ml", "label_config": CONFIG}).json()[
        "id"
    ]
    names = ("0.png", "1.png", "none.png")
    tasks = [task(number, name)["data"] for number, name in enumerate(names)]
    studio.post(f"/api/projects/{project}/import", json=tasks).raise_for_status()
    connected = studio.post("/api/ml", json={"project": project, "url": server.url, "title": "heatbox"})
    connected.raise_for_status()
    shown = studio.get(f"/api/ml/{connected.json()['id']}").json()
    assert (shown["state"], shown["error_message"]) == ("CO", None)
    for _ in range(2):
        studio.post(
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
            json={"selectedItems": {"all": True}},
        ).raise_for_status()
    stored = studio.get(f"/api/predictions/?project={project}").json()
    with served(settings) as own:
        version = own.post("/setup", json={"schema": CONFIG}).json()["model_version"]
    assert [prediction["model_version"] for prediction in stored] == [version, version]
    assert all(prediction["result"] for prediction in stored)


def test_its_answers_are_those_of_the_service_also_before_setup_and_for_several_projects(
    server, settings, start_worker
):
    start_worker()
    configs = [CONFIG, make_label_config(["cat"])]
    tasks = [task(1, "0.png"), task(2, "none.png"), {"id": 3, "data": {}}]
    bodies = [
        {"tasks": tasks, "label_config": config, "project": f"{number}.1", "params": {"context": context}}
        for number, (config, context) in enumerate(
            [(configs[0], None), (configs[1], None), (configs[0], DRAWN)]
        )
    ]
    found = [server.ask("predict", **body).json()["results"] for body in bodies]
    versions = [server.ask("setup", schema=config).json()["model_version"] for config in configs]
    with served(settings) as own:
        assert found == [own.post("/predict", json=body).json()["results"] for body in bodies]
        assert versions == [
            own.post("/setup", json={"schema": config}).json()["model_version"] for config in configs
        ]
    assert versions[0] != versions[1]
    assert found[2] != found[0]
    assert [bool(item) for item in found[0]] == [True, False, False]


def test_a_project_that_cannot_be_served_is_told_why_without_a_trace(server):
    answer = server.ask("setup", schema=make_label_config(["zeppelin"]), project="1.1")
    assert answer.status_code == 422
    assert "zeppelin" in answer.json()["detail"]
    assert "Traceback" not in answer.text


def test_a_task_of_such_a_project_is_answered_with_nothing(server):
    body = {"tasks": [task(1, "0.png")], "label_config": make_label_config(["zeppelin"]), "project": "1.1"}
    answer = server.ask("predict", **body)
    assert (answer.status_code, answer.json()["results"]) == (200, [[]])


def test_events_start_no_process_and_leave_no_file(server):
    before = sorted(server.folder.rglob("*"))
    for event in ("ANNOTATION_CREATED", "PROJECT_UPDATED", "START_TRAINING", "NEVER_HEARD_OF"):
        answer = server.ask("webhook", action=event, project={"id": 1, "label_config": CONFIG})
        assert answer.json() == {"status": "ok"}
    assert [path for path in sorted(server.folder.rglob("*")) if "__pycache__" not in path.parts] == [
        path for path in before if "__pycache__" not in path.parts
    ]
