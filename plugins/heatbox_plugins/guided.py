"""The switch that turns the ReLUs of any network guided and back, and the guided gradients it makes.

Guided backpropagation changes the backward pass of every ReLU: with f the ReLU's input and R the gradient that
arrives from above, what goes on below is

    R' = 1[f > 0] 1[R > 0] R        (for ReLU6 also 1[f < 6])

The first factor is the ReLU's own derivative. The second is added here, on the nodes of the autograd graph and not
on modules, so functional ReLUs, ReLU6, clamps from zero, in-place ReLUs and shared modules are all reached and the
network itself is never touched. SiLU, GELU, LeakyReLU, hard-swish and the like pass negative values on and have no
such rule: they keep their plain derivative, and a network with nothing else is refused in words.

Source: Springenberg et al., Striving for Simplicity, ICLR workshop 2015, https://arxiv.org/abs/1412.6806
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional

from heatbox.contract import Classifier
from heatbox.errors import UnsupportedError

__all__ = ["guided", "guided_gradients", "require_blur", "smooth", "why_unguided"]

_IMAGES_PER_GRAPH = 8  # bounds memory: the graph of a whole network holds every activation of its images
_LARGEST_BLUR = 0.1

# Nodes that rectify when the bound they saved is zero: name -> attribute that holds the bound.
_BOUNDS = {
    "HardtanhBackward0": "_saved_min_val",
    "ThresholdBackward0": "_saved_threshold",
    "ClampBackward1": "_saved_min",
    "ClampMinBackward0": "_saved_min",
}
# Nodes whose inside no hook reaches, with what puts them into a graph.
_OPAQUE = {
    "torch::autograd::CopySlices": "changes a part of a tensor in place",
    "CheckpointFunctionBackward": "recomputes activations (gradient checkpointing)",
    "CompiledFunctionBackward": "was compiled",
}


@contextmanager
def guided(output: Tensor) -> Iterator[int]:
    """Turn every ReLU between a tensor and its inputs guided while the body runs; yield how many there are.

    Raises:
        UnsupportedError: there is none, or some cannot be reached.
    """
    nodes = list(_graph(output))
    reason = _reason(nodes)
    if reason:
        raise UnsupportedError(reason, "Use grad_cam, which explains any network.")
    handles = [node.register_prehook(_keep_positive) for node in nodes if _rectifies(node)]
    try:
        yield len(handles)
    finally:
        for handle in handles:
            handle.remove()


def why_unguided(classifier: Classifier) -> str | None:
    """Return why guided backpropagation means nothing for a network, or None; one forward pass of zeros."""
    side = classifier.input_size
    device = next(classifier.network.parameters()).device
    with torch.enable_grad():
        pixels = torch.zeros(1, 3, side, side, device=device).requires_grad_()
        return _reason(list(_graph(classifier.network(pixels.clone()))))


def guided_gradients(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return R^0, the guided gradient of each target's logit: (N, 3, H, W), (M, 2) -> (M, 3, H, W).

    All targets of an image share its forward pass; there is one backward pass per rank (first targets, second ...).

    Raises:
        UnsupportedError: the network has no ReLU that can be guided.
    """
    image, target = targets.unbind(1)
    gradients = images.new_zeros((len(targets), *images.shape[1:]))
    for chosen in torch.split(torch.unique(image), _IMAGES_PER_GRAPH):
        rows = torch.isin(image, chosen).nonzero()[:, 0]
        place = torch.searchsorted(chosen, image[rows])
        gradients[rows] = _gradients_of(network, images[chosen], place, target[rows])
    return gradients


def smooth(heatmaps: Tensor, part: float) -> Tensor:
    """Smooth maps (M, H, W) by a Gaussian whose sigma is a part of the side; 0 leaves them as they are.

    Guided gradients are thin lines: without it a threshold makes dust of them.
    """
    sigma = part * heatmaps.shape[-1]
    if sigma == 0 or not len(heatmaps):
        return heatmaps
    reach = min(int(3 * sigma + 0.5), heatmaps.shape[-1] - 1, heatmaps.shape[-2] - 1)
    offsets = torch.arange(-reach, reach + 1, device=heatmaps.device, dtype=heatmaps.dtype)
    kernel = (-0.5 * (offsets / sigma) ** 2).exp()
    kernel /= kernel.sum()
    padded = functional.pad(heatmaps.unsqueeze(1), (reach, reach, reach, reach), mode="reflect")
    rows = functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1)).squeeze(1)


def require_blur(part: float) -> None:
    """Raise ValueError unless a blur is a usable part of the side."""
    if not 0 <= part <= _LARGEST_BLUR:
        msg = f"blur must be from 0 to {_LARGEST_BLUR} of the image's side, got {part!r}"
        raise ValueError(msg)


def _gradients_of(network: nn.Module, images: Tensor, place: Tensor, target: Tensor) -> Tensor:
    """Return the gradients of logits[place, target] with respect to their images: (n, 3, H, W) -> (m, 3, H, W)."""
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        logits = network(pixels.clone())
    gradients = images.new_zeros((len(place), *images.shape[1:]))
    rank = (place[:, None] == place).tril(-1).sum(1)
    with guided(logits):
        for number in range(int(rank.max()) + 1):
            rows = (rank == number).nonzero()[:, 0]
            chosen = torch.zeros_like(logits).index_put_((place[rows], target[rows]), logits.new_ones(()))
            (gradient,) = torch.autograd.grad(logits, pixels, chosen, retain_graph=True)
            gradients[rows] = gradient[place[rows]]
    return gradients


def _keep_positive(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (gradients[0].clamp_min(0),)


def _rectifies(node: Node) -> bool:
    name = node.name()
    return name == "ReluBackward0" or (name in _BOUNDS and getattr(node, _BOUNDS[name]) == 0)


def _reason(nodes: list[Node]) -> str | None:
    """Return why the ReLUs of a graph cannot be turned guided, or None."""
    hidden = sorted({_OPAQUE[node.name()] for node in nodes if node.name() in _OPAQUE})
    if hidden:
        return (
            f"The network {' and '.join(hidden)}, where ReLUs are out of reach: only a part would be guided."
        )
    if any(map(_rectifies, nodes)):
        return None
    return (
        "The network has no ReLU (SiLU, GELU, LeakyReLU and the like have no guided rule): "
        "guided backpropagation would equal the plain gradient."
    )


def _graph(output: Tensor) -> Iterator[Node]:
    """Yield every node of the autograd graph behind a tensor, once."""
    waiting: list[Node | None] = [output.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            yield node
