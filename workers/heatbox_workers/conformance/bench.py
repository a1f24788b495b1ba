"""The networks that the conformance kit asks about: tiny, their weights written by hand, so that the answer is known.

Each network tells three colours apart. A picture is dark noise with a coloured square in it; only the square's own
channel answers to it, so the class's evidence is inside the square and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from heatbox.contract import Examples, Explainer, FittedExplainer
from heatbox.models import make_card
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import learn

__all__ = ["PLACES", "SIDE", "Bench", "Tripwire", "default_benches", "plant", "randomised"]

SIDE = 64
_CPU = torch.device("cpu")
_CLASSES, _CHANNELS = 3, 8
_COLOURS = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]])  # normalised RGB of each class's square
_EXAMPLES, _OBJECT = 90, 24  # to learn from; side of their objects in pixels, as in PLACES
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


class TokenNet(nn.Module):
    """A small vision transformer: 8 x 8 patches, a class token, two layers of attention, a head on the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, _CHANNELS, 8, 8), nn.SiLU())
        self.class_token = nn.Parameter(torch.zeros(1, 1, _CHANNELS))
        self.blocks = nn.Sequential(Attending(), Attending())
        self.classifier = nn.Linear(_CHANNELS, _CLASSES)
        self.end = Tripwire()

    def forward(self, images: Tensor) -> Tensor:
        """Return scores: (N, 3, H, W) -> (N, C)."""
        patches = self.features(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        scores: Tensor = self.end(self.classifier(self.blocks(tokens)[:, 0]))
        return scores


class Attending(nn.Module):
    """A residual layer of attention: every token looks at the patches that carry a class."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()
        self.attention = nn.MultiheadAttention(_CHANNELS, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add what each token attends to: (N, T, K) -> (N, T, K)."""
        seen = self.norm(tokens)
        attended: Tensor = self.attention(seen, seen, seen, need_weights=False)[0]
        return tokens + attended


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
        return replace(self.classifier, network=deepcopy(self.classifier.network))

    def learnt(self, explainer: Explainer, classifier: TorchClassifier) -> Mapping[str, Tensor]:
        """Return what an explainer with `fit` learns from planted objects.

        One with a label of its own learns from pictures without objects: they are what it must find.
        """
        examples = list(_examples(len(classifier.labels), empty=hasattr(explainer, "label")))
        return learn("the explainer", cast("FittedExplainer", explainer), classifier, examples)

    def fitted(self, explainer: Explainer) -> "Bench":
        """Return the bench with what the explainer learns; the same bench where it has nothing to learn."""
        if not hasattr(explainer, "fit"):
            return self
        return replace(self, classifier=replace(self.classifier, state=self.learnt(explainer, self.fresh())))

    def question(self) -> tuple[Tensor, Tensor]:
        """Return copies of images and targets, because an explainer may write to them."""
        return self.images.clone(), self.targets.clone()


def default_benches() -> tuple[Bench, ...]:
    """Return the kit's benches: `gap` (SiLU, GAP + linear), `relu` (ReLU, two linear layers), `tokens` (a ViT)."""
    return (
        _bench("gap", GapNet),
        _bench("relu", ReluNet),
        _bench("tokens", TokenNet, feature_layer="blocks.1.norm"),
    )


def plant(*objects: tuple[int, tuple[int, int, int, int]], seed: int = 0) -> Tensor:
    """Return a dark, noisy picture with a square per (class, place): (1, 3, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, SIDE, SIDE, generator=generator) * 0.1
    for index, (x1, y1, x2, y2) in objects:
        image[0, :, y1:y2, x1:x2] += _COLOURS[index].view(3, 1, 1)
    return image


def _examples(classes: int, *, empty: bool) -> Iterator[Examples]:
    """Yield pictures with one object each, at seeded places, or empty ones."""
    generator = torch.Generator().manual_seed(7)
    for step in range(_EXAMPLES):
        corners = torch.randint(0, SIDE - _OBJECT + 1, (2,), generator=generator).tolist()
        place = (corners[0], corners[1], corners[0] + _OBJECT, corners[1] + _OBJECT)
        planted = () if empty else ((step % classes, place),)
        yield Examples(
            plant(*planted, seed=100 + step),
            torch.tensor([[0, index] for index, _ in planted], dtype=torch.int64).reshape(-1, 2),
            torch.tensor([box for _, box in planted], dtype=torch.float32).reshape(-1, 4),
        )


def randomised(classifier: TorchClassifier, seed: int = 1) -> TorchClassifier:
    """Return a copy whose weights are noise of the usual size, under another version."""
    generator = torch.Generator().manual_seed(seed)
    network = deepcopy(classifier.network)
    with torch.no_grad():
        for weight in network.parameters():
            fan = weight[0].numel() if weight.dim() > 1 else 1
            weight.copy_(torch.randn(weight.shape, generator=generator) * (2 / fan) ** 0.5)
    return replace(
        classifier, card=classifier.card.model_copy(update={"sha256": f"{seed:064x}"}), network=network
    )


def _bench(name: str, build: Callable[[], nn.Module], feature_layer: str = "features") -> Bench:
    with torch.random.fork_rng(devices=[]):  # constructors draw weights that we throw away
        network = build()
    _write_weights(network)
    card = make_card(
        name=name,
        architecture="heatbox/conformance",
        labels=("red", "green", "blue"),
        input_size=SIDE,
        feature_layer=feature_layer,
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
        for attention in (
            module for module in network.modules() if isinstance(module, nn.MultiheadAttention)
        ):
            _write_attention(attention)


def _write_attention(attention: nn.MultiheadAttention) -> None:
    """Let each head look for patches of any class, wherever it looks from, and pass on what it sees."""
    query, key, value = cast("Tensor", attention.in_proj_weight).chunk(3)
    query.zero_()
    cast("Tensor", attention.in_proj_bias).zero_()[:_CHANNELS] = 1
    key.copy_(_first(_CHANNELS).expand_as(key) / 2)
    value.copy_(torch.eye(_CHANNELS))


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
