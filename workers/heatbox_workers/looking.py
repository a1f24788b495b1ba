"""Looking at pictures without explaining them: embeddings and probabilities, in batches, one bad picture alone."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from heatbox.errors import HeatboxError, InternalError
from heatbox.logs import place_of
from heatbox.pictures.images import Limits, Picture, read_picture
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.read_ahead import read_ahead

__all__ = ["Look", "Shares", "look_at", "shares_of"]

log = logging.getLogger(__name__)

_BATCH = 16

Asked = TypeVar("Asked")


@dataclass(frozen=True, eq=False)
class Look:
    """What a classifier sees in a picture.

    Attributes:
        picture: as it was read, at least as large as the classifier's input.
        embedding: (D,) float32, what the last linear layer reads.
        probabilities: (C,) float32 in [0, 1].
    """

    picture: Picture
    embedding: NDArray[np.float32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Shares:
    """How probable the labels of a project are in a picture.

    Attributes:
        by_label: in [0, 1].
        rest: of all classes that no label stands for; None where each label is asked about by itself (sigmoid).
    """

    by_label: Mapping[str, float]
    rest: float | None

    @property
    def best(self) -> str:
        """The most probable label; empty where something else, or none, is more probable."""
        label, share = max(self.by_label.items(), key=lambda item: item[1], default=("", 0.0))
        least = 0.5 if self.rest is None else self.rest
        return label if share >= least and share > 0 else ""

    @property
    def doubt(self) -> float:
        """One minus the margin between the two most probable answers, in [0, 1].

        With a softmax they are labels or something else. With a sigmoid each label is yes or no, and the most doubtful
        one counts.
        """
        if self.rest is None:
            return max((1 - abs(2 * share - 1) for share in self.by_label.values()), default=0.0)
        first, second, *_ = *sorted([*self.by_label.values(), self.rest], reverse=True), 0.0
        return min(max(1 - (first - second), 0.0), 1.0)


def shares_of(probabilities: NDArray[np.float32], known: Mapping[str, Sequence[int]], head: str) -> Shares:
    """Return how probable labels are: of a softmax the sum of their classes, of a sigmoid the most probable one.

    Args:
        probabilities: (C,) in [0, 1].
        known: class indices by label.
        head: of the classifier: softmax or sigmoid.
    """
    rows = {label: probabilities[list(classes)] for label, classes in known.items()}
    if head == "sigmoid":
        return Shares({label: float(row.max(initial=0.0)) for label, row in rows.items()}, None)
    sums = {label: float(row.sum()) for label, row in rows.items()}
    return Shares(sums, min(max(1 - sum(sums.values()), 0.0), 1.0))


def look_at(
    asked: Iterable[Asked], fetch: Callable[[Asked], Path], classifier: TorchClassifier, limits: Limits
) -> Iterator[Look | HeatboxError]:
    """Yield what the classifier sees in each picture, or why it cannot be read, in order.

    Args:
        asked: what to look at.
        fetch: returns the file, or raises HeatboxError; called in threads.
        classifier: that looks.
        limits: of the pictures that are read.
    """

    def read(one: Asked) -> Picture | HeatboxError:
        try:
            return read_picture(fetch(one), limits, at_least=classifier.input_size)
        except HeatboxError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an edge: whatever is in a task or a file costs that picture alone
            log.error("a picture failed: %s", place_of(error))  # noqa: TRY400 - its text may show an address
            return InternalError("The picture could not be read.", "The log says where.")

    for batch in read_ahead(read, asked, _BATCH, lambda _: None):
        seen = iter(_seen([one for one in batch if isinstance(one, Picture)], classifier))
        yield from [one if isinstance(one, HeatboxError) else next(seen) for one in batch]


def _seen(pictures: Sequence[Picture], classifier: TorchClassifier) -> list[Look]:
    if not pictures:
        return []
    images = classifier.preprocess([picture.pixels for picture in pictures])
    seen = classifier.seen(images)
    embeddings = seen.embed(images).embeddings.flatten(1).float().cpu().numpy()
    probabilities = classifier.probabilities(seen.logits(images)).float().cpu().numpy()
    return [Look(*one) for one in zip(pictures, embeddings, probabilities, strict=True)]
