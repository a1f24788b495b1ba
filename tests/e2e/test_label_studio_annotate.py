"""What `heatbox annotate` writes for real photographs, imported by a real, strict Label Studio."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.studio


@pytest.mark.usefixtures("home")
def test_the_import_file_and_its_label_config_are_accepted_as_they_are(studio, test_data, tmp_path):
    weights = test_data / "weights" / "mobilenet_v2_onnxzoo.pt"
    names = json.loads((test_data / "weights" / "imagenet_classes.json").read_text())
    card = {
        "name": "mobilenet_v2_onnxzoo",
        "architecture": "torchvision/mobilenet_v2",
        "labels": [f"{name} #{index}" if names.count(name) > 1 else name for index, name in enumerate(names)],
        "input_size": 224,
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    photographs = test_data / "elephants" / "images"
    heatbox = [sys.executable, "-m", "heatbox"]
    add = [*heatbox, "models", "add", weights, "--card", tmp_path / "card.json", "--activate"]
    subprocess.run(add, check=True, capture_output=True)
    annotate = [*heatbox, "annotate", photographs, "--out", tmp_path / "boxes.json"]
    subprocess.run(annotate, check=True, capture_output=True)

    tasks = json.loads((tmp_path / "boxes.json").read_text())
    config = (tmp_path / "boxes.config.xml").read_text()
    project = studio.post("/api/projects", json={"title": "photographs", "label_config": config}).json()["id"]
    imported = studio.post(f"/api/projects/{project}/import", json=tasks)
    imported.raise_for_status()
    assert imported.json()["prediction_count"] == len(tasks) == len(list(photographs.iterdir()))
    stored = studio.get(f"/api/predictions/?project={project}").json()
    sent = {region["id"] for task in tasks for region in task["predictions"][0]["result"]}
    assert sent
    assert {region["id"] for prediction in stored for region in prediction["result"]} == sent
