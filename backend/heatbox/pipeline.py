"""A pipeline: everything that decides which boxes a picture gets, and the version string made from it.

The version is one pure function of these values, so the same pipeline has the same version in `/setup`, in every
prediction and on every machine; a changed threshold is another version.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self

from heatbox.fitted import FittedState
from heatbox.models import Card

__all__ = ["Normalisation", "Pipeline", "Way", "pipeline_for"]

Normalisation = Literal["max", "minmax"]

# Fields that came after the first predictions were made: while they are not set, the version stays as it was.
_LATER = (
    "min_mask_iou",
    "min_crop_probability",
    "state",
    "own_label",
    "kinds",
    "label_thresholds",
    "label_min_probabilities",
    "labels_from",
    "calibration",
    "label_ways",
)
_PAIRS = ("label_map", "label_thresholds", "label_min_probabilities", "calibration")


@dataclass(frozen=True)
class Way:
    """How a label's boxes are found, where another way suits it better than the pipeline's own.

    Attributes:
        explainer: entry-point name, with its options.
        fitter: entry-point name of the box fitter, with its options.
        state: id of what the explainer has learnt about the model; empty: nothing.
    """

    explainer: str
    explainer_options: Mapping[str, Any] = field(default_factory=dict)
    fitter: str = "components"
    fitter_options: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""

    def __post_init__(self) -> None:
        _freeze_options(self)

    def __hash__(self) -> int:
        return hash((self.explainer, self.fitter, self.state))

    @property
    def in_words(self) -> str:
        """The explainer with its options."""
        options = ", ".join(f"{key} {_words(value)}" for key, value in self.explainer_options.items())
        return f"{self.explainer} ({options})" if options else self.explainer

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        options = {
            "explainer_options": dict(self.explainer_options),
            "fitter_options": dict(self.fitter_options),
        }
        return {**vars(self), **options}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        return cls(**value)


@dataclass(frozen=True)
class Pipeline:
    """One way from a picture to boxes.

    Attributes:
        model: `name@version` of a model in the store.
        explainer: entry-point name, with the options that differ from or repeat its defaults.
        fitter: entry-point name of the box fitter, with its options. Where these name no threshold it is the
            explainer's own, else the model card's, else the fitter's default.
        normalisation: how heatmaps become [0, 1] (see `heatbox.heatmaps.normalise`).
        min_probability: classes below are not explained; ignored for labels that were asked for.
        max_labels: at most so many classes per picture; ignored for labels that were asked for.
        labels: project labels to look for in every picture; empty = the classifier's confident classes.
        label_map: pairs (class of the classifier, label of the project); empty = every class under its own name.
        min_mask_iou: a box is kept where its IoU with its part of the mask is at least this; 0 = not checked.
        min_crop_probability: a box is kept where its crop, classified again, has its label with at least this
            probability; 0 = not checked.
        state: id of what the explainer has learnt about the model (see `heatbox.fitted`); empty: nothing.
        own_label: under which the explainer's finds are, in place of the model's classes; empty: it has none.
        kinds: kinds of regions that come of the evidence, sorted; empty: rectangles only.
        label_thresholds: pairs (label, box threshold) of labels that have one of their own.
        label_min_probabilities: pairs (label, probability) of labels that have one of their own.
        labels_from: key of the tasks' data that names what is in a picture; empty: none does.
        calibration: pairs (raw score, share of such boxes that people kept), ascending; empty: scores stay raw.
        label_ways: pairs (label, way) of labels that are explained in a way of their own; their box thresholds are in
            the way's fitter options, but `label_thresholds` go before them.
    """

    model: str
    explainer: str = "fused_cam"
    explainer_options: Mapping[str, Any] = field(default_factory=dict)
    fitter: str = "components"
    fitter_options: Mapping[str, Any] = field(default_factory=dict)
    normalisation: Normalisation = "max"
    min_probability: float = 0.25
    max_labels: int = 3
    labels: tuple[str, ...] = ()
    label_map: tuple[tuple[str, str], ...] = ()
    min_mask_iou: float = 0.0
    min_crop_probability: float = 0.0
    state: str = ""
    own_label: str = ""
    kinds: tuple[str, ...] = ()
    label_thresholds: tuple[tuple[str, float], ...] = ()
    label_min_probabilities: tuple[tuple[str, float], ...] = ()
    labels_from: str = ""
    calibration: tuple[tuple[float, float], ...] = ()
    label_ways: tuple[tuple[str, Way], ...] = ()

    def __post_init__(self) -> None:
        _freeze_options(self)

    def __hash__(self) -> int:
        return hash(self.version)

    @property
    def version(self) -> str:
        """The model version that Label Studio shows: readable, and unique to this pipeline."""
        content = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.model.partition("@")[0])
        return f"heatbox-{self.explainer}-{name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"

    def as_dict(self) -> dict[str, Any]:
        """Return the pipeline as JSON-ready values; later fields are named only where they are set."""
        plain = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
            if value or name not in _LATER
        }
        lists = {name: [list(pair) for pair in plain[name]] for name in _PAIRS if name in plain}
        kinds = {"kinds": list(self.kinds)} if self.kinds else {}
        ways = [[label, way.as_dict()] for label, way in self.label_ways]
        return {
            **plain,
            "labels": list(self.labels),
            **kinds,
            **lists,
            **({"label_ways": ways} if ways else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        plain = {**value, "labels": tuple(value["labels"]), "kinds": tuple(value.get("kinds", ()))}
        pairs = {name: tuple((first, second) for first, second in value.get(name, ())) for name in _PAIRS}
        ways = tuple((label, Way.from_dict(way)) for label, way in value.get("label_ways", ()))
        return cls(**{**plain, **pairs, "label_ways": ways})

    @property
    def own_way(self) -> Way:
        """The way of labels that have none of their own."""
        return Way(self.explainer, self.explainer_options, self.fitter, self.fitter_options, state=self.state)

    def way_of(self, label: str) -> Way:
        """Return how a label's boxes are found."""
        return dict(self.label_ways).get(label, self.own_way)

    def min_probability_of(self, label: str) -> float:
        """Return below which probability a class that stands for the label is not explained."""
        return dict(self.label_min_probabilities).get(label, self.min_probability)


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _freeze_options(value: "Pipeline | Way") -> None:
    for name in ("explainer_options", "fitter_options"):
        object.__setattr__(value, name, MappingProxyType(dict(getattr(value, name))))


def pipeline_for(
    card: Card,
    threshold: float | None = None,
    state: FittedState | None = None,
    **choices: Any,  # noqa: ANN401 - Pipeline's fields
) -> Pipeline:
    """Return the pipeline of a model; with a state, the explainer has the options that it was fitted with."""
    if threshold is not None:
        choices["fitter_options"] = {"threshold": threshold, **choices.get("fitter_options", {})}
    if state is not None:
        choices["explainer_options"] = {**state.options, **choices.get("explainer_options", {})}
        choices |= {"state": state.id, "own_label": state.label}
    return Pipeline(model=card.id, **choices)
