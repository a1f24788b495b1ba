"""Fitting: what a plugin learns is checked, kept under its content's name, and handed back."""

import resource
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file

from heatbox.contract import Evidence, Examples
from heatbox.errors import (
    ModelInvalidError,
    NotFittedError,
    OutputError,
    PluginBrokenError,
    UnsupportedError,
)
from heatbox.fitted import find_state
from heatbox.models import ModelStore
from heatbox_workers.fitting import fit_explainer, learn, options_of, with_state
from heatbox_workers.loading import load_classifier

WEIGHT = torch.arange(6.0).reshape(2, 3)


@dataclass(frozen=True)
class Learner:
    """Learns what it is told, and the mean of all pictures."""

    told: object = 1.0
    times: int = 2

    def fit(self, _classifier, examples):
        passes = [[batch.images.mean() for batch in examples] for _ in range(self.times)]
        return {"weight": WEIGHT * self.told, "mean": torch.stack(passes[-1]), "turned": WEIGHT.T}

    def __call__(self, _classifier, _images, targets):
        return Evidence(heatmaps=torch.zeros(len(targets), 2, 2))


@dataclass(frozen=True)
class Returns(Learner):
    """Returns whatever it was given."""

    def fit(self, _classifier, _examples):
        return self.told


@dataclass(frozen=True)
class Raises(Learner):
    """Raises what it was given."""

    def fit(self, _classifier, _examples):
        raise self.told


@dataclass(frozen=True)
class Refuses(Learner):
    """Supports nothing."""

    def supports(self, _classifier):
        return "too small."


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


@pytest.fixture
def registered(store, tiny_store):
    """The session's tiny model in a store of this test's own."""
    card = ModelStore(tiny_store).find("tiny")
    with store.incoming() as folder:
        path = ModelStore(tiny_store).weights_path(card)
        (folder / path.name).write_bytes(path.read_bytes())
        store.publish(folder, card)
    return load_classifier(store, card)


@pytest.fixture
def examples():
    images = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4)
    return [Examples(images[:3], *nothing), Examples(images[3:], *nothing)]


@pytest.mark.parametrize(
    "returned",
    [{}, None, [WEIGHT], WEIGHT, {"weight": WEIGHT.numpy()}, {1: WEIGHT}, {"weight": [1.0]}],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_tensors_by_name_is_the_plugins_defect(classifier, returned):
    with pytest.raises(PluginBrokenError, match="mine learnt is not tensors by name"):
        learn("mine", Returns(returned), classifier, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_the_plugins_defect(classifier, value):
    learnt = {"good": WEIGHT, "bad": WEIGHT * value, "whole": WEIGHT.long()}
    with pytest.raises(PluginBrokenError, match=r"not finite \(bad\)"):
        learn("mine", Returns(learnt), classifier, [])


def test_a_plugin_that_raises_is_told_with_what_it_raised(classifier):
    with pytest.raises(PluginBrokenError, match="mine failed: ZeroDivisionError: by what"):
        learn("mine", Raises(ZeroDivisionError("by what")), classifier, [])


def test_too_little_to_learn_from_stays_what_the_plugin_said(classifier):
    with pytest.raises(NotFittedError, match="more"):
        learn("mine", Raises(NotFittedError("Give more.", "Do.")), classifier, [])


def test_a_network_that_is_refused_is_not_learnt(classifier):
    with pytest.raises(UnsupportedError, match="too small"):
        learn("mine", Refuses(), classifier, [])


def test_an_explainer_without_fit_has_nothing_to_learn(store, classifier):
    with pytest.raises(UnsupportedError, match="nothing to learn"):
        fit_explainer(store, classifier, "mine", object(), [])


def test_what_was_learnt_comes_back(store, registered, examples):
    state = fit_explainer(store, registered, "mine", Learner(2.0), examples)
    found = find_state(store, registered.card, "mine")
    assert found == state
    assert (found.options, found.examples, found.label) == ({"told": 2.0, "times": 2}, 5, "")
    learnt = with_state(registered, found).state
    assert torch.equal(learnt["weight"], WEIGHT * 2)
    assert torch.equal(learnt["turned"], WEIGHT.T)
    assert not registered.state
    assert with_state(registered, None) is registered


def test_tensors_that_share_memory_are_kept(store, registered):
    state = fit_explainer(store, registered, "mine", ReturnsShared(), [])
    assert sorted(load_file(state.path)) == ["again", "row", "weight"]


@dataclass(frozen=True)
class ReturnsShared(Learner):
    """Returns one tensor under two names, and a part of it."""

    def fit(self, _classifier, _examples):
        return {"weight": WEIGHT, "again": WEIGHT, "row": WEIGHT[0]}


def test_the_same_examples_and_options_are_the_same_state(store, registered, examples):
    ids = [fit_explainer(store, registered, "mine", Learner(told), examples).id for told in (1.0, 1.0, 3.0)]
    assert ids[0] == ids[1] != ids[2]


def test_the_options_are_those_of_the_instance():
    assert options_of(Learner(times=3)) == {"told": 1.0, "times": 3}


def test_a_full_disk_is_told_and_leaves_nothing(store, registered, examples):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            fit_explainer(store, registered, "mine", Learner(), examples)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(store.path(registered.card).glob("state/*"))
    assert not list(store.folder.glob(".incoming-*"))


def test_a_state_that_was_changed_is_not_used(store, registered, examples):
    state = fit_explainer(store, registered, "mine", Learner(), examples)
    changed = {name: value + 1 for name, value in load_file(state.path).items()}
    save_file(changed, state.path)
    with pytest.raises(ModelInvalidError, match="is damaged"):
        with_state(registered, state)


@pytest.mark.parametrize("content", [b"", b"no tensors at all"])
def test_a_state_that_cannot_be_read_is_told(store, registered, examples, content):
    state = fit_explainer(store, registered, "mine", Learner(), examples)
    state.path.write_bytes(content)
    with pytest.raises(ModelInvalidError, match="is damaged"):
        with_state(registered, state)
