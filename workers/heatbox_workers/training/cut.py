"""Where a network is cut for learning: what is before the cut stays as it is, so its maps are computed once and kept.

Whether a layer is such a place is found by numbers, not by type: what is behind it, run on its maps of other pictures,
must give what these pictures give. The norm inside a transformer's block is none, because the sum goes past it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product

import torch
from torch import Tensor, nn

from heatbox.errors import LayerNotFoundError
from heatbox_workers.classifier import noise
from heatbox_workers.embeddings import record_embeddings
from heatbox_workers.features import find_module
from heatbox_workers.layouts import layout_of
from heatbox_workers.training.transfer import Transferred

__all__ = ["Behind", "find_cut", "output_of"]

_SMALL_SIDE = 64
_LONG = 6  # blocks in a row inside a module that make it a chain of blocks and not one block
_REMEDY = "Choose another --unfreeze, or another network."


class Behind:
    """What is behind a layer of a network, run on given outputs of that layer.

    What is in front of it is skipped where that makes no difference. Else it runs for one small picture, or for one of
    full size, or for as many as there are outputs.

    Args:
        transferred: the network.
        layer: name of a module that puts out maps.

    Raises:
        LayerNotFoundError: what is behind it also reads what goes past it.
    """

    def __init__(self, transferred: Transferred, layer: str) -> None:
        self.layer = layer
        self._network = transferred.network
        self._module = find_module(self._network, layer)
        self.device = next(self._network.parameters()).device
        self._given: Tensor | None = None
        self._skipped: list[nn.Module] = []
        self._image, self._is_expanded = self._front(transferred.card.input_size)

    @contextmanager
    def given(self, maps: Tensor) -> Iterator[None]:
        """Put maps (B, ...) in the place of what the layer puts out, while the body runs; gradients pass."""
        self._given = maps.to(self.device)
        try:
            with ExitStack() as stack:
                for module in self._skipped:
                    stack.enter_context(_instead(module, lambda first, *_, **__: first))
                stack.enter_context(_instead(self._module, lambda *_, **__: self._given))
                yield
        finally:
            self._given = None

    def logits(self) -> Tensor:
        """Return the logits (B, C) of the given maps."""
        count = len(self._given) if self._is_expanded and self._given is not None else 1
        logits: Tensor = self._network(self._image.expand(count, -1, -1, -1))
        return logits

    def _front(self, side: int) -> tuple[Tensor, bool]:
        """Return the picture that what is in front of the layer runs on, and whether it runs for each output."""
        pictures, sides = noise(side, self.device), dict.fromkeys((min(_SMALL_SIDE, side), side))
        with torch.no_grad():
            maps = output_of(self._network, self.layer, pictures)
            right = _read_by_head(self._network, pictures)
            scale = (right - right.flip(0)).abs().max() * 1e-3 + right.abs().max() * 1e-6
            for skipped, is_expanded, other in product(
                (_in_front(self._network, self.layer), []), (False, True), sides
            ):
                self._skipped = skipped
                image = noise(
                    other, self.device, 1
                ).neg()  # another one than the pictures, whatever their side
                with suppress(RuntimeError, ValueError, AssertionError, TypeError), self.given(maps.clone()):
                    found = _read_by_head(self._network, image.expand(2 if is_expanded else 1, -1, -1, -1))
                    if found.shape == right.shape and bool((found - right).abs().max() <= scale):
                        return image, is_expanded
        raise LayerNotFoundError(f"What is behind {self.layer!r} reads more than its output.", _REMEDY)


def _in_front(network: nn.Module, layer: str) -> list[nn.Module]:
    """Return the modules that stand before a layer, or before a module that it is in, and that one is in."""
    found: list[nn.Module] = []
    parts = layer.split(".")
    for depth, own in enumerate(parts):
        for name, module in network.get_submodule(".".join(parts[:depth])).named_children():
            if name == own:
                break
            found.append(module)
    return found


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Let a module do something else while the body runs; its hooks stay."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before


def output_of(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return what a layer puts out, as it lays it out, no graph; what is behind it does not run: (N, ...).

    Raises:
        LayerNotFoundError: it did not run, or puts out no tensor for each picture.
    """

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        raise _Reached(output)

    handle = find_module(network, layer).register_forward_hook(keep)
    output: object = None
    try:
        with torch.no_grad():
            network(images)
    except _Reached as reached:
        output = reached.output
    finally:
        handle.remove()
    if not isinstance(output, Tensor) or len(output) != len(images):
        raise LayerNotFoundError(f"The output of {layer!r} is not a map.", _REMEDY)
    return output.clone()


