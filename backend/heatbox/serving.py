"""What the service annotates a project with: one way from settings, model and label config to a pipeline.

`/setup` and `/predict` both come through here, so the version that Label Studio is told is the one that its
predictions carry.
"""

from dataclasses import dataclass
from functools import lru_cache

from heatbox.errors import ModelNotFoundError, PluginNotFoundError, SettingsError
from heatbox.fitted import FittedState, find_state, require_options
from heatbox.labelling.config import Control, every_class
from heatbox.labelling.mapping import LabelMap, map_labels
from heatbox.ledger import Ledger
from heatbox.models import Card, ModelStore
from heatbox.pipeline import Pipeline, pipeline_for
from heatbox.plugins import BOX_FITTERS, EXPLAINERS, parse_options, plugin_names
from heatbox.remote_store import open_store
from heatbox.settings import Settings

__all__ = ["Serving", "check_choices", "label_names", "serve_project", "serving_model"]


@dataclass(frozen=True)
class Serving:
    """What a project is annotated with.

    Attributes:
        pipeline: the same for the same settings, model and label config.
        control: that the regions fill.
        warnings: what a person should read, one sentence each, such as labels that never get a box.
    """

    pipeline: Pipeline
    control: Control
    warnings: tuple[str, ...] = ()


def serve_project(settings: Settings, store: ModelStore, ledger: Ledger, control: Control | None) -> Serving:
    """Return what a project is annotated with.

    Args:
        settings: name the model, the explainer, the fitter and the limits.
        store: holds the model.
        ledger: knows the active model.
        control: of the project's label config; None: one with every class of the model, on `data["image"]`.

    Raises:
        ModelNotFoundError: no model is active, or it is not in the store.
        PluginNotFoundError: no explainer or box fitter has the name that the settings give.
        OptionError: an option is not written as NAME=VALUE, or the explainer was fitted without one of that name.
        NotFittedError: the explainer was fitted with another option.
        LabelError: labels and classes do not fit together.
    """
    card = serving_model(settings, store, ledger)
    _check_registered(EXPLAINERS, settings.explainer)
    _check_registered(BOX_FITTERS, settings.fitter)
    state = find_state(store, card, settings.explainer)
    if state is not None:
        require_options(state, parse_options(settings.explainer_options))
    names = label_names(card, state)
    if control is None:
        return Serving(_pipeline(settings, card, state, ()), every_class(names))
    label_map = _label_map(names, control)
    return Serving(_pipeline(settings, card, state, label_map.pairs), control, label_map.warnings)


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
    return store.find(reference)


def label_names(card: Card, state: FittedState | None) -> tuple[str, ...]:
    """Return what finds can be called: the classes of the model, or the explainer's own label."""
    return (state.label,) if state is not None and state.label else card.labels


def _pipeline(
    settings: Settings, card: Card, state: FittedState | None, label_map: tuple[tuple[str, str], ...]
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
        label_map=label_map,
    )


@lru_cache(32)  # asked for twice per request, and a thousand classes against many labels take seconds
def _label_map(classes: tuple[str, ...], control: Control) -> LabelMap:
    return map_labels(classes, control)


def check_choices(settings: Settings) -> None:
    """Raise where the settings name a model, an explainer, a box fitter or a folder that is not there.

    No model at all is no error: one may be activated while the service runs.

    Raises:
        ModelNotFoundError: the store has no such model.
        PluginNotFoundError: no plugin has the name.
        OptionError: an option is not written as NAME=VALUE.
        SettingsError: a local root is not a folder.
    """
    if settings.model:
        open_store(settings).find(settings.model)
    _check_registered(EXPLAINERS, settings.explainer)
    _check_registered(BOX_FITTERS, settings.fitter)
    parse_options([*settings.explainer_options, *settings.fitter_options])
    for root in settings.local_roots:
        if not root.is_dir():
            raise SettingsError(f"{root} is not a folder.", "Correct --root or HEATBOX_LOCAL_ROOTS.")


def _check_registered(group: str, name: str) -> None:
    """Raise unless a plugin has this name; nothing is imported, because plugins load torch."""
    names = plugin_names(group)
    if name not in names:
        raise PluginNotFoundError(
            f"No plugin {name!r} is registered.", f"Registered are: {', '.join(names)}."
        )
