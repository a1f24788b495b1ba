"""Evaluating on pictures whose heatmaps and boxes were worked out by hand: the explainer sees bright places."""

import csv
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from heatbox.boxes import Box
from heatbox.contract import Evidence, Examples
from heatbox.errors import NotFittedError, PluginError
from heatbox.models import ModelStore, make_card
from heatbox.pictures.images import Limits
from heatbox.settings import read_settings
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.explainers.anomaly import Anomaly
from heatbox_workers.coco import Sample, Truth
from heatbox_workers.commands.evaluate import evaluate as evaluate_command
from heatbox_workers.evaluate import Contest, Largest, evaluate
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.scoreboard import COLUMNS, scores, table, write_csv, write_html
from heatbox_workers.tiny import TinyNet

SIDE = 32
THRESHOLDS = (0.0, 0.3, 0.6, 0.9)


@dataclass(frozen=True)
class Bright:
    """The heat of a pixel is its brightness, in [0, 1]."""

    def __call__(self, _classifier, images, targets):
        grey = images.mean(1)
        return Evidence(heatmaps=(grey - grey.amin())[targets[:, 0]])


@dataclass(frozen=True)
class LeftHalf:
    """Always the left half, as a ready box."""

    def __call__(self, _classifier, _images, targets):
        boxes = [torch.tensor([[0.0, 0, SIDE / 2, SIDE]])] * len(targets)
        return Evidence(boxes=boxes, scores=[torch.ones(1)] * len(targets))


@dataclass(frozen=True)
class Broken:
    """Fails when it is called."""

    def __call__(self, _classifier, _images, _targets):
        raise KeyError("inner")


@dataclass(frozen=True)
class Unfit(Broken):
    """Supports no network."""

    def supports(self, _classifier):
        return "it never does."


@pytest.fixture
def sample(tmp_path):
    """Return the maker of a sample: grey rectangles (level in [0, 255], x1, y1, x2, y2) and true boxes."""

    def make(name, rectangles, boxes, size=(SIDE, SIDE)):
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        for level, x1, y1, x2, y2 in rectangles:
            pixels[y1:y2, x1:x2] = level
        Image.fromarray(pixels).convert("RGB").save(tmp_path / name)
        truths = tuple(Truth(f"thing {n}", (n,), Box(*box)) for n, box in enumerate(boxes))
        return Sample(tmp_path / name, *size, truths)

    return make


@pytest.fixture
def samples(sample):
    """Three pictures: exact; a large dim place beside the small bright object; two classes, the first exact."""
    return [
        sample("a.png", [(255, 4, 4, 20, 20)], [(4, 4, 20, 20)]),
        sample("b.png", [(255, 20, 4, 28, 12), (128, 2, 16, 18, 30)], [(20, 4, 28, 12)]),
        sample("c.png", [(200, 0, 0, 16, 16)], [(0, 0, 16, 16), (0, 0, 32, 32)]),
    ]


def contest(*explainers, fitters=None):
    named = {type(one).__name__: one for one in explainers}
    return Contest(named, fitters or {"largest": Largest()}, thresholds=THRESHOLDS)


def test_each_threshold_gives_the_iou_of_the_first_box(classifier, samples):
    found = evaluate(classifier, samples, contest(Bright()), Limits())
    np.testing.assert_allclose(
        found.records["Bright"].ious["largest"],
        [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [0.25, 0.25, 0.25, 0.25]],
    )
    assert found.rows == [0, 1, 2, 2]
    assert found.records["Bright"].hits == [1, 1, 1, 1]


def test_a_fitter_by_peak_is_not_misled_by_a_large_dim_place(classifier, samples):
    fitters = {"largest": Largest(), "components": Components()}
    found = evaluate(classifier, samples[1:2], contest(Bright(), fitters=fitters), Limits())
    assert found.records["Bright"].ious["components"][0].tolist() == [1, 1, 1, 1]


def test_scores_are_those_worked_out_by_hand(classifier, samples):
    board = scores(evaluate(classifier, samples, contest(Bright()), Limits()))
    bright = board[-1]
    assert bright.oracle.best == (0.75, 0.75, 0.75)
    assert bright.oracle.thresholds == (0.6, 0.6, 0.6)
    assert (bright.mean_iou, bright.threshold, bright.pointing) == (3.25 / 4, 0.6, 1.0)


