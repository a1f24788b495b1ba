"""Loaded classifiers, kept warm for the next job within a number of bytes.

The least recently used go first. What an explainer has learnt is an entry of its own that shares the plain
classifier's network; it goes before that network, and a tensor that two entries share counts once.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import chain

from torch import Tensor

from heatbox.fitted import find_state
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import with_state
from heatbox_workers.loading import load_classifier

__all__ = ["ModelCache"]

_Key = tuple[str, str, str]


class ModelCache:
    """The classifiers that were used last.

    Args:
        store: that they are loaded from.
        limit: bytes of parameters, buffers and states that are kept; what was asked for last stays even where it is
            larger. While a network is loaded, it comes on top.
    """

    def __init__(self, store: ModelStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._kept: OrderedDict[_Key, TorchClassifier] = OrderedDict()  # the least recently used first

    @property
    def size(self) -> int:
        """Bytes of all tensors that are kept."""
        return _bytes(chain.from_iterable(map(_tensors, self._kept.values())))

    def classifier(self, model: str, explainer: str = "", state: str = "") -> TorchClassifier:
        """Return a model's classifier, with an explainer's state in hand where one is named.

        Args:
            model: name or name@version.
            explainer: entry-point name; of no meaning without a state.
            state: its id.

        Raises:
            ModelError: there is no such model, or it cannot be used.
            NotFittedError: there is no such state.
        """
        plain = (model, "", "")
        wanted = (model, explainer, state) if state else plain
        try:
            return self._kept.get(wanted) or self._load(wanted)
        finally:  # also where there is a model but no such state
            self._touch(wanted)
            self._touch(plain)  # after its states, which so go first
            self._evict({wanted, plain})

    def states(self, pipeline: Pipeline) -> dict[str, Mapping[str, Tensor]]:
        """Return what the explainers of single labels have learnt, by id; raises as `classifier` does."""
        ways = [way for _, way in pipeline.label_ways if way.state]
        return {way.state: self.classifier(pipeline.model, way.explainer, way.state).state for way in ways}

    def _load(self, key: _Key) -> TorchClassifier:
        model, explainer, state = key
        plain = (model, "", "")
        if plain not in self._kept:
            self._kept[plain] = load_classifier(self._store, self._store.find(model))
        classifier = self._kept[plain]
        if state:
            found = find_state(self._store, classifier.card, explainer, state)
            self._kept[key] = classifier = with_state(classifier, found)
        return classifier

    def _touch(self, key: _Key) -> None:
        if key in self._kept:
            self._kept.move_to_end(key)

    def _evict(self, wanted: set[_Key]) -> None:
        """Drop the least recently used until the rest fits, but nothing of what is wanted now."""
        while self._kept.keys() - wanted and self.size > self._limit:
            self._kept.popitem(last=False)


def _tensors(classifier: TorchClassifier) -> Iterable[Tensor]:
    network = classifier.network
    return chain(network.parameters(), network.buffers(), classifier.state.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, of those that share their memory once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
