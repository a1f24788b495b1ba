"""What an explainer must leave as it found it: the network, the random generators, and how to say what was not."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["NetworkState", "left_in_network", "left_in_rng", "network_state", "preserved", "rng_state"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
RngState = dict[str, Any]


@dataclass(frozen=True)
class NetworkState:
    """Everything about a network that a call could leave changed.

    Attributes:
        tensors: copies of weights and buffers by name.
        requires_grad: by parameter.
        gradients: parameters that have a `.grad`.
        modules: class name and identity by module name.
        training: by module.
        hooks: ids of the hooks of each module.
        patched: modules whose `forward` was replaced.
        grad_mode: whether torch records gradients.
    """

    tensors: dict[str, Tensor]
    requires_grad: dict[str, bool]
    gradients: dict[str, bool]
    modules: dict[str, tuple[str, int]]
    training: dict[str, bool]
    hooks: dict[str, tuple[int, ...]]
    patched: dict[str, bool]
    grad_mode: bool


def network_state(network: nn.Module) -> NetworkState:
    """Return what the network is like now."""
    modules = {name or "network": module for name, module in network.named_modules()}
    parameters = dict(network.named_parameters())
    tensors = {**parameters, **dict(network.named_buffers())}
    return NetworkState(
        tensors={name: value.detach().clone() for name, value in tensors.items()},
        requires_grad={name: value.requires_grad for name, value in parameters.items()},
        gradients={name: value.grad is not None for name, value in parameters.items()},
        modules={name: (type(module).__name__, id(module)) for name, module in modules.items()},
        training={name: module.training for name, module in modules.items()},
        hooks={"every module": _global_hooks(), **{name: _hooks(module) for name, module in modules.items()}},
        patched={name: "forward" in vars(module) for name, module in modules.items()},
        grad_mode=torch.is_grad_enabled(),
    )


def left_in_network(before: NetworkState, after: NetworkState) -> str | None:
    """Return the first thing that is not as it was, in words, or None."""
    if before.modules != after.modules:
        name = _first_difference(before.modules, after.modules)
        return f"the module `{name}` was left replaced by a {after.modules.get(name, ('removal',))[0]}"
    for name, value in after.tensors.items():
        if name not in before.tensors or not _same(before.tensors[name], value):
            return f"the weights `{name}` were changed"
    said = (
        ("hooks", "a hook was left on `{name}`"),
        ("training", "`{name}` was left in {mode} mode"),
        ("requires_grad", "requires_grad of `{name}` was left changed"),
        ("gradients", "`{name}` was left with a gradient in `.grad`"),
        ("patched", "`forward` of `{name}` was left replaced"),
    )
    for what, words in said:
        was, came = getattr(before, what), getattr(after, what)
        if was != came:
            name = _first_difference(was, came)
            return words.format(name=name, mode="training" if after.training.get(name) else "eval")
    return None if before.grad_mode == after.grad_mode else "torch's gradient mode was left changed"


def rng_state() -> RngState:
    """Return the states of the random generators that everybody shares."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the shared generator is what is watched
    return {
        "torch": tuple(torch.get_rng_state().tolist()),
        "numpy": (kind, tuple(np.asarray(keys).tolist()), *rest),
        "random": random.getstate(),
    }


def left_in_rng(before: RngState, after: RngState) -> str | None:
    """Return which shared generator is not as it was, in words, or None."""
    moved = [name for name, state in before.items() if after[name] != state]
    return f"the shared random generator of {' and '.join(moved)} was moved" if moved else None


@contextmanager
def preserved() -> Iterator[None]:
    """Bring back the shared generators and the gradient mode, whatever the body did to them."""
    torch_state, numpy_state, python_state = (
        torch.get_rng_state(),
        np.random.get_state(),  # noqa: NPY002 - as above
        random.getstate(),
    )
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - as above
        random.setstate(python_state)


def _hooks(module: nn.Module) -> tuple[int, ...]:
    return tuple(id(hook) for kind in _HOOKS for hook in getattr(module, kind).values())


def _global_hooks() -> tuple[int, ...]:
    """Return the ids of the hooks that torch runs for every module of every network."""
    kinds = (getattr(nn.modules.module, f"_global{kind}") for kind in _HOOKS)
    return tuple(id(hook) for kind in kinds for hook in kind.values())


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())


def _first_difference(was: dict[str, Any], came: dict[str, Any]) -> str:
    return next(name for name in {**was, **came} if was.get(name) != came.get(name))
