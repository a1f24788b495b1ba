"""Explainers that learn, cross-fitted: what they show of a picture was learnt from pictures of the other folds."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from heatbox.contract import Examples, FittedExplainer
from heatbox.errors import HeatboxError
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import learn
from heatbox_workers.tune.seeing import Picture, Seen, batches, explain_batch
from heatbox_workers.ways import ReadyExplainer

__all__ = ["Remembering", "SeenExamples", "cross_fit", "remembering"]

_MOST_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Remembering(TorchClassifier):
    """A classifier that remembers feature maps, as half floats: each fold learns from the same views of pictures."""

    remembered: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def feature_maps(self, images: Tensor, layer: str = "auto") -> Tensor:
        """Return a layer's output, no graph: (N, 3, H, W) -> (N, K, h, w)."""
        content = images.detach().cpu().contiguous().numpy().tobytes()
        key = f"{layer} {hashlib.sha1(content, usedforsecurity=False).hexdigest()}"
        if key not in self.remembered:
            maps = super().feature_maps(images, layer)
            if sum(one.nbytes for one in self.remembered.values()) > _MOST_BYTES:
                return maps
            self.remembered[key] = maps.half()
        return self.remembered[key].float()


def remembering(classifier: TorchClassifier) -> Remembering:
    """Return the same classifier with a memory, and without a state."""
    return Remembering(classifier.card, classifier.network, classifier.device)


@dataclass(frozen=True)
class SeenExamples:
    """Pictures with their true boxes as examples; each label is learnt as the class that the classifier sees there.

    Attributes:
        pictures: to learn from.
        seen: what the classifier said about them.
        classifier: prepares them.
        labels: that are learnt.
        left_out: the fold that is not learnt from; None: all are.
        is_final: whether nothing is learnt from what models are compared on; where that is all, from all.
    """

    pictures: Sequence[Picture]
    seen: Seen
    classifier: TorchClassifier
    labels: frozenset[str]
    left_out: int | None = None
    is_final: bool = False

    def __iter__(self) -> Iterator[Examples]:
        apart = self.is_final and not all(one.is_held_out for one in self.pictures)
        for places in batches(self.pictures):
            kept = [place for place in places if not (apart and self.pictures[place].is_held_out)]
            if kept and self.pictures[kept[0]].fold != self.left_out:
                yield self._examples(kept)

    def _examples(self, places: Sequence[int]) -> Examples:
        targets: list[tuple[int, int]] = []
        boxes: list[list[float]] = []
        for row, place in enumerate(places):
            classes = {one.label: one.class_index for one in self.seen.ranked[place]}
            for label, corners in self.pictures[place].truths.items():
                if label in self.labels and label in classes:
                    targets += [(row, classes[label])] * len(corners)
                    boxes += corners.tolist()
        where = self.classifier.device
        return Examples(
            self.classifier.preprocess([self.pictures[place].square for place in places]),
            torch.tensor(targets, dtype=torch.int64, device=where).reshape(-1, 2),
            torch.tensor(boxes, dtype=torch.float32, device=where).reshape(-1, 4),
        )


def cross_fit(
    examples: SeenExamples,
    number: int,
    explainer: ReadyExplainer,
    tell: Callable[[], object],
) -> None:
    """Let an explainer learn once for each fold, from the others, and keep what it makes of that fold's targets.

    Args:
        examples: all pictures.
        number: of the explainer among the candidates.
        explainer: that learns; why it cannot is kept.
        tell: told after every fold.
    """
    seen, pictures, classifier = examples.seen, examples.pictures, examples.classifier
    for fold in sorted({one.fold for one in pictures}):
        try:
            state = _learnt(explainer, replace(examples, left_out=fold))
        except HeatboxError as error:
            seen.broken[number] = error
            return
        fitted = replace(explainer, state=state)
        for places in batches(pictures):
            if pictures[places[0]].fold == fold:
                images = classifier.preprocess([pictures[place].square for place in places])
                explain_batch(seen, number, fitted, classifier, images, places)
        tell()


def _learnt(explainer: ReadyExplainer, examples: SeenExamples) -> Mapping[str, Tensor]:
    made = cast("FittedExplainer", explainer.explainer)
    return learn(explainer.name, made, examples.classifier, examples)
