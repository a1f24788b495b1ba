"""The trunk of a network: which layers follow each other there.

A layer is on the trunk when everything the network knows goes through it: a module whose ancestors are plain
`nn.Sequential` containers, or contain the feature layer, and that puts out a square map. What is inside a block
(a residual branch, an attention window) is not on the trunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from heatbox.contract import Classifier

__all__ = ["Stage", "last_stage"]

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Stage:
    """The layers of a network's last resolution.

    Attributes:
        layers: in the order they run; the last is the feature layer.
        before: the layer before them that has larger maps; None where the network has none.
    """

    layers: tuple[str, ...]
    before: str | None


# Which layers there are never changes for a network; looking costs a forward pass.
_STAGES: "WeakKeyDictionary[nn.Module, Stage]" = WeakKeyDictionary()


def last_stage(classifier: Classifier) -> Stage:
    """Return the layers of the feature layer's resolution; the first call runs the network once on zeros."""
    if classifier.network not in _STAGES:
        side, parameter = classifier.input_size, next(classifier.network.parameters())
        zeros = torch.zeros(1, 3, side, side, device=parameter.device)
        _STAGES[classifier.network] = _find_stage(classifier.network, classifier.feature_layer, zeros)
    return _STAGES[classifier.network]


def _find_stage(network: nn.Module, feature_layer: str, zeros: Tensor) -> Stage:
    outputs: dict[int, tuple[str, Tensor]] = {}  # by identity: a container puts out what its last layer did
    pooled: set[int] = set()

    def remember(name: str, module: nn.Module, output: object) -> None:
        if _is_map(output) and output.shape[2] == output.shape[3]:
            outputs[id(output)] = name, output
            pooled.update([id(output)] if isinstance(module, _POOLING) else [])

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: remember(name, module, output))
        for name, module in network.named_modules()
        if _on_trunk(network, name, feature_layer)
    ]
    try:
        with torch.no_grad():
            network(zeros)
    finally:
        for handle in handles:
            handle.remove()
    return _stage([row for key, row in outputs.items() if key not in pooled], feature_layer)


def _stage(trunk: Sequence[tuple[str, Tensor]], feature_layer: str) -> Stage:
    sides = {name: output.shape[3] for name, output in trunk}
    if feature_layer not in sides:
        return Stage((feature_layer,), None)
    names = list(sides)[: list(sides).index(feature_layer) + 1]
    side = sides[feature_layer]
    larger = [name for name in names if sides[name] > side]
    return Stage(tuple(name for name in names if sides[name] == side), larger[-1] if larger else None)


def _on_trunk(network: nn.Module, name: str, feature_layer: str) -> bool:
    parts = name.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return bool(name) and all(
        type(network.get_submodule(one)) is nn.Sequential or feature_layer.startswith(f"{one}.")
        for one in above
    )


def _is_map(output: object) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1  # noqa: PLR2004
