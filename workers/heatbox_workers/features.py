"""Feature layers: record one in a forward pass, find the one to explain, and recognise a GAP + linear head.

Whatever a layer's own layout is (`heatbox_workers.layouts`), everybody here meets maps (N, K, h, w). Hooks are on the
network only inside a context manager, and come off when the body raises.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heatbox.contract import HeadGradients
from heatbox.errors import LayerNotFoundError
from heatbox_workers.layouts import Layout, as_maps, layout_of, put_back

__all__ = [
    "ForwardPass",
    "find_feature_layer",
    "find_gap_weights",
    "find_module",
    "forward_pass",
    "record",
    "rescore",
]

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass whose graph begins at the first of the recorded layers.

    Attributes:
        layers: by name, in the order they ran: A (N, K, h, w), connected to the logits by the graph.
        logits: (N, C).
    """

    layers: Mapping[str, Tensor]
    logits: Tensor

    @property
    def maps(self) -> Tensor:
        """The maps of the last layer: (N, K, h, w)."""
        return list(self.layers.values())[-1]

    def gradients(self, targets: Tensor, layers: Sequence[str] = ()) -> tuple[HeadGradients, ...]:
        """Return maps and gradients of each target at each of the layers; default: all of them.

        What is behind the first layer runs backward once per rank (first target of every image, second, ...), what
        is before it never.
        """
        names = tuple(layers) or tuple(self.layers)
        maps = [self.layers[name] for name in names]
        images, classes = targets.unbind(1)
        gradients = [one.new_empty((len(targets), *one.shape[1:])) for one in maps]
        for rows in _ranks(images):
            score = self.logits[images[rows], classes[rows]].sum()
            for kept, gradient in zip(
                gradients, torch.autograd.grad(score, maps, retain_graph=True), strict=True
            ):
                kept[rows] = gradient[images[rows]]
        scores = self.logits.detach()[images, classes]
        return tuple(
            HeadGradients(one.detach()[images], gradient, scores)
            for one, gradient in zip(maps, gradients, strict=True)
        )


def forward_pass(network: nn.Module, layers: str | Sequence[str], images: Tensor) -> ForwardPass:
    """Run the network once and record layers: (N, 3, H, W) -> maps (N, K, h, w) of each, logits (N, C).

    The output of the first layer that runs is replaced by a copy that begins a new graph, so memory and time before it
    are those of inference. The copies are what the head sees, also when the head works in place (DenseNet's final
    ReLU). Tokens that stand for no place are part of the head, not of the maps.

    Raises:
        LayerNotFoundError: no such module, or its output is not a map.
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    with torch.enable_grad(), record(network, names) as recorded:
        logits = network(images)
    for name in names:
        if name not in recorded:
            raise LayerNotFoundError(
                f"{name!r} did not run in this network.", "Name a module that is part of its forward pass."
            )
        if len(recorded[name]) != len(images):  # the windows of a Swin transformer
            raise _no_map(name)
    return ForwardPass(recorded, logits)


@contextmanager
def record(
    network: nn.Module, layers: Sequence[str], *, connected: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Collect what layers put out as maps (N, K, h, w) while the body runs.

    The graph begins at the first of them, or where it began before: `connected`.
    """
    recorded: dict[str, Tensor] = {}

    def keep(layer: str, output: object) -> Tensor:
        layout = layout_of(output)
        if layout is None or not isinstance(output, Tensor):
            raise _no_map(layer)
        whole = output if recorded or connected else output.detach()
        maps = as_maps(whole, layout)
        recorded[layer] = (maps if maps.requires_grad else maps.requires_grad_()).clone()
        return put_back(recorded[layer], whole, layout)

    modules = [
        (layer, find_module(network, layer)) for layer in layers
    ]  # all are there before the first hook is
    with ExitStack() as stack:
        for layer, module in modules:
            hook = module.register_forward_hook(lambda _m, _i, output, layer=layer: keep(layer, output))
            stack.callback(hook.remove)
        yield recorded


