"""Fitting explainers: what they learn about a model is checked, kept beside its weights, and handed back."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from heatbox.contract import Examples, Explainer, FittedExplainer
from heatbox.errors import (
    HeatboxError,
    ModelInvalidError,
    NotFittedError,
    PluginBrokenError,
    UnsupportedError,
)
from heatbox.fitted import HEADER, FittedState, find_state, publish_state
from heatbox.models import ModelStore, file_sha256, unwritable
from heatbox.pipeline import Pipeline
from heatbox_workers.classifier import TorchClassifier

__all__ = ["fit_explainer", "learn", "options_of", "require_fitted", "states_of", "with_state"]

_REMEDY = "This is a defect of the plugin; please tell its authors."


def fit_explainer(
    store: ModelStore,
    classifier: TorchClassifier,
    name: str,
    explainer: Explainer,
    examples: Iterable[Examples],
) -> FittedState:
    """Let an explainer learn about a registered classifier and keep what it learnt in the model's folder.

    Args:
        store: holds the classifier.
        classifier: as registered.
        name: the explainer's entry-point name.
        explainer: with the options that it is to be fitted with.
        examples: see `FittedExplainer.fit`.

    Raises:
        UnsupportedError: there is nothing that it could learn, or it cannot explain this network.
        NotFittedError: there is too little to learn from.
        PluginBrokenError: it failed, or what it returned is not tensors by name.
        OutputError: the store cannot be written.
    """
    if not hasattr(explainer, "fit"):
        raise UnsupportedError(f"{name} has nothing to learn.", "Use it as it is: it needs no fit.")
    counted = _Counted(examples)
    state = learn(name, cast("FittedExplainer", explainer), classifier, counted)
    about = {
        "explainer": name,
        "options": options_of(explainer),
        "label": getattr(explainer, "label", ""),
        "examples": counted.pictures,
    }
    metadata = {HEADER: json.dumps(about, sort_keys=True)}
    tensors = {
        key: value.detach().cpu().contiguous().clone() for key, value in state.items()
    }  # none shares memory
    try:
        return publish_state(store, classifier.card, name, lambda path: save_file(tensors, path, metadata))
    except SafetensorError as error:
        raise unwritable(error) from error


def learn(
    name: str, explainer: FittedExplainer, classifier: TorchClassifier, examples: Iterable[Examples]
) -> Mapping[str, Tensor]:
    """Return what an explainer learns, checked; raises as `fit_explainer` does."""
    supports = getattr(explainer, "supports", None)
    reason = supports(classifier) if supports else None
    if reason:
        raise UnsupportedError(
            f"{name} cannot explain {classifier.card.id}: {reason}", "Choose another explainer."
        )
    try:
        state = explainer.fit(classifier, examples)
    except HeatboxError:
        raise
    except Exception as error:  # a plugin may raise anything; it is told as that plugin's failure
        raise PluginBrokenError(f"{name} failed: {type(error).__name__}: {error}.", _REMEDY) from error
    if not (isinstance(state, Mapping) and state and all(map(_is_named_tensor, state.items()))):
        raise PluginBrokenError(f"What {name} learnt is not tensors by name.", _REMEDY)
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise PluginBrokenError(
            f"What {name} learnt holds values that are not finite ({', '.join(broken)}).", _REMEDY
        )
    return state


def _is_named_tensor(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def options_of(explainer: Explainer) -> dict[str, Any]:
    """Return the values of all options of an explainer, JSON-ready."""
    fields = dataclasses.fields(cast("Any", explainer))
    return {one.name: getattr(explainer, one.name) for one in fields if one.init}


def require_fitted(name: str, explainer: Explainer, classifier: TorchClassifier) -> None:
    """Raise where an explainer that learns has not learnt about this classifier.

    Args:
        name: its entry-point name, options may follow.
        explainer: any.
        classifier: with the state that there is.

    Raises:
        NotFittedError: says what to run.
    """
    if hasattr(explainer, "fit") and not classifier.state:
        plain, model = name.split(maxsplit=1)[0], classifier.card.id
        raise NotFittedError(
            f"{name} has not learnt from examples for {model}.",
            f"Run: heatbox fit {plain} DATASET --model {model}.",
        )


def with_state(classifier: TorchClassifier, state: FittedState | None) -> TorchClassifier:
    """Return the same classifier with what an explainer has learnt in hand; None: as it is.

    Raises:
        ModelInvalidError: the file was changed or is damaged.
    """
    if state is None:
        return classifier
    damaged = ModelInvalidError(
        f"The state {state.path.name} of {state.explainer} is damaged.",
        "Delete that file and fit the explainer again.",
    )
    try:
        digest, tensors = file_sha256(state.path), load_file(state.path)
    except Exception as error:  # damaged or hostile files raise anything; none of it is ours
        raise damaged from error
    if not digest.startswith(state.id):
        raise damaged
    moved = {key: value.to(classifier.device) for key, value in tensors.items()}
    return dataclasses.replace(classifier, state=moved)


def states_of(
    pipeline: Pipeline, classifier: TorchClassifier, store: ModelStore
) -> dict[str, Mapping[str, Tensor]]:
    """Return what the pipeline's explainers have learnt, those of single labels too, by id.

    Raises:
        NotFittedError: a state is gone.
        ModelInvalidError: a file was changed or is damaged.
    """
    ways = [pipeline.own_way, *(way for _, way in pipeline.label_ways)]
    found = {
        way.state: find_state(store, classifier.card, way.explainer, way.state) for way in ways if way.state
    }
    return {key: with_state(classifier, state).state for key, state in found.items()}


@dataclasses.dataclass
class _Counted:
    """Examples that count their pictures."""

    examples: Iterable[Examples]
    pictures: int = 0

    def __iter__(self) -> Iterator[Examples]:
        self.pictures = 0
        for batch in self.examples:
            self.pictures += len(batch.images)
            yield batch
