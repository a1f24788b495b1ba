"""The demo in small: what it writes, that it repeats itself, and that training sees no boxes."""

import json

import numpy as np
import pytest
from PIL import Image

from heatbox.labelling.config import parse_label_config
from heatbox.models import ModelStore
from heatbox_workers.demo.compose import LABELS, compose
from heatbox_workers.demo.run import COLUMNS, Demo, run_demo

SMALL = Demo(training=16, held_out=6, size=96, input_size=64, epochs=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small demo: its folder, its result, and the stages that it told."""
    folder = tmp_path_factory.mktemp("demo")
    stages = {}
    store = ModelStore(folder / "models")
    result = run_demo(
        SMALL, folder / "out", store, lambda stage, done, total: stages.update({stage: (done, total)})
    )
    return folder / "out", result, stages, store


def test_the_demo_leaves_everything_that_it_promises(made):
    out, result, _, store = made
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        f"{index:03d}.jpg" for index in range(6)
    ]
    tasks = json.loads((out / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d=pictures/{index:03d}.jpg" for index in range(6)
    ]
    assert parse_label_config((out / "label_config.xml").read_text()).label_names == LABELS
    assert "data:image" in (out / "index.html").read_text()
    assert (out / "demo.jpg").read_bytes().startswith(b"\xff\xd8")
    assert store.find("demo").id == result.card.id


def test_the_table_has_a_row_per_label_and_explainer_and_counts_every_true_box(made):
    _, result, _, _ = made
    truths = sum(len(scene.boxes) for scene in compose(SMALL.seed, SMALL.held_out, SMALL.size, "held-out"))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in result.rows]
    assert {(row["label"], row["explainer"]) for row in rows} == {
        (label, explainer) for label in (*LABELS, "all") for explainer in ("cam", "grad_cam", "fused_cam")
    }
    assert [row["true boxes"] for row in rows if row["label"] == "all"] == [truths] * 3


def test_every_stage_is_told_to_its_end(made):
    assert all(done == total for done, total in made[2].values())
    assert list(made[2]) == [
        "composing training pictures",
        "composing held-out pictures",
        "training",
        "explaining with cam",
        "explaining with grad_cam",
        "explaining with fused_cam",
    ]


def test_the_true_boxes_are_those_of_the_pictures_on_disk(made):
    out, _, _, _ = made
    truth = json.loads((out / "truth.json").read_text())
    scenes = list(compose(SMALL.seed, SMALL.held_out, SMALL.size, "held-out"))
    assert len(truth["annotations"]) == sum(len(scene.boxes) for scene in scenes)
    with Image.open(out / "pictures" / "000.jpg") as image:
        pixels = np.asarray(image, np.int16)
    assert np.abs(pixels - scenes[0].pixels).mean() < 12  # JPEG


def test_the_same_seed_gives_the_same_model_and_boxes(made, tmp_path):
    out, result, _, _ = made
    again = run_demo(SMALL, tmp_path / "out", ModelStore(tmp_path / "models"), lambda *_: None)
    assert again.card.id == result.card.id
    assert (tmp_path / "out" / "tasks.json").read_bytes() == (out / "tasks.json").read_bytes()
