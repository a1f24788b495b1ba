"""Networks of timm by name: built, told when they are not there, and their weights without a network."""

import re

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from heatbox.errors import ModelInvalidError, ModelNotFoundError, WeightsUnavailableError
from heatbox.models import ModelStore, make_card
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_plugins.explainers.guided_backprop import GuidedBackprop
from heatbox_workers import timm_networks
from heatbox_workers.classifier import noise
from heatbox_workers.loading import load_classifier, register, register_published
from heatbox_workers.networks import build_network, canonical_architecture, published_weights

CPU = torch.device("cpu")

# Architecture, its options, input side -> feature layer, side of the map.
NETWORKS = [
    ("timm/legacy_xception", {}, 96, "act4", 3),
    ("timm/vit_tiny_patch16_224", {"img_size": 64}, 64, "blocks.11.norm1", 4),
    ("timm/vit_tiny_patch16_224.augreg_in21k", {"img_size": 64}, 64, "blocks.11.norm1", 4),
    ("timm/deit_tiny_distilled_patch16_224", {"img_size": 64}, 64, "blocks.11.norm1", 4),
    ("timm/swin_tiny_patch4_window7_224", {"img_size": 64}, 64, "norm", 2),
    ("timm/test_efficientnet", {}, 64, "bn2", 2),
]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """Let huggingface_hub refuse every connection, with an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


def registered(store, architecture, options, side):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_network(architecture, options, 3).train()
        for _ in range(2):  # so that BatchNorm statistics fit the random weights
            network(torch.randn(2, 3, side, side))
    card = make_card(
        name="small",
        architecture=architecture,
        architecture_options=options,
        labels=("a", "b", "c"),
        input_size=side,
    )
    return load_classifier(store, register(store, card, network.state_dict()))


@pytest.mark.parametrize("row", NETWORKS, ids=[row[0] for row in NETWORKS])
def test_a_network_of_timm_is_registered_loaded_and_explained(store, row):
    architecture, options, side, layer, cells = row
    classifier = registered(store, architecture, options, side)
    assert (classifier.card.architecture, classifier.feature_layer) == (architecture, layer)
    head = classifier.head_gradients(noise(side, CPU), torch.tensor([[0, 0], [0, 1], [1, 2]]))
    assert head.maps.shape[2:] == (cells, cells)
    assert float(head.gradients.std()) > 0
    heatmaps = GradCAM()(classifier, noise(side, CPU), torch.tensor([[0, 0], [0, 1], [1, 2]])).heatmaps
    assert heatmaps.shape == (3, cells, cells)
    assert bool(heatmaps.isfinite().all())
    assert float(heatmaps.amax() - heatmaps.amin()) > 0


def test_xception_has_guided_gradients(store):
    classifier = registered(store, "timm/legacy_xception", {}, 96)
    assert GuidedBackprop().supports(classifier) is None
    (heatmap,) = GuidedBackprop()(classifier, noise(96, CPU, 1), torch.tensor([[0, 1]])).heatmaps
    assert heatmap.shape == (96, 96)
    assert float(heatmap.std()) > 0


def test_a_network_that_timm_does_not_have_is_told():
    with pytest.raises(ModelNotFoundError, match="no network 'hf-hub:some/body'"):
        canonical_architecture("timm/hf-hub:some/body")


def test_a_plain_name_that_only_timm_knows_is_told_with_its_family():
    with pytest.raises(ModelNotFoundError, match=re.escape("Did you mean 'timm/legacy_xception'?")):
        canonical_architecture("legacy_xception")


def test_a_misspelt_name_gets_the_nearest_names_of_both_families():
    with pytest.raises(ModelNotFoundError) as caught:
        canonical_architecture("mobilnet_v2")
    assert "'mobilenet_v2'" in caught.value.remedy
    assert "'timm/mobilenet" in caught.value.remedy


def test_without_timm_its_networks_name_the_extra(monkeypatch):
    monkeypatch.setattr(timm_networks, "find_spec", lambda _: None)
    with pytest.raises(ModelNotFoundError, match=re.escape("pip install 'heatbox[timm]'")):
        canonical_architecture("timm/legacy_xception")
    with pytest.raises(ModelNotFoundError) as caught:
        canonical_architecture("mobilnet_v2")
    assert "timm/mobilenet" not in caught.value.remedy


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg", "wings"])
def test_options_of_the_factory_and_unknown_ones_are_told(option):
    with pytest.raises(ModelInvalidError, match=option):
        build_network("timm/test_vit", {option: "weights.pth"}, 3)


@pytest.mark.parametrize("name", ["test_vit", "legacy_xception"])
def test_published_weights_without_a_network_name_the_remedy(name, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(WeightsUnavailableError, match=f"timm/{name}") as caught:
        published_weights(f"timm/{name}")
    assert "HF_HOME" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", "21843 outputs"),
        ("vit_small_patch16_dinov3", "0 outputs"),
        ("vit_tiny_patch16_384.nothing", "no network"),
    ],
)
def test_weights_that_are_not_of_imagenets_thousand_classes_are_told(name, words):
    with pytest.raises(ModelNotFoundError, match=words):
        published_weights(f"timm/{name}")


def test_published_weights_are_registered_from_the_hubs_cache_without_a_network(store, tmp_path):
    folder = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    weights = timm.create_model("test_vit", pretrained=False).state_dict()
    save_file(weights, snapshot / "model.safetensors")
    card = register_published(store, "timm/test_vit")
    assert (card.name, card.architecture, card.input_size) == ("test_vit", "timm/test_vit", 160)
    assert (len(card.labels), card.labels[0], card.labels[517]) == (
        1000,
        "tench, Tinca tinca",
        "crane (2)",
    )
    assert (card.mean, card.source) == ((0.5, 0.5, 0.5), "timm test_vit.r160_in1k")
    loaded = load_classifier(store, card).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