def rescore(network: nn.Module, layer: str, image: Tensor, maps: Tensor) -> Tensor:
    """Run the network with other maps in a layer's place: (1, 3, H, W), (B, K, h, w) -> logits (B, C).

    What is before the layer runs for one picture, unless the network cannot bring one and B together again.
    """
    module = find_module(network, layer)

    def replace(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        layout = layout_of(output)
        if layout is None or not isinstance(output, Tensor):
            raise _no_map(layer)
        return put_back(maps.clone(), output, layout)

    handle = module.register_forward_hook(replace)
    try:
        with torch.no_grad():
            return _scores_of_one_or_many(network, image, len(maps))
    finally:
        handle.remove()


def _scores_of_one_or_many(network: nn.Module, image: Tensor, count: int) -> Tensor:
    try:
        logits: Tensor = network(image)
    except RuntimeError:  # a class token for each picture is concatenated (CaiT), or added to in place
        logits = network(image.expand(count, -1, -1, -1))
    return logits


def find_feature_layer(network: nn.Module, images: Tensor) -> str:
    """Return the last module whose output is a map that pooling did not make.

    Where the last maps are tokens, it is the last layer of the network's width whose patches the logits depend on:
    behind a ViT's last attention only the class token does, so that it is the norm in front of that attention.

    Raises:
        LayerNotFoundError: the network has no such module.
    """
    layers: list[tuple[str, Layout]] = []
    pooled: set[int] = set()
    kept: list[Tensor] = []  # as long as they live no other output has their id

    def remember(name: str, module: nn.Module, output: Tensor, layout: Layout) -> None:
        kept.append(output)
        if isinstance(module, _POOLING):
            pooled.add(id(output))
        layers.append((name, layout))

    with torch.no_grad(), _maps_told(network, len(images), remember):
        network(images)
    found = [layer for layer, output in zip(layers, kept, strict=True) if id(output) not in pooled]
    if found:
        name, layout = found[-1]
        return _last_heard_token_layer(network, images) if layout is Layout.TOKENS else name
    raise LayerNotFoundError(
        "No layer of the network puts out a map.",
        "Use a convolutional network or a vision transformer, or a larger input_size.",
    )


def _last_heard_token_layer(network: nn.Module, images: Tensor) -> str:
    """Return the last token layer of the network's width through which the patches reach the logits."""
    tokens: list[tuple[str, Tensor]] = []

    def remember(name: str, _module: nn.Module, output: Tensor, layout: Layout) -> None:
        if layout is Layout.TOKENS:
            tokens.append((name, output))

    with torch.enable_grad(), _maps_told(network, len(images), remember):
        logits = network(images.detach().clone().requires_grad_())
    count = tokens[-1][1].shape[1]
    widths = Counter(output.shape[2] for _, output in tokens if output.shape[1] == count)
    shape = (len(images), count, widths.most_common(1)[0][0])
    own = [(name, output) for name, output in tokens if output.shape == shape]
    gradients = torch.autograd.grad(logits.square().sum(), [output for _, output in own], allow_unused=True)
    for (name, _), gradient in reversed(list(zip(own, gradients, strict=True))):
        if gradient is not None and bool(as_maps(gradient, Layout.TOKENS).any()):
            return name
    raise LayerNotFoundError(
        "The logits of this transformer do not depend on any of its patches.",
        "Check the weights: a head that was never trained is zero.",
    )


@contextmanager
def _maps_told(
    network: nn.Module, count: int, tell: Callable[[str, nn.Module, Tensor, Layout], None]
) -> Iterator[None]:
    """Tell name, module, output and layout of every map that `count` pictures have while the body runs."""

    def hook(name: str, module: nn.Module, output: object) -> None:
        layout = layout_of(output)
        if layout is not None and isinstance(output, Tensor) and len(output) == count:
            tell(name, module, output, layout)

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name:
                handle = module.register_forward_hook(
                    lambda module, _, output, name=name: hook(name, module, output)
                )
                stack.callback(handle.remove)
        yield


def find_gap_weights(network: nn.Module, layer: str, images: Tensor) -> Tensor | None:
    """Return W (C, K) when logits = W GAP(A) + b holds for the layer, else None (found by numbers, not by type)."""
    found = forward_pass(network, layer, images)
    logits, pooled = found.logits.detach(), found.maps.detach().mean(dim=(2, 3))
    if not bool(pooled.any()):  # maps of zeros would agree with any weights
        return None
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


def find_module(network: nn.Module, layer: str) -> nn.Module:
    """Return a module of a network by its name.

    Raises:
        LayerNotFoundError: the network has no such module; names the outermost ones.
    """
    try:
        return network.get_submodule(layer)
    except AttributeError as error:
        names = [name for name, _ in network.named_children()]
        raise LayerNotFoundError(
            f"The network has no layer {layer!r}.", f"Its outermost layers are: {', '.join(names)}."
        ) from error


def _no_map(layer: str) -> LayerNotFoundError:
    return LayerNotFoundError(
        f"The output of {layer!r} is not a map.",
        "Name a convolutional layer, or a block or norm of a transformer.",
    )


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
