"""A model that one machine registers and fits is used by another: nothing but the shared place is between them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from heatbox.annotation import Annotation
from heatbox.contract import Examples
from heatbox.fitted import find_state
from heatbox.ledger import Ledger
from heatbox.models import make_card
from heatbox.pictures.images import Limits
from heatbox.remote_store import open_store
from heatbox.serving import serve_project
from heatbox.settings import Settings
from heatbox_plugins.explainers.anomaly import Anomaly
from heatbox_workers.annotate import make_annotator
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.model_cache import ModelCache
from heatbox_workers.tiny import TinyNet

CARD = {"name": "tiny", "architecture": "heatbox/tiny", "labels": ["cat", "dog"], "input_size": 64}


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    return f"file://{tmp_path}/place" if request.param == "file" else f"memory:/{tmp_path}"


@pytest.fixture
def weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNet(2).state_dict()


def test_a_worker_elsewhere_uses_the_model_and_the_state_that_the_version_names(
    tmp_path, url, weights, pictures
):
    a, b = (Settings(home=tmp_path / name, store=url, explainer="anomaly", model="tiny") for name in "ab")
    store = open_store(a)
    register(store, make_card(**CARD), weights)
    classifier = load_classifier(store, store.find("tiny"))
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) / 9
    nothing = Examples(images, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4))
    fit_explainer(store, classifier, "anomaly", Anomaly(), [nothing])
    ledger = Ledger(a.ledger_url)
    pipeline = serve_project(a, store, ledger, None).pipeline
    ledger.close()
    assert pipeline.state
    elsewhere = ModelCache(open_store(b), 0).classifier(pipeline.model, pipeline.explainer, pipeline.state)
    found = make_annotator(pipeline, elsewhere, Limits.from_settings(b)).annotate([pictures / "0.png"])
    assert isinstance(next(found), Annotation)
    here = find_state(open_store(b), classifier.card, "anomaly", pipeline.state)
    assert (open_store(b).folder / "tiny") in here.path.parents


def test_every_command_works_with_a_shared_place(tmp_path, weights, pictures):
    save_file(weights, tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text(json.dumps(CARD))

    def heatbox(machine, *arguments):
        environment = {
            **os.environ,
            "HEATBOX_HOME": str(tmp_path / machine),
            "HEATBOX_STORE": f"file://{tmp_path}/place",
        }
        command = [sys.executable, "-m", "heatbox", *map(str, arguments)]
        answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    assert "Registered tiny@" in heatbox("a", "models", "add", tmp_path / "net.safetensors", "--activate")
    assert "learnt from 12 pictures" in heatbox("a", "fit", "anomaly", pictures)
    (listed,) = json.loads(heatbox("b", "models", "list", "--json"))
    assert (listed["name"], listed["active"]) == ("tiny", False)
    assert len(json.loads(heatbox("b", "models", "show", "tiny"))["fitted"]) == 1
    heatbox("b", "models", "activate", "tiny")
    heatbox("b", "annotate", pictures / "0.png", "-e", "anomaly", "--out", tmp_path / "tasks.json")
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    (state,) = (tmp_path / "place").rglob("anomaly.*.safetensors")
    assert state.name in {path.name for path in (tmp_path / "b").rglob("*.safetensors")}
    assert "anomaly" in task["predictions"][0]["model_version"]
