"""A checkpoint: all from which a training goes on as if it had never stopped, in one file that is replaced whole.

Tensors by name and, in the header, the epoch and what the training was: of another one it is not used.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from heatbox.errors import OutputError

__all__ = [
    "Checkpoint",
    "Progress",
    "forget",
    "load_checkpoint",
    "optimiser_tensors",
    "restore_optimiser",
    "save_checkpoint",
]

_NAME = "checkpoint.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs that are done.
        best: lowest loss on the validation part so far.
        best_epoch: after which it was so low; 0: none yet.
    """

    epoch: int = 0
    best: float = float("inf")
    best_epoch: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What is kept: weights as they are, the best so far, and the optimiser's memory, each by the weight's name."""

    progress: Progress
    weights: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(folder: Path, identity: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of the last one.

    Raises:
        OutputError: it cannot be written.
    """
    groups = {"weights": checkpoint.weights, "best": checkpoint.best, "optimiser": checkpoint.optimiser}
    tensors = {
        f"{group}/{name}": value.detach().cpu().contiguous().clone()
        for group, values in groups.items()
        for name, value in values.items()
    }
    header = {"training": json.dumps({"identity": identity, **asdict(checkpoint.progress)})}
    incoming = folder / f".{_NAME}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, incoming, header)
        incoming.replace(folder / _NAME)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"The checkpoint cannot be written: {error}.", "Free some space in HEATBOX_HOME."
        ) from error


def load_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """Return the checkpoint of this very training; None where there is none, or it is damaged: it begins anew."""
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "optimiser": {}}
    try:
        with safe_open(folder / _NAME, framework="pt") as file:
            about = json.loads((file.metadata() or {})["training"])
            for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                group, _, name = key.partition("/")
                groups[group][name] = file.get_tensor(key)
        if about.pop("identity") != identity:
            return None
        progress = Progress(**about)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    return Checkpoint(progress, groups["weights"], groups["best"], groups["optimiser"])


def forget(folder: Path) -> None:
    """Remove the checkpoint: the training is over."""
    (folder / _NAME).unlink(missing_ok=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Tensor]:
    """Return the optimiser's memory by the weights' names; `names` has them by the weights' ids."""
    return {
        f"{names[id(weight)]}/{key}": value
        for weight, memory in optimiser.state.items()
        for key, value in memory.items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], tensors: Mapping[str, Tensor]
) -> None:
    """Give the optimiser its memory back, on the device of each weight; how many steps there were stays on the CPU."""
    for group in optimiser.param_groups:
        for weight in group["params"]:
            prefix = f"{names[id(weight)]}/"
            memory = {
                key.removeprefix(prefix): value.to(weight.device) if value.dim() else value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            if memory:
                optimiser.state[weight] = memory
