"""A training from its order to its result, with real pictures, a real store and real explainers."""

import base64
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from fixtures_learning import painted

from heatbox.corrections.corrected import Corrected, Placed
from heatbox.datasets.examples import split_of
from heatbox.datasets.stored import digest_of
from heatbox.errors import LayerNotFoundError, TooLittleError
from heatbox.pipeline import pipeline_for
from heatbox.settings import Settings
from heatbox.trainings.order import TrainingOptions, TrainingOrder
from heatbox_workers.loading import load_classifier
from heatbox_workers.training import run_training

QUICK = TrainingOptions(epochs=6, learning_rate=0.02, augment=False, patience=20)


class Training:
    """A home with the model `colours`, and pictures of the labels `warm` and `cold` as people corrected them."""

    def __init__(self, folder, colours, count):
        self.folder, self.colours = folder, colours
        self.settings = Settings(home=folder / "home", store=colours.store.folder, local_roots=(folder,))
        random = np.random.default_rng(3)
        self.corrected = []
        for number in range(count):
            label, colour = (("warm", "red"), ("cold", "blue"))[number % 2]
            side = int(random.integers(16, 26))
            x, y = (int(value) for value in random.integers(0, 64 - side, 2))
            path = painted(folder / "p" / f"{number}.png", [(colour, x, y, side)], seed=number)
            corners = tuple(value / 64 for value in (x, y, x + side, y + side))
            one = Corrected(1, number, str(path), (label,), (Placed(label, corners),), annotation=number)
            self.corrected.append(one)

    def order(self, **changes):
        given = {
            "base": self.colours.card.id,
            "name": "weather",
            "labels": ("warm", "cold"),
            "class_of": (("warm", "red"), ("cold", "blue")),
            "corrected": tuple(self.corrected),
            "options": QUICK,
        }
        return TrainingOrder(**{**given, **changes})

    def run(self, folder="training", tell=lambda _: None, **changes):
        return run_training(self.order(**changes), self.settings, self.folder / folder, tell)

    def split(self, one):
        return split_of(digest_of(self.folder / "p" / f"{one.task}.png"))


@pytest.fixture
def training(tmp_path, colours):
    return Training(tmp_path, colours, 40)


def test_from_corrections_to_a_model_that_is_compared(training):
    told = []
    result = json.loads(json.dumps(training.run(tell=told.append)))
    counts = result["pictures"]
    assert sum(counts.values()) == 40
    assert counts == {
        split: sum(training.split(one) == split for one in training.corrected)
        for split in ("train", "val", "test")
    }
    card = training.colours.store.find(result["model"])
    assert (card.labels, card.trained_from) == (("warm", "cold"), training.colours.card.id)
    assert result["comparison"]["challenger"]["accuracy"] > 0.9
    assert result["comparison"]["champion"] is None
    assert result["better"]
    assert (result["rejected"], result["unlearnt"]) == ([], [])
    assert {one["stage"] for one in told} >= {"reading pictures", "computing features", "training"}
    assert [one["epoch"] for one in told if one["stage"] == "training"] == list(range(1, 7))
    assert not list((training.folder / "training").iterdir())


def test_the_same_order_gives_the_same_model_wherever_it_was_killed(training):
    first = training.run("one")

    def kill(progress):
        if progress.get("epoch") == 2 or progress["stage"].startswith("measuring"):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training.run("two", kill)
    told = []
    second = training.run("two", told.append)
    assert second["model"] == first["model"]
    assert second["comparison"] == first["comparison"]
    assert not [one for one in told if one["stage"] == "training"]


def test_another_seed_is_another_model(training):
    models = {training.run(options=replace(QUICK, seed=seed, epochs=2))["model"] for seed in (0, 1)}
    assert len(models) == 2


def test_a_corrected_box_is_another_training(training):
    """The pictures are the same, so only what is known about them tells the checkpoints apart."""

    def kill(progress):
        if progress.get("epoch") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run("one", kill)
    moved = [replace(one, boxes=(Placed(one.labels[0], (0, 0, 1, 1)),)) for one in training.corrected]
    told = []
    training.run("one", told.append, corrected=tuple(moved))
    assert next(one["epoch"] for one in told if one["stage"] == "training") == 1


def test_a_challenger_that_was_taught_the_opposite_is_refused(tmp_path, colours):
    """What is learnt from, and what chooses the epoch, is wrong; what is held out is right."""
    training = Training(tmp_path, colours, 90)
    champion, mapped = colours.card, (("red", "warm"), ("blue", "cold"))
    pipeline = pipeline_for(champion, explainer="cam", label_map=mapped)
    other = {"warm": "cold", "cold": "warm"}
    wrong = tuple(
        one if training.split(one) == "test" else replace(one, labels=(other[one.labels[0]],), boxes=None)
        for one in training.corrected
    )
    options = replace(QUICK, learning_rate=0.1, epochs=20)
    result = training.run(corrected=wrong, champion=champion.id, pipeline=pipeline.as_dict(), options=options)
    comparison = result["comparison"]
    assert not result["better"]
    assert comparison["pictures"] == result["pictures"]["test"] >= 10
    assert comparison["challenger"]["accuracy"] < 0.5 < comparison["champion"]["accuracy"]
    assert colours.store.find(result["model"])


