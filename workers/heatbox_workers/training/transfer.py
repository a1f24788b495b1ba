"""Transfer: the network of a registered model with a head for other classes, and where it is cut for learning.

Which weights are the head's is found by building the network for two numbers of classes: those whose shapes differ.
Everything before the cut stays as it is, so its maps are computed once and kept; everything behind it can learn.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heatbox.contract import Head
from heatbox.errors import LayerNotFoundError, ModelInvalidError
from heatbox.models import Card, make_card
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.embeddings import last_linear
from heatbox_workers.features import find_module
from heatbox_workers.layouts import layout_of, put_back
from heatbox_workers.loading import build_from_card

__all__ = ["Behind", "Transferred", "find_cut", "linear_head", "transfer"]

_SMALL_SIDE = 64
_LONG = 6  # blocks in a row inside a module that make it a chain of blocks and not one block


@dataclass(frozen=True)
class Transferred:
    """A network that is to learn.

    Attributes:
        card: of the new model; without checksum and feature layer.
        network: in eval mode; nothing requires a gradient.
        head: names of the weights whose shapes depend on the number of classes.
    """

    card: Card
    network: nn.Module
    head: tuple[str, ...]


def transfer(  # noqa: PLR0913, PLR0917 - what a new model is made of
    base: TorchClassifier,
    name: str,
    classes: Sequence[str],
    class_of: Mapping[str, str],
    head: Head,
    seed: int,
) -> Transferred:
    """Return the base's network with a head for other classes.

    Args:
        base: whose weights are taken over.
        name: of the new model.
        classes: names in their order.
        class_of: class of the base that a class begins as; one of the same name needs no mention.
        head: of the new model.
        seed: of weights that no class of the base gives.

    Raises:
        ModelInvalidError: no weight of the network depends on the number of classes.
    """
    fields = base.card.model_dump(exclude={"sha256", "labels", "name", "head", "box_threshold"})
    card = make_card(**{**fields, "name": name, "labels": tuple(classes), "head": head})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_from_card(card)
    own, known = network.state_dict(), base.network.state_dict()
    more = tuple(map(str, range(len(classes) + 2)))
    other = build_from_card(make_card(**{**card.model_dump(), "labels": more})).state_dict()
    names = tuple(key for key, value in own.items() if value.shape != other[key].shape)
    if not names:
        raise ModelInvalidError(
            f"No weights of {card.architecture} depend on the number of classes.", "Choose another network."
        )
    rows = _rows(base.labels, classes, class_of)
    network.load_state_dict(
        {
            key: _head_rows(value, known.get(key), rows) if key in names else known[key].to(value.device)
            for key, value in own.items()
        }
    )
    return Transferred(card, network.requires_grad_(requires_grad=False).eval(), names)


def _rows(old: Sequence[str], new: Sequence[str], class_of: Mapping[str, str]) -> list[tuple[int, int]]:
    """Return pairs (index of a class, index of the base's class that it begins as)."""
    index = {name: position for position, name in enumerate(old)}
    wanted = [(position, class_of.get(name, name)) for position, name in enumerate(new)]
    return [(position, index[name]) for position, name in wanted if name in index]


def _head_rows(fresh: Tensor, known: Tensor | None, rows: Sequence[tuple[int, int]]) -> Tensor:
    """Return fresh weights of the head with the rows of known classes; other classes begin small."""
    if known is None or known.shape[1:] != fresh.shape[1:] or not rows:
        return fresh
    begun = fresh * 0.01 if fresh.dim() > 1 else torch.zeros_like(fresh)
    for to, source in rows:
        begun[to] = known[source]
    return begun


def find_cut(transferred: Transferred, unfreeze: int) -> str:
    """Return the layer behind which the network learns: the feature layer, or the output of an earlier block.

    Where the feature layer is part of the head (SqueezeNet), it is the last block before the head.

    Args:
        transferred: the network.
        unfreeze: how many blocks learn with the head.

    Raises:
        LayerNotFoundError: there are not as many blocks.
    """
    order = _run_order(transferred)
    blocks = [name for name in order if name in _blocks(transferred.network)]
    feature_layer = transferred.card.feature_layer
    if not unfreeze and feature_layer in order:
        return feature_layer
    if unfreeze >= len(blocks):
        raise LayerNotFoundError(
            f"The network has {len(blocks)} blocks before its head, of which {unfreeze} cannot learn with it.",
            f"Give --unfreeze at most {max(len(blocks) - 1, 0)}.",
        )
    return blocks[-1 - unfreeze]


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


class Behind:
    """What is behind a layer of a network, run on given maps of that layer.

    What is in front of it runs too, for one small picture where that makes no difference, else for one of full size.

    Args:
        transferred: the network.
        layer: name of a module that puts out maps.
        maps: (1, K, h, w) of a picture, by which it is tried.
    """

    def __init__(self, transferred: Transferred, layer: str, maps: Tensor) -> None:
        self._network = transferred.network
        self._module = find_module(self._network, layer)
        self._layer = layer
        self.device = next(self._network.parameters()).device
        self._given: Tensor | None = None
        self._image = noise(transferred.card.input_size, self.device, 1)
        with torch.no_grad(), self.given(maps):
            right = self.logits()
            whole, self._image = self._image, noise(_SMALL_SIDE, self.device, 1)
            try:
                same = torch.allclose(self.logits(), right, rtol=1e-4, atol=1e-5)
            except (RuntimeError, ValueError, AssertionError, LayerNotFoundError):
                same = False
            if not same:
                self._image = whole

    @contextmanager
    def given(self, maps: Tensor) -> Iterator[None]:
        """Put maps (B, K, h, w) in the place of what the layer puts out, while the body runs; gradients pass."""
        self._given = maps.to(self.device)
        handle = self._module.register_forward_hook(self._replace)
        try:
            yield
        finally:
            handle.remove()
            self._given = None

    def logits(self) -> Tensor:
        """Return the logits (B, C) of the given maps."""
        try:
            logits: Tensor = self._network(self._image)
        except RuntimeError:  # a class token for each picture is concatenated
            count = 1 if self._given is None else len(self._given)
            logits = self._network(self._image.expand(count, -1, -1, -1))
        return logits

    def _replace(self, _module: nn.Module, _inputs: object, output: object) -> Tensor:
        layout = layout_of(output)
        if layout is None or not isinstance(output, Tensor) or self._given is None:
            raise LayerNotFoundError(f"The output of {self._layer!r} is not a map.", "Unfreeze fewer blocks.")
        return put_back(self._given, output, layout)


def linear_head(transferred: Transferred) -> tuple[str, nn.Linear] | None:
    """Return the last linear layer where it is the head and has a bias."""
    found = last_linear(transferred.network)
    if found is None or found[1].bias is None or f"{found[0]}.weight" not in transferred.head:
        return None
    return found
