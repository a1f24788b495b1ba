"""Candidates: the ways that labels have now, and explainers, layers and fitters that are tried beside them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from heatbox.errors import HeatboxError, UnsupportedError
from heatbox.pipeline import Pipeline, Way
from heatbox.plugins import make_box_fitter, make_explainer
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import options_of
from heatbox_workers.ways import Fitter, ReadyExplainer, ready_explainer, ready_fitter, ready_ways

__all__ = ["Candidate", "Choice", "Fitting", "grid", "present_choices", "thresholds_of"]

_DEFAULT = ("fused_cam", "grad_cam", "hires_cam", "cam", "layer_cam", "box_regression")
_OTHER_LAYERS = frozenset({"fused_cam", "layer_cam"})
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"box_regression": {"views": 2}}  # half the time of four
_COARSE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_TIMES = (0.5, 1.0, 2.0, 4.0)  # of an explainer's own threshold
_MOST = 0.95


@dataclass(frozen=True)
class Fitting:
    """A box fitter with its options, the same for the same."""

    fitter: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, fitter: str, **options: Any) -> "Fitting":  # noqa: ANN401 - the fitter's own options
        """Return a fitter with options."""
        return cls(fitter, tuple(sorted(options.items())))

    @property
    def threshold(self) -> float | None:
        """What the mask keeps; None: the boxes come ready."""
        return dict(self.options).get("threshold")

    def made(self) -> Fitter:
        """Return the fitter."""
        return make_box_fitter(self.fitter, dict(self.options))


@dataclass(frozen=True)
class Candidate:
    """An explainer that is tried.

    Attributes:
        way: explainer, options and state.
        ready: the explainer; without a state where it must learn first.
        learns: it is fitted on the other folds.
    """

    way: Way
    ready: ReadyExplainer
    learns: bool = False

    @property
    def name(self) -> str:
        """Name and options in words."""
        return self.way.in_words


@dataclass(frozen=True)
class Choice:
    """What a label may have: number of the explainer, fitting, and the probability from which it is explained."""

    explainer: int
    fitting: Fitting
    min_probability: float


def present_choices(
    pipeline: Pipeline,
    classifier: TorchClassifier,
    states: Mapping[str, Mapping[str, Tensor]],
    labels: Iterable[str],
) -> tuple[list[Candidate], dict[str, Choice]]:
    """Return the explainers that labels have now, and what each label has.

    Args:
        pipeline: the present one.
        classifier: with the state of the pipeline's own explainer.
        states: of the explainers of single labels, by their ids.
        labels: of the project.
    """
    own = ready_explainer(pipeline.own_way, classifier, classifier.state)
    ways = ready_ways(pipeline, classifier, states)
    fitter = ready_fitter(pipeline.own_way, own.explainer, classifier)
    found = [Candidate(_bare(pipeline.own_way), own)]
    numbers: dict[ReadyExplainer, int] = {own: 0}
    choices: dict[str, Choice] = {}
    for label in labels:
        ready, way = ways.explainers.get(label, own), pipeline.way_of(label)
        if ready not in numbers:
            numbers[ready] = len(found)
            found.append(Candidate(_bare(way), ready))
        fitting = Fitting.of(way.fitter, **_options(ways.fitters.get(label, fitter)))
        choices[label] = Choice(numbers[ready], fitting, pipeline.min_probability_of(label))
    return found, choices


def grid(
    classifier: TorchClassifier, names: Sequence[str], present: Sequence[Candidate]
) -> tuple[list[Candidate], list[str]]:
    """Return the present explainers and those to try beside them, and why some cannot be tried.

    Args:
        classifier: that is explained.
        names: of the explainers; empty: the usual ones.
        present: explainers that labels have now.
    """
    found, notes = list(present), []
    known = {_key(one) for one in present}
    for name in names or _DEFAULT:
        for options in _variants(name, classifier):
            try:
                one = _candidate(Way(name, options), classifier)
            except HeatboxError as error:
                notes += [f"{name} was not tried: {error.sentence}"] if names else []
                break
            if _key(one) not in known:
                known.add(_key(one))
                found.append(one)
    return found, notes


def thresholds_of(candidate: Candidate) -> tuple[float, ...]:
    """Return the box thresholds that are tried first."""
    own = getattr(candidate.ready.explainer, "box_threshold", None)
    if own is None:
        return _COARSE
    return tuple(round(own * times, 4) for times in _TIMES if own * times < _MOST)


def _candidate(way: Way, classifier: TorchClassifier) -> Candidate:
    """Make an explainer; one that learns is made without its state.

    Raises:
        HeatboxError: it cannot be used here.
    """
    made = make_explainer(way.explainer, way.explainer_options)
    if not hasattr(made, "fit"):
        return Candidate(way, ready_explainer(way, classifier, {}))
    if hasattr(made, "label"):
        raise UnsupportedError(
            f"{way.explainer} finds what is no class of the model.", "Choose another explainer."
        )
    return Candidate(way, ReadyExplainer(way.explainer, made), learns=True)


def _variants(name: str, classifier: TorchClassifier) -> list[dict[str, Any]]:
    """Return the options to try: the usual ones, and for some explainers earlier layers."""
    usual = dict(_OPTIONS.get(name, {}))
    earlier = _earlier_layers(classifier) if name in _OTHER_LAYERS else ()
    if name == "layer_cam":
        return [usual, *({"layers": [layer]} for layer in earlier)]
    return [usual, *({"layer": layer} for layer in earlier[:1])]


def _earlier_layers(classifier: TorchClassifier) -> tuple[str, ...]:
    """Return the layer in the middle of the last resolution, and the last one before it; none where nobody knows."""
    try:
        fused = make_explainer("fused_cam", {})
        watches = getattr(fused, "watches", None)
        layers = tuple(watches(classifier)) if watches else ()
    except HeatboxError:
        return ()
    return tuple(layer for layer in layers if layer != classifier.feature_layer)


def _options(fitter: Fitter) -> dict[str, Any]:
    """Return the values of all options of a fitter."""
    made: Any = fitter
    return {one.name: getattr(made, one.name) for one in fields(made) if one.init}


def _bare(way: Way) -> Way:
    return replace(way, fitter="components", fitter_options={})


def _key(one: Candidate) -> str:
    options = json.dumps(options_of(one.ready.explainer), sort_keys=True, default=str)
    return f"{one.way.explainer} {options} {one.way.state}"
