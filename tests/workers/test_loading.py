"""Registering and loading: tried once, read safely, immutable."""

import os
import pickle
import resource
import shutil

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from heatbox.errors import LayerNotFoundError, ModelInvalidError, ModelNotFoundError, OutputError
from heatbox.models import ModelStore, make_card
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_workers.classifier import noise
from heatbox_workers.loading import (
    load_classifier,
    read_state,
    register,
    register_file,
    register_published,
)
from heatbox_workers.networks import build_network

CPU = torch.device("cpu")


def card(**changes):
    fields = {"name": "small", "architecture": "squeezenet1_1", "labels": ("a", "b"), "input_size": 48}
    return make_card(**{**fields, **changes})


@pytest.fixture(scope="module")
def state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("squeezenet1_1", {}, 2).state_dict()


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


def test_a_registered_model_loads_with_the_same_answers(store, state):
    registered = register(store, card(), state)
    loaded = load_classifier(store, registered)
    network = build_network("squeezenet1_1", {}, 2).eval()
    network.load_state_dict(state)
    images = noise(48, CPU)
    assert torch.allclose(loaded.logits(images), network(images), atol=1e-5)
    assert registered.architecture == "torchvision/squeezenet1_1"
    assert registered.feature_layer == "classifier.2"


FAMILIES = (
    "resnet18",
    "vgg11",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "densenet121",
    "efficientnet_b0",
    "convnext_tiny",
    "regnet_y_400mf",
)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_network_of_each_family_is_registered_loaded_and_explained(store, architecture):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build_network(architecture, {}, 2).state_dict()
    registered = register(store, card(architecture=architecture, input_size=64), weights)
    classifier = load_classifier(store, registered)
    heatmaps = GradCAM()(classifier, noise(64, CPU), torch.tensor([[0, 0], [0, 1], [1, 1]])).heatmaps
    assert heatmaps.shape[0] == 3
    assert bool(heatmaps.isfinite().all())


def test_published_weights_are_registered_from_torchs_cache_without_a_network(store, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    cached = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(build_network("squeezenet1_1", {}, 1000).state_dict(), cached)
    registered = register_published(store, "squeezenet1_1", input_size=96)
    assert registered.id == store.find("squeezenet1_1").id
    assert (len(registered.labels), registered.labels[0], registered.input_size) == (1000, "tench", 96)
    assert registered.source == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_the_same_content_twice_is_one_version(store, state):
    assert register(store, card(), state).id == register(store, card(), state).id
    assert len(store.cards()) == 1


def test_other_weights_are_another_version(store, state):
    other = {name: value * 1.01 for name, value in state.items()}
    assert register(store, card(), state).version != register(store, card(), other).version


def test_half_precision_weights_are_filled_in(store, state):
    halves = {name: value.half() for name, value in state.items()}
    assert load_classifier(store, register(store, card(), halves)).network.training is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ("a", "b", "c")}, "do not fit"),
        ({"architecture": "resnet18"}, "do not fit"),
        ({"input_size": 16}, "does not run|map"),
    ],
)
def test_a_model_that_does_not_work_is_not_registered(store, state, changes, words):
    with pytest.raises((ModelInvalidError, LayerNotFoundError), match=words):
        register(store, card(**changes), state)
    assert store.cards() == []


def test_weights_that_are_not_finite_are_not_registered(store, state):
    broken = {name: value * float("nan") for name, value in state.items()}
    with pytest.raises(ModelInvalidError, match="finite"):
        register(store, card(), broken)


def test_a_named_feature_layer_must_exist(store, state):
    with pytest.raises(LayerNotFoundError, match="nowhere"):
        register(store, card(feature_layer="nowhere"), state)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"weight": Bomb()}, tmp_path / "zipped.pt")
    for name in ("bomb.pt", "zipped.pt"):
        with pytest.raises(ModelInvalidError, match="safely"):
            read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x05garbage"])
def test_a_damaged_file_is_told(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelInvalidError, match=name):
        read_state(tmp_path / name)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ModelNotFoundError):
        read_state(tmp_path / "none.pt")


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_checkpoint_with_its_state_dict_inside_is_read(tmp_path, state, wrapper):
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "checkpoint.pt")
    assert set(read_state(tmp_path / "checkpoint.pt")) == set(state)


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(build_network("squeezenet1_1", {}, 2), tmp_path / "network.pt")
    with pytest.raises(ModelInvalidError):
        read_state(tmp_path / "network.pt")


def test_a_card_whose_checksum_is_not_the_files_is_refused(tmp_path, store, state):
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(card(sha256="1" * 64).model_dump_json())
    with pytest.raises(ModelInvalidError, match="sha256"):
        register_file(store, tmp_path / "w.safetensors", tmp_path / "w.json")


def test_weights_changed_in_the_store_are_not_loaded(store, state):
    registered = register(store, card(), state)
    path = store.weights_path(registered)
    changed = {name: value + 1 for name, value in load_file(path).items()}
    save_file(changed, path)
    with pytest.raises(ModelInvalidError, match="not those"):
        load_classifier(store, registered)


def test_weights_deleted_from_the_store_are_told(store, state):
    registered = register(store, card(), state)
    store.weights_path(registered).unlink()
    with pytest.raises(ModelInvalidError, match=r"cannot be read: No such file"):
        load_classifier(store, registered)


def test_a_full_disk_is_told_and_leaves_nothing(store, state):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            register(store, card(), state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(store.folder.iterdir())


def test_a_store_may_be_moved(tmp_path, store, state):
    registered = register(store, card(), state)
    shutil.move(store.folder, tmp_path / "elsewhere")
    moved = ModelStore(tmp_path / "elsewhere")
    assert load_classifier(moved, moved.find("small")).version == registered.version


def test_an_embedding_network_is_registered_with_the_class_vectors_that_it_lacks(tmp_path, store):
    trunk = {name: value for name, value in tiny_state().items() if not name.startswith("classifier.")}
    vectors = torch.eye(2, 64)
    save_file(trunk, tmp_path / "w.safetensors")
    arc = card(name="arc", architecture="heatbox/tiny", input_size=32, head="arcface", head_scale=5)
    (tmp_path / "w.json").write_text(arc.model_dump_json())
    registered = register_file(
        store,
        tmp_path / "w.safetensors",
        tmp_path / "w.json",
        lambda given, found: {**found, "classifier.weight": vectors} if given.head == "arcface" else found,
    )
    loaded = load_classifier(store, registered)
    images = noise(32, CPU)
    expected = 5 * torch.nn.functional.normalize(loaded.embed(images).embeddings)[:, :2]
    assert torch.allclose(loaded.logits(images), expected, atol=1e-5)
    with pytest.raises(ModelInvalidError, match=r"1 missing \(classifier.weight\)") as told:
        register_file(store, tmp_path / "w.safetensors", tmp_path / "w.json")
    assert "--class-pictures" in told.value.remedy


def tiny_state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("heatbox/tiny", {}, 2).state_dict()
