"""Feature layers: record one in a forward pass, find the one to explain, and recognise a GAP + linear head.

A hook is on the network only inside `record`, and comes off when the body raises.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from heatbox.contract import HeadGradients
from heatbox.errors import LayerNotFoundError

__all__ = ["ForwardPass", "find_feature_layer", "find_gap_weights", "forward_pass", "rescore"]

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass whose graph begins at a feature layer.

    Attributes:
        maps: (N, K, h, w), A; connected to the logits by the head's graph.
        logits: (N, C).
    """

    maps: Tensor
    logits: Tensor

    def gradients(self, targets: Tensor) -> HeadGradients:
        """Return maps and gradients of each target: (M, 2) -> (M, K, h, w).

        The head runs backward once per rank (first target of every image, second, ...), the trunk never.
        """
        images, classes = targets.unbind(1)
        gradients = self.maps.new_empty((len(targets), *self.maps.shape[1:]))
        for rows in _ranks(images):
            score = self.logits[images[rows], classes[rows]].sum()
            (gradient,) = torch.autograd.grad(score, self.maps, retain_graph=True)
            gradients[rows] = gradient[images[rows]]
        return HeadGradients(self.maps.detach()[images], gradients, self.logits.detach()[images, classes])


def forward_pass(network: nn.Module, layer: str, images: Tensor) -> ForwardPass:
    """Run the network once and record a layer: (N, 3, H, W) -> maps (N, K, h, w), logits (N, C).

    The layer's output is replaced by a copy that begins a new graph, so memory and time before it are those of
    inference. The copy is what the head sees, also when the head works in place (DenseNet's final ReLU).

    Raises:
        LayerNotFoundError: no such module, or its output is not a map.
    """
    with torch.enable_grad(), record(network, layer) as recorded:
        logits = network(images)
    if not recorded:
        raise LayerNotFoundError(
            f"{layer!r} did not run in this network.", "Name a module that is part of its forward pass."
        )
    return ForwardPass(recorded[-1], logits)


@contextmanager
def record(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Cut the graph at a layer while the body runs, and collect what the layer put out."""
    module = _module(network, layer)
    recorded: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not _is_map(output):
            raise LayerNotFoundError(
                f"The output of {layer!r} is not a map.", "Name a convolutional layer or block."
            )
        recorded.append(output.detach().requires_grad_().clone())
        return recorded[-1]

    handle = module.register_forward_hook(cut)
    try:
        yield recorded
    finally:
        handle.remove()


def rescore(network: nn.Module, layer: str, image: Tensor, maps: Tensor) -> Tensor:
    """Run the network with other maps in a layer's place: (1, 3, H, W), (B, K, h, w) -> logits (B, C)."""
    module = _module(network, layer)
    handle = module.register_forward_hook(lambda *_: maps.clone())
    try:
        with torch.no_grad():
            logits: Tensor = network(image)
    finally:
        handle.remove()
    return logits


def find_feature_layer(network: nn.Module, images: Tensor) -> str:
    """Return the last module whose output is a map that pooling did not make.

    Raises:
        LayerNotFoundError: the network has no such module.
    """
    outputs: list[tuple[str, nn.Module, Tensor]] = []

    def remember(name: str, module: nn.Module, output: object) -> None:
        if isinstance(module, nn.MultiheadAttention):
            outputs.clear()  # maps before attention are only patches: what follows are tokens
        if name and _is_map(output):
            outputs.append((name, module, output))

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: remember(name, module, output))
        for name, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    pooled = {id(output) for _, module, output in outputs if isinstance(module, _POOLING)}
    for name, _, output in reversed(outputs):
        if id(output) not in pooled:
            return name
    raise LayerNotFoundError(
        "No late layer of the network puts out a map (a vision transformer puts out tokens).",
        "Use a convolutional network, or name a layer in the card's feature_layer.",
    )


def find_gap_weights(network: nn.Module, layer: str, images: Tensor) -> Tensor | None:
    """Return W (C, K) when logits = W GAP(A) + b holds for the layer, else None (found by numbers, not by type)."""
    with torch.no_grad(), record(network, layer) as recorded:
        logits = network(images)
        pooled = recorded[-1].mean(dim=(2, 3))
    candidates: list[tuple[Tensor, Tensor | float]] = [
        (module.weight, module.bias if module.bias is not None else 0.0)
        for module in network.modules()
        if isinstance(module, nn.Linear) and module.weight.shape == (logits.shape[1], pooled.shape[1])
    ]
    if logits.shape == pooled.shape:
        candidates.append((torch.eye(pooled.shape[1], device=pooled.device), 0.0))
    scale = float(logits.std(unbiased=False)) + 1e-12
    for weight, bias in candidates:
        if float((pooled @ weight.T + bias - logits).abs().max()) <= 1e-3 * scale:
            return weight.detach()
    return None


def _module(network: nn.Module, layer: str) -> nn.Module:
    try:
        return network.get_submodule(layer)
    except AttributeError as error:
        names = [name for name, _ in network.named_children()]
        raise LayerNotFoundError(
            f"The network has no layer {layer!r}.", f"Its outermost layers are: {', '.join(names)}."
        ) from error


def _is_map(output: object) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1  # noqa: PLR2004


def _ranks(images: Tensor) -> Iterator[Tensor]:
    """Yield row indices such that no image appears twice in one yield: first targets, second targets, ..."""
    seen: dict[int, int] = {}
    ranks: dict[int, list[int]] = {}
    for row, image in enumerate(images.tolist()):
        rank = seen.get(image, 0)
        seen[image] = rank + 1
        ranks.setdefault(rank, []).append(row)
    for rows in ranks.values():
        yield torch.tensor(rows, device=images.device)