def test_the_baselines_look_at_nothing(classifier, samples):
    whole, centre = scores(evaluate(classifier, samples, contest(Bright()), Limits()))[:2]
    areas = np.array([16 * 16, 8 * 8, 16 * 16, 32 * 32]) / 1024
    assert whole.mean_iou == pytest.approx(areas.mean())
    assert whole.pointing is None
    assert centre.oracle.best == (0.5, 0.0, 0.0)  # IoU .44, .10, .20, .49
    assert centre.pointing == 0.5


def test_ready_boxes_are_the_same_at_every_threshold(classifier, sample):
    left = sample("l.png", [(255, 0, 0, 16, 32)], [(0, 0, 16, 32)])
    found = evaluate(classifier, [left], contest(LeftHalf()), Limits())
    assert found.records["LeftHalf"].ious["largest"][0].tolist() == [1, 1, 1, 1]


def test_the_target_is_the_class_with_the_highest_score_among_those_that_stand_for_it(classifier, samples):
    seen = []

    @dataclass(frozen=True)
    class Watch(Bright):
        def __call__(self, classifier, images, targets):
            seen.append(int(targets[0, 1]))
            seen.append(int(classifier.logits(images)[0].argmax()))
            return super().__call__(classifier, images, targets)

    every = replace(samples[0], truths=(replace(samples[0].truths[0], classes=(0, 1, 2)),))
    evaluate(classifier, [every], contest(Watch()), Limits())
    assert seen[0] == seen[1]


def test_what_cannot_explain_is_left_out_with_its_reason(classifier, samples):
    found = evaluate(classifier, samples, contest(Broken(), Bright(), Unfit()), Limits())
    assert list(found.records) == ["Bright"]
    assert found.refused["Broken"].code == "plugin-broken"
    assert "KeyError" in found.refused["Broken"].sentence
    assert found.refused["Unfit"].code == "explainer-unsupported"
    assert len(found.rows) == 4


def test_a_picture_that_cannot_be_used_costs_only_itself(classifier, sample, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no picture")
    torn = Sample(tmp_path / "torn.png", SIDE, SIDE, (Truth("thing", (0,), Box(0, 0, 9, 9)),))
    other = sample("other.png", [], [(0, 0, 9, 9)], size=(SIDE, 2 * SIDE))
    good = sample("good.png", [(255, 0, 0, 9, 9)], [(0, 0, 9, 9)])
    found = evaluate(classifier, [torn, other, good], contest(Bright()), Limits())
    assert [error.code for _, error in found.failed] == ["picture-unreadable"] * 2
    assert "annotations say 32 x 64" in found.failed[1][1].sentence
    assert found.rows == [0]


def test_seconds_and_their_ratio_are_measured_for_each_picture(classifier, samples):
    record = evaluate(classifier, samples, contest(Bright()), Limits()).records["Bright"]
    assert len(record.seconds) == len(record.ratios) == 3
    assert min(record.seconds) > 0


def test_the_table_is_written_as_csv(classifier, samples, tmp_path):
    board = scores(evaluate(classifier, samples, contest(Bright()), Limits()))
    write_csv(tmp_path / "out.csv", board)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["explainer"] for row in rows] == ["whole picture", "centre box, 70 %", "Bright"]
    assert tuple(rows[0]) == COLUMNS
    assert float(rows[-1]["MaxBoxAcc 0.5"]) == 0.75
    assert rows[0]["pointing game"] == ""
    assert all(len(row) == len(COLUMNS) for row in table(board))


def test_the_page_shows_each_explainer_on_each_picture(classifier, samples, tmp_path):
    found = evaluate(classifier, samples, contest(Bright(), LeftHalf(), Broken()), Limits(), show=2)
    write_html(tmp_path / "out.html", found, scores(found), "gap@1")
    page = (tmp_path / "out.html").read_text()
    assert page.count("LeftHalf") >= 2 + 2  # in both tables, on both pictures
    assert "a.png" in page
    assert "c.png" not in page
    assert "Left out: Broken failed" in page


