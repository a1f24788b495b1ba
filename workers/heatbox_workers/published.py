"""Weights that somebody published for a network, with what belongs to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Published", "unique"]


@dataclass(frozen=True)
class Published:
    """Weights that torchvision or timm publishes for a network, with what belongs to them."""

    state: dict[str, Tensor]
    labels: tuple[str, ...]
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str


def unique(labels: Sequence[str]) -> tuple[str, ...]:
    """Number the names that ImageNet uses twice (crane, maillot): `crane`, `crane (2)`."""
    seen: dict[str, int] = {}
    numbered = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        numbered.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return tuple(numbered)
