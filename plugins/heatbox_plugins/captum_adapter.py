"""The door to captum, an optional dependency: whether it is there, its seed, and its attributions as heatmaps.

captum (https://captum.ai) is a well-kept library of attribution methods; the explainers that use it hold no formula of
their own. An adapter is a captum object made inside the call, one `attribute`, and the step from channels to a map.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from heatbox.errors import UnsupportedError

__all__ = ["attribute_each", "require_captum", "seeded", "why_no_captum"]

_REASON = "captum is not installed"
_REMEDY = "pip install 'heatbox[captum]'"


def why_no_captum() -> str | None:
    """Return why captum cannot be used, with the remedy, or None."""
    return None if importlib.util.find_spec("captum") else f"{_REASON}: {_REMEDY}"


def require_captum() -> None:
    """Raise UnsupportedError unless captum is installed."""
    if why_no_captum():
        raise UnsupportedError(f"{_REASON}.", f"Run: {_REMEDY}")


def attribute_each(images: Tensor, targets: Tensor, attribute: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Return each target's attribution with gradients on: (N, 3, H, W), (M, 2) -> (M, 3, H, W).

    Args:
        images: (N, 3, H, W).
        targets: (M, 2), rows of (image index, class index).
        attribute: called with one image (1, 3, H, W) and a class index, returns (1, 3, H, W).

    Raises:
        UnsupportedError: captum is not installed.
    """
    require_captum()
    found = torch.zeros(len(targets), *images.shape[1:], device=images.device)
    for row, (image, target) in enumerate(targets.tolist()):
        with torch.enable_grad():
            found[row] = attribute(images[image : image + 1], target)[0].detach()
    return found


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random numbers of a device while the body runs, then put them back as they were.

    captum draws from the global generator and takes no other.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        yield
