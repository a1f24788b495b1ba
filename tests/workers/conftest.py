"""Small classifiers whose answers are known: no weights from anywhere."""

import pytest
import torch
from torch import nn

from heatbox.models import make_card
from heatbox_workers.classifier import TorchClassifier

SIDE = 32


class Gap(nn.Module):
    """Two convolutions, global average pooling, one linear layer."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 3, 2, 1), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(5, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))


def gap_classifier(classes: int = 3, head: str = "softmax") -> TorchClassifier:
    """Return a seeded GAP classifier of 32-pixel pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Gap(classes)
    card = make_card(
        name="gap",
        architecture="heatbox/tiny",
        labels=tuple(f"class {index}" for index in range(classes)),
        input_size=SIDE,
        head=head,
        feature_layer="features",
        sha256="0" * 64,
    )
    return TorchClassifier(card, network.requires_grad_(requires_grad=False).eval(), torch.device("cpu"))


@pytest.fixture
def classifier() -> TorchClassifier:
    return gap_classifier()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def gap():
    """Return the maker of GAP classifiers."""
    return gap_classifier
