"""Feature layers: cutting the graph, finding the layer, recognising a GAP + linear head."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from heatbox.errors import LayerNotFoundError
from heatbox_workers.classifier import noise
from heatbox_workers.features import find_feature_layer, find_gap_weights, forward_pass, rescore

CPU = torch.device("cpu")

# Architecture -> the last map that pooling did not make, and whether the head is GAP + linear.
FAMILIES = [
    ("resnet18", "layer4", True),
    ("vgg11", "features.19", False),
    ("squeezenet1_1", "classifier.2", True),
    ("mobilenet_v2", "features", True),
    ("mobilenet_v3_small", "features", False),
    ("densenet121", "features", True),
    ("efficientnet_b0", "features", True),
    ("convnext_tiny", "features", False),
    ("regnet_y_400mf", "trunk_output", True),
    ("shufflenet_v2_x0_5", "conv5", True),
]


def settled(name: str) -> nn.Module:
    """Return a seeded network whose BatchNorm statistics fit its random weights; without this maps vanish."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        network = torchvision.models.get_model(name, weights=None, num_classes=7).train()
        for _ in range(3):
            network(torch.randn(2, 3, 64, 64))
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(("name", "layer", "gap"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_the_feature_layer_of_a_family_is_found_and_its_head_recognised(name, layer, gap):
    network = settled(name)
    images = noise(64, CPU)
    assert find_feature_layer(network, images) == layer
    assert (find_gap_weights(network, layer, images) is not None) == gap


@pytest.mark.parametrize("name", [family[0] for family in FAMILIES])
def test_gradients_of_the_cut_graph_equal_those_of_the_whole_graph(name):
    network, images = settled(name), noise(64, CPU)
    cut = forward_pass(network, find_feature_layer(network, images), images)
    (gradients,) = cut.gradients(torch.tensor([[0, 2], [1, 4]]))
    pixels = images.clone().requires_grad_()
    whole = forward_pass_with_graph(network, find_feature_layer(network, images), pixels)
    expected = torch.autograd.grad(whole.logits[0, 2] + whole.logits[1, 4], whole.maps)[0]
    assert torch.allclose(gradients.gradients, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert torch.allclose(cut.logits, network(images), rtol=1e-4, atol=1e-5)


def forward_pass_with_graph(network, layer, images):
    """Record a layer without cutting the graph: the slow, plain way to the same gradients."""
    from heatbox_workers.features import ForwardPass

    kept = []

    def keep(_module, _inputs, output):
        kept.append(output.clone())
        return kept[-1]

    handle = network.get_submodule(layer).register_forward_hook(keep)
    logits = network(images)
    handle.remove()
    return ForwardPass({layer: kept[0]}, logits)


def test_only_the_head_records_a_graph(classifier, images):
    recorded = forward_pass(classifier.network, "features", images)
    node, names = recorded.maps.grad_fn, []
    while node is not None:
        names.append(type(node).__name__)
        node = node.next_functions[0][0] if node.next_functions else None
    assert names == ["CloneBackward0", "AccumulateGrad"]


def test_several_targets_of_an_image_equal_single_calls(classifier, images):
    targets = torch.tensor([[0, 0], [0, 2], [2, 1], [0, 1], [1, 1]])
    (together,) = forward_pass(classifier.network, "features", images).gradients(targets)
    for row, (image, target) in enumerate(targets.tolist()):
        alone = forward_pass(classifier.network, "features", images[image : image + 1])
        (single,) = alone.gradients(torch.tensor([[0, target]]))
        assert torch.allclose(together.gradients[row], single.gradients[0], atol=1e-7)
        assert torch.allclose(together.maps[row], single.maps[0], atol=1e-6)
        assert torch.allclose(together.logits[row], single.logits[0], atol=1e-6)


@pytest.mark.parametrize("layers", [("layer2", "layer3.0", "layer4"), ("layer4", "layer2")])
def test_gradients_at_several_layers_are_those_of_each_layer_alone(layers):
    network, images, targets = settled("resnet18"), noise(64, CPU), torch.tensor([[0, 2], [1, 4], [0, 5]])
    together = forward_pass(network, layers, images).gradients(targets, layers)
    for layer, found in zip(layers, together, strict=True):
        (alone,) = forward_pass(network, layer, images).gradients(targets)
        assert torch.allclose(found.maps, alone.maps, atol=1e-6)
        assert torch.allclose(found.gradients, alone.gradients, rtol=1e-4, atol=1e-7)
        assert torch.allclose(found.logits, alone.logits, atol=1e-6)


def test_a_layer_before_one_that_works_in_place_keeps_its_maps():
    network, images = settled("squeezenet1_1"), noise(64, CPU)
    recorded = forward_pass(network, ("features.7", "classifier.1"), images)
    alone = forward_pass(network, "features.7", images).maps
    assert torch.equal(recorded.layers["features.7"], alone)


def test_no_hook_is_left_when_one_of_several_layers_is_missing(classifier, images):
    with pytest.raises(LayerNotFoundError, match=r"no layer 'features\.99'"):
        forward_pass(classifier.network, ("features.0", "features.99"), images)
    assert not any(module._forward_hooks for module in classifier.network.modules())  # noqa: SLF001


def test_several_targets_share_one_forward_pass_of_the_trunk(classifier, images):
    runs = []
    handle = classifier.network.features.register_forward_hook(lambda *_: runs.append(1))
    classifier.head_gradients(images, torch.tensor([[0, 0], [0, 1], [0, 2], [1, 1]]))
    handle.remove()
    assert len(runs) == 1


@pytest.mark.parametrize("name", [family[0] for family in FAMILIES])
def test_rescoring_a_layers_own_maps_gives_the_networks_scores(name):
    network, images = settled(name), noise(64, CPU)
    layer = find_feature_layer(network, images)
    maps = forward_pass(network, layer, images).maps.detach()
    scores = rescore(network, layer, images[:1], maps)
    assert torch.allclose(scores, network(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(rescore(network, layer, images[:1], maps * 0)[0], scores[0])


def test_the_hook_comes_off_when_the_network_raises(classifier):
    with pytest.raises(RuntimeError):
        forward_pass(classifier.network, "features", torch.zeros(1, 7, 32, 32))
    assert not any(module._forward_hooks for module in classifier.network.modules())  # noqa: SLF001


@pytest.mark.parametrize(
    ("layer", "words"), [("nothing.here", "no layer"), ("head", "not a map"), ("features.99", "no layer")]
)
def test_a_wrong_layer_is_told_by_name(classifier, images, layer, words):
    with pytest.raises(LayerNotFoundError, match=words):
        forward_pass(classifier.network, layer, images)


def test_what_is_recorded_is_what_an_in_place_head_sees():
    class InPlaceHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, images):
            return self.head(functional.relu(self.features(images), inplace=True).mean(dim=(2, 3)))

    network = InPlaceHead().eval().requires_grad_(requires_grad=False)
    recorded = forward_pass(network, "features", noise(16, CPU))
    assert float(recorded.maps.detach().min()) >= 0  # what the head sees
    weights = find_gap_weights(network, "features", noise(16, CPU))
    assert weights is not None
    assert torch.equal(weights, network.head.weight)


def test_maps_of_zeros_show_no_head(classifier):
    with torch.no_grad():
        classifier.network.features[2].weight.zero_()
        classifier.network.features[2].bias.zero_()
    assert find_gap_weights(classifier.network, "features", noise(32, CPU)) is None
