"""Training a classifier from image labels only: which classes are in the picture, never where.

Recipe: binary cross-entropy on one sigmoid per class, AdamW (https://arxiv.org/abs/1711.05101) on a one-cycle schedule
(https://arxiv.org/abs/1708.07120), seeded augmentation.

An object fills few of the cells that global average pooling averages, so the pooled values GAP(A) hardly vary and plain
training stands still. While it trains, the last linear layer therefore sees them batch-normalised
(https://arxiv.org/abs/1502.03167). At the end that is folded into the layer: with batch norm's mean m, deviation s,
gain g and shift t,

    W' = W g / s        b' = b + W (t - g m / s)        y = W' GAP(A) + b'

so the trained network is the plain one that was given.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from heatbox.errors import ModelInvalidError
from heatbox_workers.augment import Augmentation
from heatbox_workers.embeddings import last_linear

__all__ = ["Recipe", "Step", "train_classifier"]

_PEAK = 0.25


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the pictures.
        seed: of order and augmentation; the initial weights are the caller's.
        learning_rate: the highest of the cycle.
        batch_size: pictures a step; what remains of an epoch is left out.
        augmentation: how pictures are varied; None: not at all.
    """

    epochs: int = 34
    seed: int = 0
    learning_rate: float = 2e-3
    batch_size: int = 16
    augmentation: Augmentation | None = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        number: from 1.
        total: how many there will be.
        epoch: from 1.
        loss: binary cross-entropy of this batch, mean over pictures and classes.
    """

    number: int
    total: int
    epoch: int
    loss: float


def train_classifier(
    network: nn.Module, pictures: Tensor, labels: Tensor, recipe: Recipe, progress: Callable[[Step], None]
) -> float:
    """Train a network in place; the same arguments and number of threads give the same weights.

    Args:
        network: (n, 3, H, W) -> (n, C) logits; its last linear layer is the head. Left in eval mode.
        pictures: (N, 3, H, W) float32, normalised as the classifier's card says.
        labels: (N, C) float32, 1 where the class is in the picture, else 0.
        recipe: how to train.
        progress: told after every step.

    Returns:
        The mean loss of the last epoch.

    Raises:
        ModelInvalidError: the network has no linear head that can be trained, or the loss is no longer finite.
    """
    batch = min(recipe.batch_size, len(pictures))
    steps = len(pictures) // batch
    total = recipe.epochs * steps
    random = torch.Generator().manual_seed(recipe.seed)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]), standardised_head(network):
        torch.manual_seed(recipe.seed)
        network.train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(step / total))
        for rows in _batches(len(pictures), batch, recipe.epochs, random):
            seen = recipe.augmentation(pictures[rows], random) if recipe.augmentation else pictures[rows]
            losses.append(_step(network, seen, labels[rows], optimiser))
            schedule.step()
            progress(Step(len(losses), total, 1 + (len(losses) - 1) // steps, losses[-1]))
    return math.fsum(losses[-steps:]) / steps


def one_cycle(done: float) -> float:
    """Return the share of the highest learning rate after a share of the steps: up in a quarter, then down."""
    rise = done / _PEAK if done < _PEAK else (1 - done) / (1 - _PEAK)
    return 0.02 + 0.49 * (1 - math.cos(math.pi * rise))


@contextmanager
def standardised_head(network: nn.Module) -> Iterator[None]:
    """Put batch normalisation in front of the last linear layer while the body runs, then fold it into that layer.

    Raises:
        ModelInvalidError: there is no linear layer with a bias.
    """
    found = last_linear(network)
    if found is None or found[1].bias is None:
        raise ModelInvalidError(
            "The network has no last linear layer with a bias.", "Choose another architecture."
        )
    (path, head), normalised = found, nn.BatchNorm1d(found[1].in_features)
    network.set_submodule(path, nn.Sequential(normalised.to(head.weight), head))
    try:
        yield
    finally:
        network.set_submodule(path, head)
        _fold(normalised, head)
        network.eval()


@torch.no_grad()
def _fold(normalised: nn.BatchNorm1d, head: nn.Linear) -> None:
    """Fold batch normalisation, as it works in eval mode, into the linear layer behind it."""
    mean, variance = normalised.get_buffer("running_mean"), normalised.get_buffer("running_var")
    gain = normalised.weight / (variance + normalised.eps).sqrt()
    head.bias.add_(head.weight @ (normalised.bias - gain * mean))
    head.weight.mul_(gain)


def _batches(count: int, batch: int, epochs: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield row indices (batch,), every epoch in another order, whole batches only."""
    for _ in range(epochs):
        yield from torch.split(torch.randperm(count, generator=random)[: count // batch * batch], batch)


def _step(network: nn.Module, pictures: Tensor, labels: Tensor, optimiser: torch.optim.Optimizer) -> float:
    """Take one step and return the loss before it."""
    logits = network(pictures.contiguous(memory_format=torch.channels_last))
    loss = functional.binary_cross_entropy_with_logits(logits, labels)
    if not bool(loss.isfinite()):
        raise ModelInvalidError("The loss is no longer a finite number.", "Train with a lower learning rate.")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())
