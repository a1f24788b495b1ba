"""What a project is annotated with: one way from settings, model and label config to a pipeline.

`/setup`, `/predict` and background runs come through here, so the version that Label Studio is told is the one that its
predictions carry. What was given by hand goes before the label config's `model_*` attributes, these go before the
project's profile (`heatbox.profiles`), and that goes before the settings.
"""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from heatbox.activation import find_model
from heatbox.calibration import calibrated
from heatbox.errors import LabelConfigError, ModelNotFoundError, PluginNotFoundError, SettingsError
from heatbox.fitted import FittedState, find_state, require_options
from heatbox.labelling.mapping import LabelMap, map_labels
from heatbox.labelling.quoting import quoted
from heatbox.labelling.tags import LabelConfig, LabelTag, every_class
from heatbox.ledger import Ledger
from heatbox.models import Card, ModelStore
from heatbox.pictures.fetching import check_access
from heatbox.pipeline import Pipeline, pipeline_for
from heatbox.plugins import BOX_FITTERS, EXPLAINERS, parse_options, plugin_names
from heatbox.profiles import profile_of, with_profile
from heatbox.remote_store import open_store
from heatbox.settings import Settings

__all__ = [
    "Serving",
    "check_choices",
    "classes_by_label",
    "config_fields",
    "label_names",
    "require_plugin",
    "serve_project",
    "serving_model",
    "usable_labels",
    "with_choices",
]


@dataclass(frozen=True)
class Serving:
    """What a project is annotated with.

    Attributes:
        pipeline: the same for the same settings, model and label config.
        config: that the regions fill.
        warnings: what a person should read, one sentence each, such as labels that never get a box.
    """

    pipeline: Pipeline
    config: LabelConfig
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        """The labels that a class stands for."""
        return usable_labels(self.pipeline, self.config)

    @property
    def classes_by_label(self) -> dict[str, tuple[str, ...]]:
        """The classes that stand for each label; none where a label never gets a box."""
        return classes_by_label(self.pipeline, self.config)


def usable_labels(pipeline: Pipeline, config: LabelConfig) -> frozenset[str]:
    """Return the labels that a class stands for; without a label map each has its own."""
    return frozenset(label for _, label in pipeline.label_map) or frozenset(config.label_names)


def classes_by_label(pipeline: Pipeline, config: LabelConfig) -> dict[str, tuple[str, ...]]:
    """Return the classes that stand for each label of the config; none where a label never gets a box."""
    found: dict[str, list[str]] = {label: [] for label in config.label_names}
    for name, label in pipeline.label_map or [(label, label) for label in config.label_names]:
        found[label].append(name)
    return {label: tuple(names) for label, names in found.items()}


def serve_project(  # noqa: PLR0913, PLR0917 - what a project is, and where it is looked up
    settings: Settings,
    store: ModelStore,
    ledger: Ledger,
    config: LabelConfig | None,
    given: Collection[str] = (),
    project: int | None = None,
) -> Serving:
    """Return what a project is annotated with.

    Args:
        settings: name the model, the explainer, the fitter and the limits, where the label config does not.
        store: holds the model.
        ledger: knows the active model.
        config: of the project; None: every class of the model is a label, on `data["image"]`.
        given: names of settings that were given by hand and go before the label config.
        project: number in Label Studio, by which its profile and its calibration are found; None: it has neither.

    Raises:
        ModelNotFoundError: no model is active, or it is not in the store.
        PluginNotFoundError: no explainer or box fitter has the name that the settings give.
        OptionError: an option is not written as NAME=VALUE, or the explainer was fitted without one of that name.
        NotFittedError: the explainer was fitted with another option.
        LabelError: labels and classes do not fit together, or the label config names no registered model.
    """
    by_hand = {*given, *(() if config is None else _attribute_settings(config))}
    settings = settings if config is None else _with_attributes(settings, config, given)
    card = _model(settings, store, ledger, config)
    require_plugin(EXPLAINERS, settings.explainer)
    require_plugin(BOX_FITTERS, settings.fitter)
    state = find_state(store, card, settings.explainer)
    if state is not None:
        require_options(state, parse_options(settings.explainer_options))
    names = label_names(card, state)
    notes: tuple[str, ...] = ()
    if config is None:
        pipeline, config = _pipeline(settings, card, state), every_class(names)
    else:
        label_map = _label_map(names, config.labels)
        pipeline = _pipeline(settings, card, state, label_map=label_map.pairs, **config_fields(config))
        notes = (*config.notes, *label_map.warnings)
    profile = profile_of(ledger, settings.studio_url, project)
    if profile is not None:
        pipeline, more = with_profile(pipeline, profile, store, card, by_hand)
        notes = (*notes, *more)
    return Serving(_with_calibration(ledger, project, pipeline), config, notes)


def with_choices(settings: Settings, **given: Any) -> Settings:  # noqa: ANN401 - the settings' own types
    """Return the settings with what was given for one run or project; None: not given.

    Options are added to those of the settings, but another explainer or fitter than theirs has only its own.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    for plugin in ("explainer", "fitter"):
        options = f"{plugin}_options"
        same = chosen.get(plugin, getattr(settings, plugin)) == getattr(settings, plugin)
        chosen[options] = (*(getattr(settings, options) if same else ()), *chosen.get(options, ()))
    return settings.model_copy(update=chosen)


def _attribute_settings(config: LabelConfig) -> set[str]:
    """Return the names of the settings that the label config's controls choose."""
    one = config.attributes
    chosen = {
        "explainer": one.explainer,
        "fitter": one.fitter,
        "min_probability": one.score_threshold,
        "threshold": one.box_threshold,
    }
    return {name for name, value in chosen.items() if value is not None}


