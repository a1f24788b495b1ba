"""Embeddings: what a network's last linear layer reads, and the cosine head that ArcFace networks have there.

ArcFace (Deng et al., CVPR 2019, https://arxiv.org/abs/1801.07698) trains an embedding e and a vector w_c for each class
with an angular margin. Without the margin, as after training,

    y^c = s cos(e, w_c) = s <e / |e|, w_c / |w_c|>
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

from heatbox.errors import ModelInvalidError

__all__ = ["CosineLinear", "last_linear", "record_embeddings", "use_cosine_head"]


class CosineLinear(nn.Linear):
    """A linear layer without bias over normalised inputs and normalised class vectors."""

    scale: float

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own argument name
        """Return s cos(e, w_c): (N, D) -> (N, C)."""
        return self.scale * functional.linear(functional.normalize(input), functional.normalize(self.weight))


def use_cosine_head(network: nn.Module, scale: float) -> str:
    """Replace the last linear layer of a network by a `CosineLinear`, in place, and return its name.

    Raises:
        ModelInvalidError: the network has no linear layer.
    """
    found = last_linear(network)
    if found is None:
        raise ModelInvalidError(
            "The network has no linear layer that could be an ArcFace head.", "Choose another architecture."
        )
    name, head = found
    cosine = CosineLinear(head.in_features, head.out_features, bias=False, device=head.weight.device)
    cosine.scale = scale
    network.set_submodule(name, cosine)
    return name


def last_linear(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return the last linear layer of a network with its name; None: it has none (SqueezeNet)."""
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return found[-1] if found else None


@contextmanager
def record_embeddings(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the last linear layer reads, (N, D) a pass, while the body runs; nothing where there is none."""
    embeddings: list[Tensor] = []
    found = last_linear(network)
    if found is None:
        yield embeddings
        return
    handle = found[1].register_forward_pre_hook(lambda _, inputs: embeddings.append(inputs[0].detach()))
    try:
        yield embeddings
    finally:
        handle.remove()
