"""Seeded torchvision networks as classifiers, and how far our numbers are from those of somebody else.

`python tests/references.py` makes a table of what `agrees` records.
"""

import json
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
import torchvision

from heatbox.models import make_card
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.features import find_feature_layer

SIDE = 64
NAMES = {  # file of an explainer -> its name
    entry.module.rpartition(".")[2]: entry.name for entry in entry_points(group="heatbox.explainers")
}


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
def classifier(request: pytest.FixtureRequest, network: str) -> TorchClassifier:
    """The classifier that a test names by its parameter `network`."""
    found: TorchClassifier = request.getfixturevalue(network)
    return found


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([[0, 1], [1, 4], [2, 0], [0, 5]])


def relative_difference(ours: Any, reference: Any) -> float:
    """Return the largest absolute difference as part of the reference's largest absolute value."""
    first, second = (torch.as_tensor(values).detach().double() for values in (ours, reference))
    assert first.shape == second.shape
    difference, size = float((first - second).abs().max()), float(second.abs().max())
    return difference / size if size else (torch.inf if difference else 0.0)


@pytest.fixture
def close() -> Callable[..., bool]:
    """Compare what two ways of ours give, relative to the second's size; nothing is recorded."""

    def within(first: Any, second: Any, tolerance: float = 2e-5) -> bool:
        return relative_difference(first, second) <= tolerance

    return within


@pytest.fixture
def agrees(request: pytest.FixtureRequest) -> Callable[..., bool]:
    """Compare with an independent reference or a closed form, and record how far away we are.

    The explainer is the subject of the test's file unless it is named. What `record_property` would write is written
    without that fixture, whose warning under pytest's own `--junitxml` is an error here.
    """
    subject = NAMES.get(request.path.stem.removeprefix("test_"))

    def within(
        ours: Any, reference: Any, tolerance: float, against: str, explainer: str | None = None
    ) -> bool:
        name, difference = explainer or subject, relative_difference(ours, reference)
        assert name in NAMES.values(), f"{request.path.name} is of no explainer: name it"
        request.node.user_properties.append(("reference", json.dumps([name, against, difference, tolerance])))
        return difference <= tolerance

    return within
