"""What explainers with `fit` have learnt about a model: files beside its weights, one for each time they were fitted.

    <store>/<name>/<version>/state/<explainer>.<id>.safetensors

The id is the content's; a file is never changed, so a prediction's version names exactly what made it. The newest of
an explainer is used. Which options it was fitted with stands in the file's header, which is read without torch
(https://github.com/huggingface/safetensors#format: eight bytes of length, then JSON).
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatbox.errors import ModelInvalidError, NotFittedError, OptionError
from heatbox.models import STATES, Card, ModelStore, file_sha256, unwritable

__all__ = ["HEADER", "FittedState", "find_state", "list_states", "publish_state", "require_options"]

HEADER = "heatbox"
"""Key of the header's metadata under which explainer, options, label and number of examples stand as JSON."""

_LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class FittedState:
    """One file of state.

    Attributes:
        explainer: entry-point name.
        id: twelve hex digits of the content's SHA-256.
        path: the file.
        options: with which it was fitted.
        label: under which its finds are; empty: under the classifier's classes.
        examples: pictures that it learnt from.
    """

    explainer: str
    id: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    examples: int = 0


def list_states(store: ModelStore, card: Card, explainer: str = "") -> list[FittedState]:
    """Return the states of a model, of all explainers or of one, each explainer's from the oldest to the newest.

    Raises:
        ModelInvalidError: a file is damaged.
    """
    return _states(store.state_paths(card), explainer)


def find_state(store: ModelStore, card: Card, explainer: str, state_id: str = "") -> FittedState | None:
    """Return an explainer's newest state, or the one with an id; None: it has not been fitted for this model.

    Raises:
        NotFittedError: there is no state with that id.
        ModelInvalidError: a file is damaged.
    """
    if not state_id:
        found = list_states(store, card, explainer)
        return found[-1] if found else None
    for state in _states(store.state_paths(card, f"{explainer}.{state_id}.safetensors"), explainer):
        if state.id == state_id:
            return state
    raise NotFittedError(
        f"The state {state_id} of {explainer} for {card.id} is gone.",
        f"Fit it again: heatbox fit {explainer} DATASET --model {card.id}.",
    )


def publish_state(
    store: ModelStore, card: Card, explainer: str, write: Callable[[Path], None]
) -> FittedState:
    """Let `write` make the file at a temporary path, and put it into the model's folder as the newest state.

    Raises:
        OutputError: the store cannot be written.
        StoreUnavailableError: the place that machines share cannot be written.
    """
    folder = store.path(card) / STATES
    try:
        with store.incoming() as temporary:
            incoming = temporary / "state.safetensors"
            write(incoming)
            incoming.chmod(0o644)
            with incoming.open("rb") as written:
                os.fsync(written.fileno())
            folder.mkdir(exist_ok=True)
            target = folder / f"{explainer}.{file_sha256(incoming)[:12]}.safetensors"
            store.share_state(incoming, card, target.name)
            incoming.replace(target)
    except OSError as error:
        raise unwritable(error.strerror) from error
    return _read(target)


def require_options(state: FittedState, given: Mapping[str, Any]) -> None:
    """Raise where an option was given that is not the one the state was fitted with.

    Args:
        state: knows its options.
        given: values, or their texts where the plugin's types are not known.

    Raises:
        OptionError: there is no such option.
        NotFittedError: names the option and both values.
    """
    for name, value in json.loads(json.dumps(dict(given))).items():
        if name not in state.options:
            raise OptionError(
                f"{state.explainer}, as it was fitted, has no option {name!r}.",
                f"Its options are: {', '.join(state.options) or 'none'}. If {name} is newer than that, fit again: "
                f"heatbox fit {state.explainer} DATASET.",
            )
        if state.options[name] not in (value, _parsed(value)):
            raise NotFittedError(
                f"{state.explainer} was fitted with {name}={state.options[name]}, not {value}.",
                f"Leave the option away, or fit again: heatbox fit {state.explainer} DATASET "
                f"--explainer-option {name}={value}.",
            )


def _states(paths: Iterable[Path], explainer: str) -> list[FittedState]:
    """Read the files of an explainer, or of all, by explainer and then by time."""
    wanted = [path for path in paths if explainer in ("", path.name.rsplit(".", 2)[0])]
    ordered = sorted(
        wanted, key=lambda path: (path.name.rsplit(".", 2)[0], path.stat().st_mtime_ns, path.name)
    )
    return [_read(path) for path in ordered]


def _parsed(value: object) -> object:
    """Return what a text means as JSON (`0.50` is 0.5), else the value itself."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _read(path: Path) -> FittedState:
    explainer, state_id, _ = path.name.rsplit(".", 2)
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            about = json.loads(json.loads(file.read(min(size, _LARGEST_HEADER)))["__metadata__"][HEADER])
        return FittedState(
            explainer, state_id, path, dict(about["options"]), str(about["label"]), int(about["examples"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelInvalidError(
            f"The state {path.name} of {explainer} is damaged.",
            "Delete that file and fit the explainer again.",
        ) from error
