"""Transfer: the head is found and begun from what the base knows; everything else is the base's."""

import pytest
import torch
from fixtures_learning import network_of

from heatbox_workers.training.transfer import linear_head, transfer

LABELS = ("red", "blue", "green")
NETWORKS = {
    "heatbox/tiny": "classifier",
    "torchvision/resnet18": "fc",
    "torchvision/mobilenet_v3_small": "classifier.3",
    "torchvision/squeezenet1_1": "classifier.1",
    "torchvision/densenet121": "classifier",
    "timm/convnextv2_atto": "head.fc",
}


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def test_head_and_known_classes_are_found_in_every_network(images):
    for architecture, head in NETWORKS.items():
        base = network_of(architecture, LABELS)
        made = transfer(base, "new", ("green", "never seen", "red"), {}, "softmax", 0)
        assert made.head == (f"{head}.weight", f"{head}.bias"), architecture
        with torch.no_grad():
            found, known = made.network(images), base.network(images)
        assert torch.allclose(found[:, [0, 2]], known[:, [2, 0]], atol=1e-6), architecture
        assert made.card.labels == ("green", "never seen", "red")
        assert not made.network.training
        assert not any(weight.requires_grad for weight in made.network.parameters())


def test_everything_but_the_head_is_the_base_s():
    base = network_of("torchvision/mobilenet_v3_small", LABELS)
    state = transfer(base, "new", ("a", "b"), {}, "sigmoid", 0).network.state_dict()
    kept = {name: value for name, value in base.network.state_dict().items() if "classifier.3" not in name}
    assert len(kept) == len(state) - 2
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_a_class_begins_as_the_class_that_stands_for_it(images):
    base = network_of(labels=LABELS)
    made = transfer(base, "new", ("sky", "blood"), {"sky": "blue", "blood": "red"}, "softmax", 0)
    with torch.no_grad():
        assert torch.allclose(made.network(images), base.network(images)[:, [1, 0]])


def test_other_classes_begin_small_and_by_the_seed():
    base = network_of(labels=LABELS)
    first, again, other = (
        transfer(base, "new", ("red", "x"), {}, "softmax", seed).network.classifier for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight[1], other.weight[1])
    assert first.weight[1].abs().max() < 0.02 * first.weight[0].abs().max()
    assert first.bias[1] == 0


def test_an_arcface_head_begins_with_the_rows_of_the_base(images):
    base = network_of(labels=LABELS)
    made = transfer(base, "new", ("green", "red"), {}, "arcface", 0)
    assert made.head == ("classifier.weight",)
    assert linear_head(made) is None
    with torch.no_grad():
        embedding = base.network.features(images).mean((2, 3))
        rows = base.network.classifier.weight[[2, 0]]
        cosine = torch.cosine_similarity(embedding[:, None], rows[None], dim=2)
        assert torch.allclose(made.network(images), 30 * cosine, atol=1e-4)


def test_the_global_generator_stays_where_it_was():
    base, before = network_of(labels=LABELS), torch.random.get_rng_state()
    transfer(base, "new", ("a",), {}, "softmax", 5)
    assert torch.equal(torch.random.get_rng_state(), before)
