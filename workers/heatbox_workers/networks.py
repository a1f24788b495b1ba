"""Networks by name: those of torchvision and timm, and heatbox's own small one, always built without weights.

`torchvision/<name>` is any name of `torchvision.models.list_models`, `timm/<name>` any of `timm.list_models`;
`heatbox/tiny` is the network of the demo.
"""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional

from heatbox.errors import ModelInvalidError, ModelNotFoundError, WeightsUnavailableError
from heatbox_workers import timm_networks
from heatbox_workers.published import Published, unique
from heatbox_workers.tiny import TinyNet

__all__ = ["build_network", "canonical_architecture", "published_weights", "use_same_padding"]


def canonical_architecture(name: str) -> str:
    """Return `torchvision/<name>`, `timm/<name>` or `heatbox/tiny`; torchvision's names need no family in front.

    Raises:
        ModelNotFoundError: no family has this network, with the nearest names; or timm is not installed.
    """
    if name == "heatbox/tiny":
        return name
    if name.startswith("timm/"):
        timm_networks.require(name.removeprefix("timm/"))
        return name
    from torchvision import models  # takes seconds, and our own network needs none of it

    plain = name.removeprefix("torchvision.models.").removeprefix("torchvision/")
    known = models.list_models(module=models)
    if plain in known:
        return f"torchvision/{plain}"
    raise ModelNotFoundError(f"No network is called {name!r}.", _hint(plain, known))


def _hint(plain: str, known: Sequence[str]) -> str:
    """Return the nearest names of both families; where timm has this very name, that one alone."""
    others = timm_networks.names()
    if plain in others:
        return f"Did you mean 'timm/{plain}'?"
    close = get_close_matches(plain, known, n=2)
    close += [f"timm/{other}" for other in get_close_matches(plain, others, n=2)]
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return "Any classification network of torchvision will do, and any of timm as timm/NAME."


def build_network(architecture: str, options: Mapping[str, Any], classes: int) -> nn.Module:
    """Return an untrained network with `classes` outputs.

    Raises:
        ModelNotFoundError: no network has this name.
        ModelInvalidError: its constructor refuses the options.
    """
    name = canonical_architecture(architecture)
    try:
        if name == "heatbox/tiny":
            return TinyNet(classes, **options)
        if name.startswith("timm/"):
            return timm_networks.build(name.removeprefix("timm/"), options, classes)
        from torchvision import models

        extra = {"init_weights": False} if name.endswith(("/googlenet", "/inception_v3")) else {}
        plain = name.removeprefix("torchvision/")
        network = models.get_model(plain, weights=None, num_classes=classes, **{**extra, **options})
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelInvalidError(
            f"{name} cannot be built: {error}.", "Check architecture_options in the model card."
        ) from error
    return _without_auxiliary_heads(network)


def published_weights(architecture: str) -> Published:
    """Download (or take from the cache) the best published weights of a network of torchvision or timm.

    Raises:
        ModelNotFoundError: no such network, or none published for it.
        WeightsUnavailableError: they cannot be downloaded.
    """
    name = canonical_architecture(architecture)
    if name.startswith("timm/"):
        return timm_networks.download(name.removeprefix("timm/"))
    if not name.startswith("torchvision/"):
        raise ModelNotFoundError(
            f"{name} has no published weights.",
            "Name a file of weights instead: heatbox models add FILE --card CARD.json.",
        )
    from torchvision import models

    weights = models.get_model_weights(name.removeprefix("torchvision/")).DEFAULT
    transforms = weights.transforms()
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailableError(
            f"The weights of {name} cannot be downloaded: {error}.",
            "Run this once where there is a network and copy torch's cache (TORCH_HOME), or add a local file: "
            "heatbox models add FILE --card CARD.json.",
        ) from error
    return Published(
        state={key: value for key, value in state.items() if not key.startswith(("aux", "AuxLogits"))},
        labels=unique(weights.meta["categories"]),
        input_size=int(transforms.crop_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        source=f"torchvision {type(weights).__name__}.{weights.name}",
    )


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: the odd pixel goes right and below."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own argument name
        """Convolve (N, K, h, w) with padding computed from the input's size."""
        pads = []
        for axis in (1, 0):  # functional.pad wants the last axis first
            size, stride, kernel = input.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            reach = (kernel - 1) * self.dilation[axis] + 1
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(
            functional.pad(input, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def use_same_padding(network: nn.Module) -> nn.Module:
    """Replace the strided convolutions of a network by ones with TensorFlow's SAME padding, in place."""
    for module in network.modules():
        if type(module) is nn.Conv2d and max(module.stride) > 1:
            module.__class__ = SameConv2d
    return network


def _without_auxiliary_heads(network: nn.Module) -> nn.Module:
    """Take off the training-only heads of GoogLeNet and Inception v3, which eval mode never runs."""
    for name in ("aux1", "aux2", "AuxLogits"):
        if getattr(network, name, None) is not None:
            setattr(network, name, None)
            network.__dict__["aux_logits"] = False
    return network


def parameter_count(network: nn.Module) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def device() -> torch.device:
    """Return the device that networks run on: the first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
