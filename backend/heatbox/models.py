"""The model store: folders of weights with a card, one immutable folder per version.

    <store>/<name>/<version>/model.json            the card
    <store>/<name>/<version>/weights.safetensors   the weights
    <store>/<name>/<version>/state/...             see heatbox.fitted

A version is the content id of everything that changes what comes out; a folder is written to a temporary
place and renamed, so a reader never sees half a model. Reading needs no torch. A store that machines share by a URL
is heatbox.remote_store's.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from heatbox.contract import Head
from heatbox.errors import ModelInvalidError, ModelNotFoundError, OutputError

__all__ = [
    "CARD",
    "STATES",
    "WEIGHTS",
    "Card",
    "ModelStore",
    "file_sha256",
    "make_card",
    "read_card",
    "read_own_card",
    "unwritable",
]

CARD, WEIGHTS, STATES = "model.json", "weights.safetensors", "state"
_ABANDONED_SECONDS = 86_400
_DESCRIPTIVE = {"format", "name", "licence", "source", "trained_from"}

Channels = tuple[float, float, float]
PositiveChannels = tuple[
    Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
]


class Card(BaseModel):
    """What is known about a classifier besides its weights (`model.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="Name in the store.")
    architecture: str = Field(
        min_length=1, description="`torchvision/<name>`, `timm/<name>` or `heatbox/tiny`."
    )
    architecture_options: dict[str, Any] = Field(
        default={}, description="Keyword arguments of its constructor."
    )
    labels: tuple[str, ...] = Field(min_length=1, description="Class names, index = class index.")
    input_size: int = Field(ge=16, le=4096, description="Side of the square input in pixels.")
    mean: Channels = Field(default=(0.485, 0.456, 0.406), description="RGB mean in [0, 1].")
    std: PositiveChannels = Field(
        default=(0.229, 0.224, 0.225), description="RGB standard deviation in [0, 1]."
    )
    head: Head = Field(
        default="softmax",
        description="`softmax`: one class per picture; `sigmoid`: several; `arcface`: the last linear layer compares "
        "embeddings with class vectors by their cosine.",
    )
    head_scale: float = Field(
        default=30.0, gt=0, description="ArcFace's s, which the cosines are multiplied by."
    )
    feature_layer: str = Field(default="", description="Module to explain; found by a probe when empty.")
    padding: Literal["torchvision", "tf_same"] = Field(
        default="torchvision", description="`tf_same`: strided convolutions pad as TensorFlow's SAME does."
    )
    box_threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Box threshold that suits this network, as part of the heatmap's maximum."
    )
    sha256: str = Field(default="", description="SHA-256 of the weights file; checked at each load.")
    licence: str = Field(default="", description="Licence of the weights, for people.")
    source: str = Field(default="", description="Where the weights come from, for people.")
    trained_from: str = Field(
        default="",
        description="`name@version` that a training began from; such a model serves only once it was accepted.",
    )

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
            msg = f"labels appear more than once: {', '.join(twice[:5])}"
            raise ValueError(msg)
        return self

    @property
    def version(self) -> str:
        """Content id: twelve hex digits over the weights' checksum and all fields that change what comes out."""
        # Without the defaults, a field that a later heatbox adds leaves every registered version as it is.
        function = self.model_dump(mode="json", exclude=_DESCRIPTIVE, exclude_defaults=True)
        content = json.dumps(function, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


def make_card(**fields: Any) -> Card:  # noqa: ANN401 - the fields of Card
    """Return a checked card.

    Raises:
        ModelInvalidError: a field is missing, unknown or wrong.
    """
    try:
        return Card.model_validate(fields)
    except ValidationError as error:
        raise _card_error(error) from error


def read_card(path: Path) -> Card:
    """Read a card file.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelInvalidError: it cannot be read, is not JSON, or a field is missing, unknown or wrong.
    """
    try:
        return Card.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"There is no card {path}.", "Write one: see docs/reference/model-card.md."
        ) from error
    except OSError as error:
        raise ModelInvalidError(
            f"{path.name} cannot be read: {error.strerror}.", "Check that it is a file of yours."
        ) from error
    except ValidationError as error:
        raise _card_error(error, path.name) from error


def read_own_card(path: Path) -> Card:
    """Read the card of a version's folder and check that it is still the card which names that folder.

    Raises:
        ModelInvalidError: it is not, or is damaged.
    """
    reference = "@".join(path.parts[-3:-1])
    remedy = f"Delete its folder {reference.replace('@', '/')} in the model store and add the model again."
    try:
        card = read_card(path)
    except ModelInvalidError as error:
        raise ModelInvalidError(f"The model {reference} is damaged: {error.sentence}", remedy) from error
    if card.id != reference:
        raise ModelInvalidError(f"The card of {reference} was changed since it was registered.", remedy)
    return card


def _card_error(error: ValidationError, name: str = "model card") -> ModelInvalidError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch":
        reason = "letters, digits, '.', '_' and '-' only, at most 100, a letter or digit first"
    return ModelInvalidError(
        f"{name}: {where}: {reason}." if where else f"{name}: {reason}.",
        "The fields of a card are in docs/reference/model-card.md.",
    )


class ModelStore:
    """A folder of models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        """Where the models are, for people."""
        return str(self.folder)

    def require_reachable(self) -> None:
        """Raise where models that are not on this machine cannot be asked for; a folder has none."""

    def cards(self) -> list[Card]:
        """Return every registered version, sorted by name and then by time of registration."""
        return [read_own_card(path) for path in self._card_paths()]

    def find(self, reference: str) -> Card:
        """Return the card of `name` (newest version) or `name@version` (a prefix of it will do).

        Raises:
            ModelNotFoundError: no such model, with the nearest names.
        """
        name, _, version = reference.partition("@")
        paths = self._card_paths()
        found = [path for path in paths if path.parts[-3] == name and path.parts[-2].startswith(version)]
        if found:
            return read_own_card(found[-1])
        names = sorted({path.parts[-3] for path in paths})
        if name in names:
            versions = ", ".join(path.parts[-2] for path in paths if path.parts[-3] == name)
            raise ModelNotFoundError(
                f"No version {version!r} of {name!r} in the store.", f"It has: {versions}."
            )
        close = get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Registered are: {', '.join(names) or 'none'}."
        raise ModelNotFoundError(
            f"No model {reference!r} in the store.", f"{hint} Add one with `heatbox models add`."
        )

    def path(self, card: Card) -> Path:
        """Return the folder of a version."""
        return self.folder / card.name / card.version

    def weights_path(self, card: Card) -> Path:
        """Return the weights file of a version."""
        return self.path(card) / WEIGHTS

    def has_weights(self, card: Card) -> bool:
        """Return whether the weights file of a version is there."""
        return self.weights_path(card).is_file()

    def state_paths(self, card: Card, wanted: str = "") -> list[Path]:  # noqa: ARG002 - for stores that ask elsewhere
        """Return the files of what explainers have learnt about a version, in no order.

        Args:
            card: of the version.
            wanted: name of the file that is looked for, where it is one; else all are.
        """
        return list((self.path(card) / STATES).glob("[!.]*.*.safetensors"))

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Yield a temporary folder inside the store; it is removed unless `publish` moved it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear_abandoned()
            folder = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.folder))
        except OSError as error:
            raise unwritable(error.strerror) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _clear_abandoned(self) -> None:
        """Remove temporary folders that a killed process left behind a day ago or longer."""
        for folder in self.folder.glob(".incoming-*"):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, card: Card) -> Card:
        """Move a folder that holds `weights.safetensors` into the store under its card.

        The same content twice is one version: the first folder stays as it is.

        Raises:
            OutputError: the store cannot be written.
        """
        checked = card.model_copy(update={"sha256": file_sha256(folder / WEIGHTS)})
        target = self.path(checked)
        try:
            (folder / CARD).write_text(checked.model_dump_json(indent=1) + "\n", encoding="utf-8")
            _make_durable(folder)
            self.share_version(folder, checked)
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                folder.rename(target)
        except OSError as error:
            if not target.exists():  # else another process published the same at the same moment
                raise unwritable(error.strerror) from error
        return read_own_card(target / CARD)

    def share_version(self, folder: Path, card: Card) -> None:
        """Bring a version to where other machines see it, before it is moved here; nothing to do for a folder."""

    def share_state(self, path: Path, card: Card, name: str) -> None:
        """Bring a file of state to where other machines see it, before it is moved here under its name."""

    def _card_paths(self) -> list[Path]:
        found = [(path.parts[-3], _modified(path), path) for path in self.folder.glob(f"[!.]*/[!.]*/{CARD}")]
        return [path for _, _, path in sorted(found)]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_durable(folder: Path) -> None:
    """Bring a folder's card and weights onto the disk, and let other users read them."""
    folder.chmod(0o755)
    for name in (CARD, WEIGHTS):
        with (folder / name).open("rb") as written:
            os.fsync(written.fileno())


def _modified(path: Path) -> int:
    """Return the time of the last change in nanoseconds; 0 for a file that has just been deleted."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def unwritable(reason: object) -> OutputError:
    """Return the error of a model store that cannot be written."""
    return OutputError(
        f"The model store cannot be written: {reason}.",
        "Free some space, or set HEATBOX_STORE to a folder of yours (HEATBOX_HOME where it is a URL).",
    )
