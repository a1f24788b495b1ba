"""Attention rollout: how much of each patch flows through a vision transformer into what its head reads."""

from dataclasses import dataclass, field
from math import isqrt
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from heatbox.contract import Classifier, Evidence
from heatbox.errors import UnsupportedError
from heatbox_plugins.attention import attention_layers, watched

__all__ = ["AttentionRollout"]

_AT_ONCE = 8  # pictures per forward pass; bounds the attention matrices that are alive
_WINDOWS = (
    "its attention does not go over all patches at once (windows, pooled keys or channels), "
    "so that layers cannot be multiplied"
)


@dataclass(frozen=True)
class AttentionRollout:
    """Attention rollout (Abnar and Zuidema, ACL 2020).

    With A_l (T, T) the attention of layer l, its heads fused, I the residual connection and L layers,

        A~_l = (A_l + I) / 2, each row divided by its sum        R = A~_L ... A~_2 A~_1
        heat(j) = mean over the tokens i that the head reads of R[i, j], j a patch

    The head reads the class token, or the class and the distillation token; where patches are pooled instead of a class
    token it reads them all. Which ones is found by numbers: the logits have a gradient at them behind the last
    attention. The map does not look at the class: all targets of a picture get the same one.

    Source: Quantifying Attention Flow in Transformers, https://arxiv.org/abs/2005.00928

    Attributes:
        heads: how the heads of a layer are fused: the paper's mean, or the largest or smallest attention of any head.
    """

    heads: Literal["mean", "max", "min"] = "mean"
    class_agnostic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.heads not in {"mean", "max", "min"}:
            msg = f"heads must be mean, max or min, got {self.heads!r}"
            raise ValueError(msg)

    def supports(self, classifier: Classifier) -> str | None:
        """Return why this network has no rollout, or None; takes one forward pass."""
        side = classifier.input_size
        where = next(classifier.network.parameters()).device
        try:
            self._roll(classifier.network, torch.zeros(1, 3, side, side, device=where))
        except UnsupportedError as error:
            return f"{error.sentence} {error.remedy}"
        return None

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, s, s), a cell a patch."""
        starts = range(0, len(images), _AT_ONCE)
        maps = torch.cat([self._roll(classifier.network, images[at : at + _AT_ONCE]) for at in starts])
        return Evidence(heatmaps=maps[targets[:, 0]])

    def _roll(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the map of each picture: (N, 3, H, W) -> (N, s, s)."""
        layers = attention_layers(network)
        if not layers:
            raise _refused("it has no attention that can be read")
        rollout = _Rollout(self.heads, len(images), last=layers[-1])
        with torch.enable_grad(), watched(layers, rollout.add):
            logits = network(images)
        if rollout.product is None or rollout.end is None or rollout.count != len(layers):
            raise _refused("not all of its attention layers ran")
        (gradient,) = torch.autograd.grad(logits.square().sum(), rollout.end)
        read = gradient.ne(0).any(dim=2).to(gradient.dtype)
        heat = torch.einsum("ni,nij->nj", read, rollout.product) / read.sum(1, keepdim=True).clamp_min(1)
        side = isqrt(heat.shape[1])
        return heat[:, -side * side :].reshape(-1, side, side)


@dataclass
class _Rollout:
    """The product of the layers that ran so far: (N, T, T), so that no layer's attention is kept.

    Attributes:
        heads: how heads are fused.
        pictures: N.
        last: the module whose output begins the graph.
        product: R up to now.
        end: the last attention's output (N, T, K), a leaf.
        count: layers that ran.
    """

    heads: str
    pictures: int
    last: nn.Module = field(repr=False)
    product: Tensor | None = None
    end: Tensor | None = None
    count: int = 0

    def add(self, module: nn.Module, attention: Tensor | None, output: Tensor) -> Tensor:
        """Multiply one layer's attention (N, heads, T, T) on; return the module's output (N, T, K), or a leaf of it."""
        tokens = output.shape[1]
        if attention is None or attention.shape[::2] != (self.pictures, tokens):
            raise _refused(_WINDOWS)
        if attention.shape[3] != tokens or (self.product is not None and self.product.shape[1] != tokens):
            raise _refused(_WINDOWS)
        fused = attention.mean(1) if self.heads == "mean" else getattr(attention, f"a{self.heads}")(1)
        mixed = fused + torch.eye(tokens, dtype=fused.dtype, device=fused.device)
        mixed = mixed / mixed.sum(2, keepdim=True)
        self.product = mixed if self.product is None else mixed @ self.product
        self.count += 1
        if module is self.last:
            self.end = output = output.detach().requires_grad_()
        return output


def _refused(reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"attention_rollout needs a vision transformer with global attention, and this is none: {reason}.",
        "The explainer grad_cam explains any network.",
    )
