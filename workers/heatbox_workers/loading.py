"""Loading and registering classifiers: nothing unsafe is ever unpickled, and no model enters the store untried."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from heatbox.errors import ModelInvalidError, ModelNotFoundError
from heatbox.models import Card, ModelStore, file_sha256, make_card, read_card, unwritable
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.embeddings import CosineLinear, last_linear, use_cosine_head
from heatbox_workers.features import find_feature_layer, forward_pass
from heatbox_workers.networks import (
    build_network,
    canonical_architecture,
    device,
    published_weights,
    use_same_padding,
)

__all__ = [
    "State",
    "build_from_card",
    "load_classifier",
    "make_classifier",
    "read_state",
    "register",
    "register_file",
    "register_published",
]

State = dict[str, Tensor]


def load_classifier(store: ModelStore, card: Card) -> TorchClassifier:
    """Load a registered model, frozen and in eval mode, on the best device.

    Raises:
        ModelInvalidError: the weights are gone or were changed since they were registered, or do not fit the card.
    """
    path = store.weights_path(card)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise ModelInvalidError(
            f"The weights of {card.id} cannot be read: {error.strerror}.",
            "Remove that folder and add the model again.",
        ) from error
    if digest != card.sha256:
        raise ModelInvalidError(
            f"The weights of {card.id} are not those that were registered.",
            "Remove that folder and add the model again.",
        )
    return make_classifier(card, read_state(path))


def make_classifier(card: Card, state: State) -> TorchClassifier:
    """Build the card's network, fill in the weights, freeze it, and find its feature layer where none is named."""
    network = build_from_card(card)
    _fill(network, state, card.name)
    where = device()
    frozen = network.requires_grad_(requires_grad=False).eval().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with _failures_told():
        layer = card.feature_layer or find_feature_layer(frozen, noise(card.input_size, where))
    return TorchClassifier(card.model_copy(update={"feature_layer": layer}), frozen, where)


def build_from_card(card: Card) -> nn.Module:
    """Return the card's network with its padding and its head, untrained."""
    network = build_network(card.architecture, card.architecture_options, len(card.labels))
    if card.padding == "tf_same":
        use_same_padding(network)
    if card.head == "arcface":
        use_cosine_head(network, card.head_scale)
    return network


def register(store: ModelStore, card: Card, state: State) -> Card:
    """Try a model once and, when it works, write it into the store.

    Returns:
        The card as registered: canonical architecture, feature layer and checksum filled in.

    Raises:
        ModelInvalidError: weights and card do not fit, or the network does not work.
        OutputError: the store cannot be written.
        LayerNotFoundError: there is no feature layer, or not the one that the card names.
    """
    named = card.model_copy(update={"architecture": canonical_architecture(card.architecture)})
    classifier = make_classifier(named, state)
    _try(classifier)
    with store.incoming() as folder:
        weights = {name: value.contiguous().cpu() for name, value in classifier.network.state_dict().items()}
        try:
            save_file(weights, folder / "weights.safetensors")
        except (SafetensorError, OSError) as error:
            raise unwritable(error) from error
        return store.publish(folder, classifier.card)


def register_published(store: ModelStore, architecture: str, **changes: Any) -> Card:  # noqa: ANN401 - the fields of Card
    """Download a network's published weights and register it; `changes` replace fields of the card."""
    canonical = canonical_architecture(architecture)
    published = published_weights(canonical)
    fields = {
        "name": canonical.rpartition("/")[2],
        "architecture": canonical,
        "labels": published.labels,
        "input_size": published.input_size,
        "mean": published.mean,
        "std": published.std,
        "source": published.source,
    }
    return register(store, make_card(**{**fields, **changes}), published.state)


def register_file(
    store: ModelStore,
    weights: Path,
    card: Path,
    complete: Callable[[Card, State], State] = lambda _, state: state,
    **changes: Any,  # noqa: ANN401 - the fields of Card
) -> Card:
    """Register a weights file with its card file; `changes` replace fields of the card.

    Args:
        store: that it is registered in.
        weights: the weights file.
        card: the card file.
        complete: adds to the state what the file lacks.
        changes: replace fields of the card.

    Raises:
        ModelInvalidError: the card names a checksum that the weights file does not have.
    """
    written = read_card(card)
    state = read_state(weights)
    if written.sha256 and written.sha256 != file_sha256(weights):
        raise ModelInvalidError(
            f"{weights.name} does not have the sha256 that {card.name} names.", "Fetch the weights again."
        )
    described = make_card(**{**written.model_dump(), "sha256": "", **changes})
    return register(store, described, complete(described, state))


def read_state(path: Path) -> State:
    """Read a safetensors file, or a state dict that `torch.load(weights_only=True)` accepts.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelInvalidError: the file is neither, is damaged, or would run code.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"There is no weights file {path}.", "Check the path.") from error
    except Exception as error:  # damaged or hostile files raise anything; none of it is ours
        raise ModelInvalidError(
            f"{path.name} holds no plain tensors that can be read safely ({type(error).__name__}).",
            "Save the network's state_dict() with safetensors.torch.save_file, and add that file.",
        ) from error
    if not (isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values())):
        raise ModelInvalidError(
            f"{path.name} is not a state dict.", "Save network.state_dict(), not the network."
        )
    return state


def _unpickled(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds; the caller checks it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
        content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return content[key]
    return content


def _fill(network: nn.Module, state: State, name: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        own = network.state_dict()
        missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        shaped = [key for key in sorted(own.keys() & state.keys()) if own[key].shape != state[key].shape]
        kinds = (("missing", missing), ("not known", foreign), ("of another shape", shaped))
        reasons = [f"{len(keys)} {kind} ({', '.join(keys[:3])})" for kind, keys in kinds if keys]
        head = last_linear(network)
        vectors = head is not None and isinstance(head[1], CosineLinear) and f"{head[0]}.weight" in missing
        remedy = (
            "Class vectors can be made from pictures: --class-pictures. Else check" if vectors else "Check"
        )
        raise ModelInvalidError(
            f"The weights of {name} do not fit its architecture: {'; '.join(reasons)}.",
            f"{remedy} architecture, architecture_options and labels in the card.",
        ) from error


@contextmanager
def _failures_told() -> Iterator[None]:
    """Tell whatever a network raises when it runs as the model's error."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ModelInvalidError(
            f"The network does not run: {error}.", "Check input_size and architecture in the card."
        ) from error


def _try(classifier: TorchClassifier) -> None:
    """Run the network once on noise, through the feature layer, and check what comes out."""
    images = noise(classifier.input_size, classifier.device)
    with _failures_told():
        tried = forward_pass(classifier.network, classifier.feature_layer, images)
    if tried.logits.shape[1:] != (len(classifier.labels),) or not bool(tried.logits.isfinite().all()):
        raise ModelInvalidError(
            f"The network puts out {tuple(tried.logits.shape[1:])} values, or values that are not finite, "
            f"for {len(classifier.labels)} labels.",
            "Check the weights and the card's labels.",
        )
