"""The networks that the conformance kit asks about: tiny, their weights written by hand, so that the answer is known.

Each network tells three colours apart. A picture is dark noise with a coloured square in it; only the square's own
channel answers to it, so the class's evidence is inside the square and nowhere else.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from heatbox.models import make_card
from heatbox_workers.classifier import TorchClassifier

__all__ = ["PLACES", "SIDE", "Bench", "Tripwire", "default_benches", "plant", "randomised"]

SIDE = 64
_CPU = torch.device("cpu")
_CLASSES, _CHANNELS = 3, 8
_COLOURS = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]])  # normalised RGB of each class's square
_OPEN = 0.2  # what the first layer answers to must be stronger; the noise of the background is not

PLACES = ((4, 8, 28, 32), (36, 4, 60, 28), (32, 36, 56, 60))
"""Where squares are planted: xyxy in input pixels, far edges exclusive. None holds the picture's centre."""


class Tripwire(nn.Module):
    """Passes scores on, until it is told to raise: a network that fails after everything before it has run."""

    armed = False

    def forward(self, scores: Tensor) -> Tensor:
        """Return the scores, or raise RuntimeError."""
        if self.armed:
            message = "the network raised, as the conformance kit told it to"
            raise RuntimeError(message)
        return scores


class GapNet(nn.Module):
    """Convolutions with batch normalisation and SiLU, global average pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, _CHANNELS, _CHANNELS, _CHANNELS)
        steps = [
            (nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.SiLU())
            for before, after in pairwise(widths)
        ]
        self.features = nn.Sequential(*(module for step in steps for module in step))
        self.classifier = nn.Linear(_CHANNELS, _CLASSES)
        self.end = Tripwire()

    def forward(self, images: Tensor) -> Tensor:
        """Return scores: (N, 3, H, W) -> (N, C)."""
        scores: Tensor = self.end(self.classifier(self.features(images).mean(dim=(2, 3))))
        return scores


class ReluNet(nn.Module):
    """Convolutions with ReLU in place, pooling, two linear layers: a small VGG, whose head no closed form explains."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, _CHANNELS, 4, 2, 1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(_CHANNELS, _CHANNELS, 4, 2, 1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(_CHANNELS, _CHANNELS, 4, 2, 1), nn.ReLU(inplace=True)),
        )
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden = nn.Sequential(nn.Linear(16 * _CHANNELS, _CHANNELS), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(_CHANNELS, _CLASSES)
        self.end = Tripwire()

    def forward(self, images: Tensor) -> Tensor:
        """Return scores: (N, 3, H, W) -> (N, C)."""
        pooled = self.pool(self.features(images)).flatten(1)
        scores: Tensor = self.end(self.classifier(self.hidden(pooled)))
        return scores


@dataclass(frozen=True, eq=False)
class Bench:
    """One classifier with pictures, and where in them the objects are.

    Attributes:
        name: what messages call it.
        classifier: the classifier; rules work on copies of it.
        images: (N, 3, H, W); picture i < 3 has one object, of class i; the last one has two.
        targets: (M, 2), classes that are in the pictures; sorted by picture.
        places: the object of picture i, of class i: xyxy in input pixels; empty where it is not known.
        pair: two rows of `targets` that name different classes of one picture.
    """

    name: str
    classifier: TorchClassifier
    images: Tensor = field(repr=False)
    targets: Tensor
    places: tuple[tuple[int, int, int, int], ...] = ()
    pair: tuple[int, int] = (3, 4)

    def fresh(self) -> TorchClassifier:
        """Return the classifier with a network of its own, so that one rule's damage stays in that rule."""
        return TorchClassifier(
            self.classifier.card, deepcopy(self.classifier.network), self.classifier.device
        )

    def question(self) -> tuple[Tensor, Tensor]:
        """Return copies of images and targets, because an explainer may write to them."""
        return self.images.clone(), self.targets.clone()


def default_benches() -> tuple[Bench, ...]:
    """Return the kit's benches: `gap` (SiLU, GAP + linear) and `relu` (ReLU, two linear layers)."""
    return _bench("gap", GapNet), _bench("relu", ReluNet)


def plant(*objects: tuple[int, tuple[int, int, int, int]], seed: int = 0) -> Tensor:
    """Return a dark, noisy picture with a square per (class, place): (1, 3, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, SIDE, SIDE, generator=generator) * 0.1
    for index, (x1, y1, x2, y2) in objects:
        image[0, :, y1:y2, x1:x2] += _COLOURS[index].view(3, 1, 1)
    return image


def randomised(classifier: TorchClassifier, seed: int = 1) -> TorchClassifier:
    """Return a copy whose weights are noise of the usual size, under another version."""
    generator = torch.Generator().manual_seed(seed)
    network = deepcopy(classifier.network)
    with torch.no_grad():
        for weight in network.parameters():
            fan = weight[0].numel() if weight.dim() > 1 else 1
            weight.copy_(torch.randn(weight.shape, generator=generator) * (2 / fan) ** 0.5)
    return TorchClassifier(
        classifier.card.model_copy(update={"sha256": f"{seed:064x}"}), network, classifier.device
    )


def _bench(name: str, build: Callable[[], nn.Module]) -> Bench:
    with torch.random.fork_rng(devices=[]):  # constructors draw weights that we throw away
        network = build()
    _write_weights(network)
    card = make_card(
        name=name,
        architecture="heatbox/conformance",
        labels=("red", "green", "blue"),
        input_size=SIDE,
        feature_layer="features",
        sha256="0" * 64,
    )
    singles = [plant((index, place), seed=index) for index, place in enumerate(PLACES)]
    pair = plant((0, PLACES[1]), (1, PLACES[2]), seed=3)
    targets = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 0], [3, 1]])
    frozen = network.eval().requires_grad_(requires_grad=False)
    return Bench(name, TorchClassifier(card, frozen, _CPU), torch.cat([*singles, pair]), targets, PLACES)


def _write_weights(network: nn.Module) -> None:
    """Let the first three channels carry the three classes through the network; the others carry a little noise."""
    generator = torch.Generator().manual_seed(0)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            fan = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.1 / fan)
            for index in range(_CLASSES):
                layer.weight[index] += _carries(index, layer)
            cast("Tensor", layer.bias).fill_(-_OPEN if layer is layers[0] else 0.0)


def _carries(index: int, layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Return the weights of one output that read class `index` from what is before it."""
    inputs = layer.weight.shape[1]
    if isinstance(layer, nn.Conv2d):
        area = layer.weight.shape[2] * layer.weight.shape[3]
        read = _COLOURS[index] / 2 if inputs == _COLOURS.shape[1] else 1.5 * _one_hot(index, inputs)
        return read.view(-1, 1, 1).expand(layer.weight.shape[1:]) / area
    if layer.out_features == _CLASSES:  # for its own class, against the others
        return 6 * (1.5 * _one_hot(index, inputs) - 0.5 * _first(inputs))
    cells = inputs // _CHANNELS  # a slope over the cells, so that the head is not an average in disguise
    return torch.outer(_one_hot(index, _CHANNELS), torch.linspace(0.5, 1.5, cells)).flatten() / cells


def _one_hot(index: int, length: int) -> Tensor:
    return torch.eye(length)[index]


def _first(length: int) -> Tensor:
    """Return ones for the classes' channels, zeros for the others."""
    return (torch.arange(length) < _CLASSES).float()