@pytest.fixture
def dataset(tmp_path, home):
    """Return a COCO folder of one picture, with a model `tiny` in the store that knows its category."""
    network = TinyNet(2)
    card = make_card(name="tiny", architecture="heatbox/tiny", labels=("thing", "b"), input_size=SIDE)
    register(ModelStore(read_settings({"HEATBOX_HOME": str(home)}).store_path), card, network.state_dict())
    (tmp_path / "images").mkdir()
    Image.new("RGB", (SIDE, SIDE), "white").save(tmp_path / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "Thing"}, {"id": 2, "name": "submarine"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, SIDE, SIDE]}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return tmp_path


def command(*arguments):
    app = typer.Typer()
    app.command()(evaluate_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_the_table_and_writes_csv_and_page(dataset, tmp_path):
    files = tmp_path / "out.csv", tmp_path / "out.html"
    done = command(
        dataset,
        "-m",
        "tiny",
        "-e",
        "cam",
        "-e",
        "grad_cam layer=features",
        "--csv",
        files[0],
        "--html",
        files[1],
    )
    assert done.exit_code == 0, done.output
    assert "grad_cam layer=features" in files[0].read_text()
    assert "centre box" in done.stdout
    assert "submarine" in done.stderr
    assert all(file.stat().st_size for file in files)


def test_the_command_ends_with_1_when_a_picture_could_not_be_measured(dataset):
    (dataset / "images" / "a.png").unlink()
    done = command(dataset, "-m", "tiny")
    assert done.exit_code == 1
    assert "picture-not-found" in done.stderr


def test_all_stands_for_every_registered_explainer(dataset, tmp_path):
    done = command(dataset, "-m", "tiny", "-e", "all", "--csv", tmp_path / "out.csv")
    named = [row.split(",")[0] for row in (tmp_path / "out.csv").read_text().splitlines()]
    assert {"cam", "grad_cam"} <= set(named)
    assert "explainer-not-fitted" in done.stderr
    assert done.exit_code == 0, done.stderr


def test_the_command_ends_with_1_when_an_explainer_that_was_named_is_left_out(dataset):
    done = command(dataset, "-m", "tiny", "-e", "grad_cam", "-e", "faster_grad_cam")
    assert "explainer-not-fitted" in done.stderr
    assert done.exit_code == 1


@pytest.mark.parametrize("asked", [("-e", "grad_kam"), ("-f", "boxer")])
def test_what_does_not_exist_is_refused_before_anything_is_read(dataset, asked):
    assert isinstance(command(dataset, "-m", "tiny", *asked).exception, PluginError)


@dataclass(frozen=True)
class Learns(Bright):
    """Is bright only with what it learnt."""

    def fit(self, _classifier, _examples):
        return {"level": torch.ones(1)}

    def __call__(self, classifier, images, targets):
        found = super().__call__(classifier, images, targets)
        return replace(found, heatmaps=found.heatmaps * classifier.state["level"])


def test_what_has_not_learnt_is_left_out_and_what_has_is_measured(classifier, samples):
    asked = contest(Learns(), Bright())
    found = evaluate(classifier, samples, asked, Limits())
    assert found.refused["Learns"].code == "explainer-not-fitted"
    assert "heatbox fit Learns DATASET" in found.refused["Learns"].remedy
    informed = replace(asked, states={"Learns": {"level": torch.ones(1)}})
    records = evaluate(classifier, samples, informed, Limits()).records
    np.testing.assert_array_equal(records["Learns"].ious["largest"], records["Bright"].ious["largest"])


def test_the_command_uses_the_options_that_an_explainer_learnt_with(dataset, home):
    store = ModelStore(read_settings({"HEATBOX_HOME": str(home)}).store_path)
    classifier = load_classifier(store, store.find("tiny"))
    pictures = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    nothing = Examples(pictures, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4))
    explainer = Anomaly(layer="features.0", dimensions=4)
    fit_explainer(store, classifier, "anomaly", explainer, [nothing])
    assert command(dataset, "-m", "tiny", "-e", "anomaly").exit_code == 0
    refused = command(dataset, "-m", "tiny", "-e", "anomaly dimensions=5").exception
    assert isinstance(refused, NotFittedError)
