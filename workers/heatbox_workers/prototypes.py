"""Class vectors for an embedding network that has none: the mean direction of each class's pictures.

    w_c = mean over the pictures x of class c of e(x) / |e(x)|

With an ArcFace head this is nearest-mean classification by cosine (Snell et al., Prototypical Networks,
https://arxiv.org/abs/1703.05175): no training, and a network that was only trained to embed becomes a classifier.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heatbox.contract import Examples
from heatbox.errors import DatasetError, ModelInvalidError
from heatbox.models import Card
from heatbox.pictures.images import Limits
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.embeddings import last_linear
from heatbox_workers.examples import ExampleBatches, Labelled
from heatbox_workers.loading import State, build_from_card, make_classifier

__all__ = ["class_vectors", "with_class_vectors"]


def with_class_vectors(card: Card, state: State, pictures: Sequence[Labelled], limits: Limits) -> State:
    """Return the weights of an embedding network with the class vectors that its head needs.

    Args:
        card: with the head `arcface`.
        state: weights; class vectors in them are replaced.
        pictures: at least one of each class that can be read.
        limits: of the pictures.

    Raises:
        ModelInvalidError: the card has another head, or weights and card do not fit.
        DatasetError: a class has no picture.
    """
    head = last_linear(build_from_card(card))
    if card.head != "arcface" or head is None:
        raise ModelInvalidError(
            f"{card.name} has the head {card.head!r}, which has no class vectors.",
            'Write "head": "arcface" in the card, or leave --class-pictures away.',
        )
    name, layer = head
    trunk = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
    classifier = make_classifier(card, {**trunk, f"{name}.weight": torch.ones_like(layer.weight)})
    vectors = class_vectors(classifier, ExampleBatches(pictures, classifier, limits))
    return {**trunk, f"{name}.weight": vectors}


def class_vectors(classifier: TorchClassifier, examples: Iterable[Examples]) -> Tensor:
    """Return the mean unit embedding of each class: (C, D).

    Raises:
        DatasetError: a class has no picture.
    """
    sums: list[Tensor | None] = [None] * len(classifier.labels)
    for batch in examples:
        units = normalize(classifier.embed(batch.images).embeddings)
        for image, index in batch.targets.tolist():
            known = sums[index]
            sums[index] = units[image] if known is None else known + units[image]
    found = [vector for vector in sums if vector is not None]
    if len(found) < len(sums):
        names = [name for name, vector in zip(classifier.labels, sums, strict=True) if vector is None]
        raise DatasetError(
            f"There is no picture of {', '.join(names[:5])}.", "Give a folder with one folder for each label."
        )
    return normalize(torch.stack(found))