def _with_attributes(settings: Settings, config: LabelConfig, given: Collection[str]) -> Settings:
    attributes = config.attributes
    chosen = {
        "model": attributes.model,
        "explainer": attributes.explainer,
        "fitter": attributes.fitter,
        "min_probability": attributes.score_threshold,
        "threshold": attributes.box_threshold,
        "max_labels": attributes.max_labels,
    }
    if attributes.box_threshold is not None and not {"threshold", "fitter_options"}.intersection(given):
        options = [one for one in settings.fitter_options if one.partition("=")[0].strip() != "threshold"]
        settings = settings.model_copy(update={"fitter_options": tuple(options)})
    return with_choices(settings, **{name: value for name, value in chosen.items() if name not in given})


def _model(settings: Settings, store: ModelStore, ledger: Ledger, config: LabelConfig | None) -> Card:
    try:
        return serving_model(settings, store, ledger)
    except ModelNotFoundError as error:
        asked = None if config is None else config.attributes.model
        if asked is None or asked != settings.model:
            raise
        known = [card.id.partition("@")[0] for card in store.cards()]
        close = get_close_matches(asked, known, n=1, cutoff=0.0)
        raise LabelConfigError(
            f"The label config has model_name={quoted(asked)}, which is no model in the store.",
            f"The nearest is {close[0]!r}." if close else error.remedy,
        ) from error


def config_fields(config: LabelConfig) -> dict[str, Any]:
    """Return what the label config adds to a pipeline; nothing for rectangles alone."""

    def own(field: str) -> tuple[tuple[str, float], ...]:
        values = ((label.name, getattr(label, field)) for label in config.labels)
        return tuple(sorted((name, value) for name, value in values if value is not None))

    return {
        "kinds": () if config.kinds == ("rectanglelabels",) else config.kinds,
        "label_thresholds": own("box_threshold"),
        "label_min_probabilities": own("score_threshold"),
        "labels_from": config.attributes.labels_key or "",
    }


def serving_model(settings: Settings, store: ModelStore, ledger: Ledger) -> Card:
    """Return the card of the model that the settings name, else of the active one.

    Raises:
        ModelNotFoundError: there is none.
    """
    reference = settings.model or ledger.active_model()
    if not reference:
        raise ModelNotFoundError(
            "No model is active.",
            "Choose one with `heatbox models activate NAME`, or add one: `heatbox models add mobilenet_v2 --activate`.",
        )
    return find_model(store, ledger, reference)


def label_names(card: Card, state: FittedState | None) -> tuple[str, ...]:
    """Return what finds can be called: the classes of the model, or the explainer's own label."""
    return (state.label,) if state is not None and state.label else card.labels


def _pipeline(
    settings: Settings,
    card: Card,
    state: FittedState | None,
    **more: Any,  # noqa: ANN401 - Pipeline's fields
) -> Pipeline:
    return pipeline_for(
        card,
        threshold=settings.threshold,
        state=state,
        explainer=settings.explainer,
        explainer_options=parse_options(settings.explainer_options),
        fitter=settings.fitter,
        fitter_options=parse_options(settings.fitter_options),
        normalisation=settings.normalisation,
        min_mask_iou=settings.min_mask_iou,
        min_crop_probability=settings.min_crop_probability,
        min_probability=settings.min_probability,
        max_labels=settings.max_labels,
        **more,
    )


def _with_calibration(ledger: Ledger, project: int | None, pipeline: Pipeline) -> Pipeline:
    return pipeline if project is None else calibrated(ledger, project, pipeline)


@lru_cache(32)  # asked for twice per request, and a thousand classes against many labels take seconds
def _label_map(classes: tuple[str, ...], labels: tuple[LabelTag, ...]) -> LabelMap:
    return map_labels(classes, labels)


def check_choices(settings: Settings) -> None:
    """Raise where the settings name a model, an explainer, a box fitter or a folder that is not there.

    No model at all is no error: one may be activated while the service runs.

    Raises:
        ModelNotFoundError: the store has no such model.
        PluginNotFoundError: no plugin has the name.
        OptionError: an option is not written as NAME=VALUE.
        SettingsError: a local root is not a folder, or no picture can be fetched (see `check_access`).
    """
    check_access(settings)
    if settings.model:
        open_store(settings).find(settings.model)
    require_plugin(EXPLAINERS, settings.explainer)
    require_plugin(BOX_FITTERS, settings.fitter)
    parse_options([*settings.explainer_options, *settings.fitter_options])
    for root in settings.local_roots:
        if not root.is_dir():
            raise SettingsError(f"{root} is not a folder.", "Correct --root or HEATBOX_LOCAL_ROOTS.")


def require_plugin(group: str, name: str) -> None:
    """Raise unless a plugin has this name; nothing is imported, because plugins load torch."""
    names = plugin_names(group)
    if name not in names:
        raise PluginNotFoundError(
            f"No plugin {name!r} is registered.", f"Registered are: {', '.join(names)}."
        )
