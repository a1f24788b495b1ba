"""The card of a classifier: all that is known about it besides its weights, as `model.json` has it.

Its content id is the version: the same weights that are read in the same way are one version, whatever they are called.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from heatbox.contract import Head
from heatbox.errors import ModelInvalidError, ModelNotFoundError

__all__ = ["Card", "make_card", "read_card", "read_own_card"]

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
