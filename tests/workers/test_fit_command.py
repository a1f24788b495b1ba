"""`heatbox fit` as a person meets it: what it prints, its exit code, and that annotating uses what was learnt."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from heatbox.errors import DatasetError, NotFittedError, OptionError, UnsupportedError
from heatbox.fitted import find_state
from heatbox.models import ModelStore, make_card
from heatbox.settings import read_settings
from heatbox_workers.commands.annotate import annotate as annotate_command
from heatbox_workers.commands.fit import fit as fit_command
from heatbox_workers.commands.models import add as add_command
from heatbox_workers.loading import register
from heatbox_workers.networks import build_network

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}
SIDE = 32


def tiny_state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("heatbox/tiny", {}, len(COLOURS)).state_dict()


@pytest.fixture
def store(home):
    """The home's store, with a model `tiny` that knows red and blue."""
    store = ModelStore(read_settings({"HEATBOX_HOME": str(home)}).store_path)
    card = make_card(name="tiny", architecture="heatbox/tiny", labels=tuple(COLOURS), input_size=SIDE)
    register(store, card, tiny_state())
    return store


@pytest.fixture
def folder(tmp_path):
    """Three noisy pictures for each colour."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.clip(random.normal(colour, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{index}.png")
    return tmp_path / "set"


def heatbox(*arguments, cwd):
    command = [sys.executable, "-m", "heatbox", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ, check=False)
    assert "Traceback" not in answer.stdout + answer.stderr
    return answer


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_bad_picture_is_told_and_the_rest_is_learnt(store, folder, tmp_path):
    (folder / "red" / "torn.png").write_text("no picture")
    fitted = heatbox(
        "fit", "faster_grad_cam", "set", "-m", "tiny", "--explainer-option", "clusters=2", cwd=tmp_path
    )
    state = find_state(store, store.find("tiny"), "faster_grad_cam")
    assert fitted.returncode == 1
    assert json.loads(heatbox("models", "show", "tiny", cwd=tmp_path).stdout)["fitted"][0]["used"] is True
    assert f"learnt from 6 pictures about {store.find('tiny').id}: {state.id}." in fitted.stdout
    assert "torn.png" in fitted.stderr
    assert "picture-unreadable" in fitted.stderr


@pytest.mark.usefixtures("store")
def test_annotating_uses_what_was_learnt_and_no_other_options(folder, tmp_path):
    run(fit_command, "faster_grad_cam", folder, "-m", "tiny", "--explainer-option", "clusters=2")
    asked = (folder / "red" / "0.png", "-m", "tiny", "-e", "faster_grad_cam", "--label", "red")
    done = run(annotate_command, *asked, "--out", tmp_path / "out.json")
    assert done.exit_code == 0, done.output
    (task,) = json.loads((tmp_path / "out.json").read_text())
    assert task["predictions"][0]["model_version"].startswith("heatbox-faster_grad_cam-tiny-")
    other = ("--explainer-option", "clusters=3", "--out", tmp_path / "other.json")
    refused = run(annotate_command, *asked, *other).exception
    assert isinstance(refused, NotFittedError)
    assert refused.sentence == "faster_grad_cam was fitted with clusters=2, not 3."
    assert not (tmp_path / "other.json").exists()


def test_learning_prints_what_it_learnt_and_ends_with_0(store, folder):
    done = run(fit_command, "anomaly", folder / "red", "-m", "tiny", "--explainer-option", "neighbours=2")
    state = find_state(store, store.find("tiny"), "anomaly")
    assert done.exit_code == 0, done.output
    assert re.search(rf"anomaly learnt from 3 pictures about tiny@\w+: {state.id}\.", done.stdout)
    assert (state.label, state.options["neighbours"], state.examples) == ("anomaly", 2, 3)


def test_folders_without_a_class_are_told_where_classes_count(folder, store):
    (folder / "blue").rename(folder / "submarine")
    done = run(fit_command, "faster_grad_cam", folder, "-m", "tiny")
    assert done.exit_code == 0
    assert "no class of the model stands for submarine" in " ".join(done.stderr.split())
    assert "submarine" not in run(fit_command, "anomaly", folder, "-m", "tiny").stderr
    learnt = find_state(store, store.find("tiny"), "anomaly")
    assert learnt.examples == 6


def test_several_data_sets_are_learnt_together(store, folder):
    run(fit_command, "anomaly", folder / "red", folder / "blue", "-m", "tiny")
    assert find_state(store, store.find("tiny"), "anomaly").examples == 6


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (("grad_cam", "set"), UnsupportedError),
        (("anomaly", "nowhere"), DatasetError),
        (("anomaly", "set", "--explainer-option", "bank=0"), OptionError),
        (("box_regression", "set"), NotFittedError),
    ],
)
def test_what_cannot_be_learnt_is_told(store, folder, monkeypatch, asked, error):
    monkeypatch.chdir(folder.parent)
    assert isinstance(run(fit_command, *asked, "-m", "tiny").exception, error)
    assert find_state(store, store.find("tiny"), asked[0]) is None


def test_where_nothing_is_learnt_bad_pictures_are_told_as_the_reason(store, tmp_path):
    (tmp_path / "torn.png").write_text("no picture")
    done = run(fit_command, "anomaly", tmp_path, "-m", store.find("tiny").name)
    assert isinstance(done.exception, NotFittedError)
    assert "torn.png" in done.stderr


@pytest.fixture
def embedding(tmp_path):
    """Weights of an embedding network without class vectors, and its card."""
    trunk = {name: value for name, value in tiny_state().items() if not name.startswith("classifier.")}
    save_file(trunk, tmp_path / "w.safetensors")
    card = make_card(
        name="hands", architecture="heatbox/tiny", labels=tuple(COLOURS), input_size=SIDE, head="arcface"
    )
    (tmp_path / "w.json").write_text(card.model_dump_json())
    return tmp_path / "w.safetensors"


def test_an_embedding_network_is_registered_with_pictures_of_its_classes(store, embedding, folder):
    done = run(add_command, embedding, "--class-pictures", folder)
    assert done.exit_code == 0, done.output
    assert store.find("hands").head == "arcface"


def test_class_pictures_must_show_each_class_and_go_with_a_file(store, embedding, folder):
    only_red = run(add_command, embedding, "--class-pictures", folder / "red").exception
    assert isinstance(only_red, DatasetError)
    published = run(add_command, "resnet18", "--class-pictures", folder).exception
    assert isinstance(published, OptionError)
    assert [card.name for card in store.cards()] == ["tiny"]
