"""Ways made ready: what a pipeline names for its labels becomes explainers and fitters, and evidence for each target.

Labels whose ways have the same explainer, options and state share one run of it, whatever fits their boxes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from heatbox.contract import BoxFitter, Evidence, Explainer, PictureFitter
from heatbox.errors import HeatboxError, OptionError, PluginBrokenError, UnsupportedError
from heatbox.pipeline import Pipeline, Way
from heatbox.plugins import make_box_fitter, make_explainer
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.evidence import raise_for_evidence
from heatbox_workers.features import find_module
from heatbox_workers.fitting import require_fitted

__all__ = [
    "Explained",
    "Fitter",
    "ReadyExplainer",
    "Ways",
    "explain",
    "ready_explainer",
    "ready_fitter",
    "ready_ways",
]

Fitter = BoxFitter | PictureFitter
States = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class ReadyExplainer:
    """An explainer that has been tried on the network.

    Attributes:
        name: of its entry point.
        explainer: with its options.
        watched: layers that it asks for.
        state: what it has learnt about the model.
    """

    name: str
    explainer: Explainer
    watched: tuple[str, ...] = ()
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, classifier: TorchClassifier, images: Tensor, targets: Tensor) -> Evidence:
        """Return checked evidence: (N, 3, H, W), (M, 2).

        Raises:
            PluginError: it failed, or what it returned is not what the contract says.
        """
        try:
            evidence = self.explainer(replace(classifier, state=self.state), images, targets)
        except HeatboxError:
            raise
        except Exception as error:  # a plugin may raise anything; it is told as that plugin's failure
            raise PluginBrokenError(
                f"{self.name} failed: {type(error).__name__}: {error}.", "Tell the plugin's authors."
            ) from error
        return raise_for_evidence(evidence, len(targets), classifier.input_size)


@dataclass(frozen=True, eq=False)
class Ways:
    """What labels have instead of the pipeline's own explainer and fitter."""

    explainers: Mapping[str, ReadyExplainer] = field(default_factory=dict)
    fitters: Mapping[str, Fitter] = field(default_factory=dict)

    @property
    def watched(self) -> tuple[str, ...]:
        """All layers that the explainers ask for."""
        return tuple(layer for one in self.explainers.values() for layer in one.watched)


@dataclass(frozen=True)
class Explained:
    """The evidence of one target: a row of what its explainer returned for all of its targets."""

    evidence: Evidence
    row: int


def ready_explainer(way: Way, classifier: TorchClassifier, state: Mapping[str, Tensor]) -> ReadyExplainer:
    """Make an explainer and check that it can explain this network.

    Raises:
        PluginError: it cannot be used, does not support this network, or has not been fitted.
        LayerNotFoundError: an option names a layer that the network does not have.
    """
    explainer = make_explainer(way.explainer, way.explainer_options)
    supports: Callable[[TorchClassifier], str | None] | None = getattr(explainer, "supports", None)
    reason = supports(classifier) if supports else None
    if reason:
        raise UnsupportedError(
            f"{way.explainer} cannot explain {classifier.card.id}: {reason}", "Choose another explainer."
        )
    watches: Callable[[TorchClassifier], Sequence[str]] | None = getattr(explainer, "watches", None)
    watched = tuple(watches(classifier)) if watches else ()
    for layer in (getattr(explainer, "layer", "auto"), *watched):
        if isinstance(layer, str) and layer != "auto":
            find_module(classifier.network, layer)
    require_fitted(way.explainer, explainer, replace(classifier, state=state))
    return ReadyExplainer(way.explainer, explainer, watched, state)


def ready_fitter(way: Way, explainer: Explainer, classifier: TorchClassifier) -> Fitter:
    """Return a way's fitter; where it names no threshold, that of the explainer or of the model's card suits."""
    suited = getattr(explainer, "box_threshold", None) or classifier.card.box_threshold
    default = {} if suited is None else {"threshold": suited}
    return make_box_fitter(way.fitter, {**default, **way.fitter_options})


def ready_ways(pipeline: Pipeline, classifier: TorchClassifier, states: States) -> Ways:
    """Make ready what single labels have; the thresholds of labels go before those of their ways.

    Args:
        pipeline: names the ways.
        classifier: of the pipeline's model, with the state of the pipeline's own explainer.
        states: by their ids, those of the other explainers.

    Raises:
        OptionError: a way's explainer finds things that are no class of the classifier.
        HeatboxError: as `ready_explainer` does.
    """
    ready: dict[str, ReadyExplainer] = {}
    explainers: dict[str, ReadyExplainer] = {}
    fitters: dict[str, Fitter] = {}
    for label, way in pipeline.label_ways:
        key = repr((way.explainer, sorted(way.explainer_options.items()), way.state))
        if key not in ready:
            ready[key] = ready_explainer(way, classifier, states.get(way.state, {}))
        explainers[label] = ready[key]
        if hasattr(ready[key].explainer, "label") or pipeline.own_label:
            raise OptionError(
                f"{label!r} cannot have a way of its own with {way.explainer}: finds of {pipeline.explainer} or of "
                f"{way.explainer} are no class of the model.",
                "Choose another explainer for this label.",
            )
        fitters[label] = ready_fitter(way, ready[key].explainer, classifier)
    for label, threshold in pipeline.label_thresholds:
        way = pipeline.way_of(label)
        fitters[label] = make_box_fitter(way.fitter, {**way.fitter_options, "threshold": threshold})
    return Ways(explainers, fitters)


def explain(
    own: ReadyExplainer,
    ways: Mapping[str, ReadyExplainer],
    classifier: TorchClassifier,
    images: Tensor,
    targets: Sequence[tuple[int, int, str]],
) -> list[Explained]:
    """Return the evidence of each target; each explainer runs once, for its own targets.

    Args:
        own: explains labels that have no way of their own.
        ways: explainers by label.
        classifier: with one forward pass of the images in hand.
        images: (N, 3, H, W).
        targets: M times image index, class index, label.
    """
    groups: dict[ReadyExplainer, list[int]] = {}
    for row, (_, _, label) in enumerate(targets):
        groups.setdefault(ways.get(label, own), []).append(row)
    found: dict[int, Explained] = {}
    for explainer, rows in groups.items():
        wanted = torch.tensor([targets[row][:2] for row in rows], device=images.device)
        evidence = explainer(classifier, images, wanted)
        found |= {row: Explained(evidence, position) for position, row in enumerate(rows)}
    return [found[row] for row in range(len(targets))]
