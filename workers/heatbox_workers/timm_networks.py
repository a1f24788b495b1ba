"""The door to timm, an optional library of networks: `timm/<name>`, with or without the tag of its weights.

timm is imported when one of its networks is asked for: that takes seconds, and most installations do without.
"""

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from heatbox.errors import ModelNotFoundError, WeightsUnavailableError
from heatbox_workers.published import Published, unique

__all__ = ["build", "download", "is_installed", "names", "require"]

_IMAGENET = 1000


def is_installed() -> bool:
    """Return whether timm can be imported, without importing it."""
    return find_spec("timm") is not None


def names() -> list[str]:
    """Return the names of timm's networks, without tags; none where timm is missing."""
    if not is_installed():
        return []
    import timm

    return cast("list[str]", timm.list_models())


def require(name: str) -> None:
    """Check that timm is there and has a network of this name.

    Raises:
        ModelNotFoundError: it is not, or has none.
    """
    if not is_installed():
        raise ModelNotFoundError(
            f"timm/{name} is a network of timm, which is not installed.",
            "Install it: pip install 'heatbox[timm]'.",
        )
    import timm

    if not timm.is_model(name) or ("." in name and name not in timm.list_pretrained()):
        raise ModelNotFoundError(
            f"timm has no network {name!r}.",
            "timm.list_models() lists the names; leave the tag out to take its first.",
        )


def build(name: str, options: Mapping[str, Any], classes: int) -> nn.Module:
    """Return an untrained network; options are for its constructor, not for timm's factory, which could load files.

    Raises:
        TypeError, ValueError, RuntimeError, AssertionError: the options do not suit the network.
    """
    import timm

    factory = {name for name in inspect.signature(timm.create_model).parameters if name != "kwargs"}
    if wrong := sorted(factory & options.keys()):
        message = f"{', '.join(wrong)} is no option of its constructor"
        raise ValueError(message)
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **options)
    return network


def download(name: str) -> Published:
    """Download (or take from the cache) the weights that timm publishes for a network of ImageNet's 1000 classes.

    Raises:
        ModelNotFoundError: none are published, or they are for other classes.
        WeightsUnavailableError: they cannot be downloaded.
    """
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise _none_for(name, "has no published weights")
    if config.num_classes != _IMAGENET or infer_imagenet_subset(config.to_dict()) != "imagenet-1k":
        raise _none_for(
            name, f"is published with {config.num_classes} outputs, which are not ImageNet's 1000 classes"
        )
    state = _fetch(name, config.hf_hub_id, config.hf_hub_filename, config.url)
    filled = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    return Published(
        state=filled.state_dict(),
        labels=unique(ImageNetInfo().label_descriptions()),
        input_size=config.input_size[-1],
        mean=config.mean,
        std=config.std,
        source=f"timm {config.architecture}.{config.tag}",
    )


def _fetch(name: str, hub_id: str | None, filename: str | None, url: str | None) -> dict[str, Tensor]:
    """Fetch a state dict that needs no unpickling of code: safetensors from the hub, else timm's own address."""
    try:
        if hub_id:
            from timm.models import load_state_dict_from_hf

            safe = filename if filename and filename.endswith(".safetensors") else "model.safetensors"
            return cast("dict[str, Tensor]", load_state_dict_from_hf(hub_id, safe))
        return cast(
            "dict[str, Tensor]",
            torch.hub.load_state_dict_from_url(
                str(url), map_location="cpu", progress=False, weights_only=True
            ),
        )
    except (OSError, RuntimeError) as error:  # urllib's and huggingface_hub's errors are OSErrors
        raise WeightsUnavailableError(
            f"The weights of timm/{name} cannot be downloaded: {error}.",
            "Run this once where there is a network and copy the caches (HF_HOME, TORCH_HOME), or add a local file: "
            "heatbox models add FILE --card CARD.json.",
        ) from error


def _none_for(name: str, reason: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"timm/{name} {reason}.", "Name a file of weights instead: heatbox models add FILE --card CARD.json."
    )