def test_a_champion_of_other_classes_is_compared_by_its_label_map(training):
    mapped = pipeline_for(
        training.colours.card, explainer="cam", label_map=(("red", "warm"), ("blue", "cold"))
    )
    result = training.run(champion=training.colours.card.id, pipeline=mapped.as_dict())
    assert result["comparison"]["champion"]["accuracy"] > 0.9
    assert result["comparison"]["champion"]["box_quality"] > 0.3


@pytest.mark.parametrize(("head", "lost"), [("softmax", {38}), ("arcface", {38, 39}), ("sigmoid", set())])
def test_what_a_head_cannot_learn_is_told_and_not_counted(training, head, lost):
    training.corrected[38] = replace(training.corrected[38], labels=(), boxes=())
    training.corrected[39] = replace(training.corrected[39], labels=("cold", "warm"))
    used = [one for one in training.corrected if training.split(one) != "test"]
    expected = {f"{one.task}.png" for one in used if one.task in lost}
    result = training.run(options=replace(QUICK, head=head, epochs=1))
    assert {one["name"] for one in result["rejected"]} == expected
    assert result["pictures"]["train"] + result["pictures"]["val"] == len(used) - len(expected)


def test_where_nothing_is_left_for_the_head_it_says_so(training):
    both = tuple(replace(one, labels=("cold", "warm"), boxes=()) for one in training.corrected)
    with pytest.raises(TooLittleError, match="arcface head") as caught:
        training.run(corrected=both, options=replace(QUICK, head="arcface"))
    assert "sigmoid" in caught.value.remedy


def test_a_class_that_nothing_shows_is_told(training):
    result = training.run(labels=("warm", "cold", "windy"), options=replace(QUICK, epochs=1))
    assert result["unlearnt"] == ["windy"]


def test_a_broken_picture_is_told_and_the_others_are_learnt(training):
    (training.folder / "p" / "7.png").write_bytes(b"no picture")
    (training.folder / "p" / "8.png").unlink()
    result = training.run(options=replace(QUICK, epochs=1))
    assert {one["task"] for one in result["rejected"]} == {7, 8}
    assert sum(result["pictures"].values()) == 38


def test_fetched_pictures_stay_until_the_comparison(training):
    """The cache forgets them while it trains."""
    inline = tuple(
        replace(
            one,
            address="data:image/png;base64,"
            + base64.b64encode((training.folder / "p" / f"{one.task}.png").read_bytes()).decode(),
        )
        for one in training.corrected
    )

    def forget(progress):
        if progress["stage"] == "training":
            shutil.rmtree(training.settings.home / "picture-cache", ignore_errors=True)

    result = training.run(tell=forget, corrected=inline)
    assert result["model"] == training.run("local")["model"]
    assert sum(row["pictures"] for row in result["comparison"]["challenger"]["labels"].values()) > 5
    assert not (training.folder / "training" / "pictures").exists()


def test_explainers_learn_about_the_new_model(training):
    pipeline = pipeline_for(training.colours.card, explainer="box_regression")
    result = training.run(fit=("box_regression", "cam"), pipeline=pipeline.as_dict())
    assert [one.partition(".")[0] for one in result["states"]] == ["box_regression"]
    assert [one.partition(":")[0] for one in result["untaught"]] == ["cam"]
    assert result["comparison"]["challenger"]["box_quality"] is not None


def test_what_cannot_be_compared_is_not_better_and_says_why(training):
    """The champion's explainer needs what nobody lets it learn about the new model."""
    pipeline = pipeline_for(training.colours.card, explainer="box_regression")
    result = training.run(pipeline=pipeline.as_dict())
    assert not result["better"]
    assert result["comparison"]["challenger"] is None
    assert "has not learnt from examples" in result["comparison"]["reason"]


def test_blocks_are_unfrozen_on_demand(training):
    result = training.run(options=replace(QUICK, unfreeze=1, epochs=2))
    card = training.colours.store.find(result["model"])
    before, after = (
        load_classifier(training.colours.store, one).network.state_dict()
        for one in (training.colours.card, card)
    )
    changed = {name.rpartition(".")[0] for name in after if after[name].ne(before[name]).any()}
    assert changed >= {"classifier", "features.6.0"}
    assert not any(name.startswith("features.5") for name in changed)
    with pytest.raises(LayerNotFoundError, match="blocks before its head"):
        training.run("deep", options=replace(QUICK, unfreeze=99))


def test_data_sets_alone_name_their_own_classes(training, colours):
    result = training.run(corrected=(), labels=(), class_of=(), data=(str(colours.data),))
    assert training.colours.store.find(result["model"]).labels == ("red", "blue")
    assert sum(result["pictures"].values()) == 30


def test_the_features_are_computed_once_for_all_trainings(training):
    training.run("one", options=replace(QUICK, epochs=1))
    files = {path: path.stat().st_mtime_ns for path in (training.settings.home / "features").rglob("*.saf*")}
    training.run("two", options=replace(QUICK, epochs=1, seed=5, head="arcface"))
    assert files
    again = {path: path.stat().st_mtime_ns for path in (training.settings.home / "features").rglob("*.saf*")}
    assert again == files
