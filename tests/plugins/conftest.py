"""Seeded torchvision networks as classifiers, for numbers that an independent library computes too."""

import pytest
import torch
import torchvision

from heatbox.models import make_card
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.features import find_feature_layer

SIDE = 64


def torchvision_classifier(name: str, classes: int = 6) -> TorchClassifier:
    """Return a random network whose BatchNorm statistics fit its weights; without this maps vanish."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        network = torchvision.models.get_model(name, weights=None, num_classes=classes).train()
        for _ in range(3):
            network(torch.randn(4, 3, SIDE, SIDE))
    network.eval().requires_grad_(requires_grad=False)
    card = make_card(
        name=name,
        architecture=f"torchvision/{name}",
        labels=tuple(f"class {index}" for index in range(classes)),
        input_size=SIDE,
        feature_layer=find_feature_layer(network, noise(SIDE, torch.device("cpu"))),
        sha256="0" * 64,
    )
    return TorchClassifier(card, network, torch.device("cpu"))


@pytest.fixture(scope="session")
def resnet() -> TorchClassifier:
    return torchvision_classifier("resnet18")


@pytest.fixture(scope="session")
def mobilenet() -> TorchClassifier:
    return torchvision_classifier("mobilenet_v2")


@pytest.fixture(scope="session")
def vgg() -> TorchClassifier:
    return torchvision_classifier("vgg11")


@pytest.fixture(scope="session")
def squeezenet() -> TorchClassifier:
    return torchvision_classifier("squeezenet1_1")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([[0, 1], [1, 4], [2, 0], [0, 5]])
