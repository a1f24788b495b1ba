"""Transfer: the network of a registered model with a head for other classes.

Which weights are the head's is found by building the network for two numbers of classes: those whose shapes differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heatbox.contract import Head
from heatbox.errors import ModelInvalidError
from heatbox.models import Card, make_card
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.embeddings import last_linear
from heatbox_workers.loading import build_from_card

__all__ = ["Transferred", "linear_head", "transfer"]


@dataclass(frozen=True)
class Transferred:
    """A network that is to learn.

    Attributes:
        card: of the new model; without checksum.
        network: in eval mode, on the base's device; nothing requires a gradient.
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
        more = tuple(map(str, range(len(classes) + 2)))
        other = build_from_card(make_card(**{**card.model_dump(), "labels": more})).state_dict()
    own, known = network.state_dict(), base.network.state_dict()
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
    frozen = network.requires_grad_(requires_grad=False).eval()
    return Transferred(card, frozen.to(base.device, memory_format=torch.channels_last), names)  # type: ignore[call-overload]


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
        begun[to] = known[source].to(begun.device)
    return begun


def linear_head(transferred: Transferred) -> tuple[str, nn.Linear] | None:
    """Return the last linear layer where it is the head and has a bias."""
    found = last_linear(transferred.network)
    if found is None or found[1].bias is None or f"{found[0]}.weight" not in transferred.head:
        return None
    return found