class _Reached(Exception):  # noqa: N818 - no error: the way out of a network
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def find_cut(transferred: Transferred, unfreeze: int) -> Behind:
    """Cut a network: behind the feature layer, or the output of an earlier block.

    Where the feature layer is part of the head (SqueezeNet), that is the last block before the head; where its output
    is not all that goes on (ViT), the last block before it.

    Args:
        transferred: the network.
        unfreeze: how many blocks learn with the head.

    Raises:
        LayerNotFoundError: there are not as many blocks.
    """
    order, own = _run_order(transferred), _blocks(transferred.network)
    blocks = [name for name in order if name in own]
    places = blocks[: max(len(blocks) - unfreeze, 0)]
    feature_layer = transferred.card.feature_layer
    if feature_layer in order:  # behind it there would be no heat to learn from
        before = order[: order.index(feature_layer)]
        places = [one for one in places if one in before] + [feature_layer] * (not unfreeze)
    for layer in reversed(places):
        with suppress(LayerNotFoundError):
            return Behind(transferred, layer)
    raise LayerNotFoundError(
        f"The network has {len(blocks)} blocks before its head, of which {unfreeze} cannot learn with it.",
        f"Give --unfreeze at most {max(len(blocks) - 1, 0)}.",
    )


def _read_by_head(network: nn.Module, images: Tensor) -> Tensor:
    """Return what the last linear layer reads, (N, D), or the logits where there is none."""
    with record_embeddings(network) as embeddings:
        logits: Tensor = network(images)
    return embeddings[-1] if embeddings else logits


def _run_order(transferred: Transferred) -> list[str]:
    """Return the modules that put out maps before the head begins, in the order in which they end."""
    network = transferred.network
    owners = {network.get_submodule(name.rpartition(".")[0]) for name in transferred.head}
    order: list[str] = []
    began = False

    def begin(_module: nn.Module, _inputs: object) -> None:
        nonlocal began
        began = True

    def remember(name: str, output: object) -> None:
        if not began and layout_of(output) is not None:
            order.append(name)

    with ExitStack() as stack, torch.no_grad():
        for owner in owners:
            stack.callback(owner.register_forward_pre_hook(begin).remove)
        for name, module in network.named_modules():
            handle = module.register_forward_hook(lambda _m, _i, output, name=name: remember(name, output))
            stack.callback(handle.remove)
        network(noise(transferred.card.input_size, next(network.parameters()).device))
    return order


def _blocks(network: nn.Module) -> set[str]:
    """Return the names of a network's blocks: what its chains of modules are made of, without norms and activations."""
    found: set[str] = set()

    def look(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            below = f"{path}.{name}" if path else name
            leaf = not any(child.children())
            if _is_chain(child, outermost=not path) or any(_is_long(one) for one in child.children()):
                look(child, below)
            elif not leaf or isinstance(child, nn.Conv2d):
                found.add(below)

    look(network, "")
    return found


def _is_chain(module: nn.Module, *, outermost: bool) -> bool:
    """Return whether a module only runs others in a row; convolution, norm and activation together are one block."""
    plain = isinstance(module, nn.Sequential | nn.ModuleList)
    return plain and (outermost or any(True for child in module.children() if any(child.children())))


def _is_long(module: nn.Module) -> bool:
    blocks = [child for child in module.children() if any(child.children())]
    return isinstance(module, nn.Sequential | nn.ModuleList) and len(blocks) >= _LONG
