"""From what is asked for to an order: the project's corrections, its labels, the model that serves it.

Label Studio is asked once for the project and for what people have done since the last pull.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from heatbox.activation import find_model
from heatbox.corrections.corrected import Corrected
from heatbox.corrections.pulling import pull
from heatbox.corrections.records import Corrections
from heatbox.errors import LabelUnknownError, ModelInvalidError, ModelNotFoundError, TooLittleError
from heatbox.fitted import list_states
from heatbox.labelling.config import parse_label_config
from heatbox.labelling.mapping import map_labels
from heatbox.labelling.tags import LabelConfig
from heatbox.ledger import Ledger
from heatbox.models import Card, ModelStore, make_card
from heatbox.pipeline import Pipeline
from heatbox.plugins import EXPLAINERS
from heatbox.remote_store import open_store
from heatbox.serving import require_plugin, serve_project, serving_model
from heatbox.settings import Settings
from heatbox.studio.client import Studio
from heatbox.trainings.order import TrainingOrder
from heatbox.trainings.request import TrainingRequest
from heatbox.trainings.tables import NewTraining

__all__ = ["Prepared", "prepare"]

_LEAST = 8  # corrected pictures, where there are no others
_LEARNS_BOXES = "box_regression"


@dataclass(frozen=True)
class Prepared:
    """A training that can be written, and what a person should know before."""

    new: NewTraining
    order: TrainingOrder

    @property
    def pictures_by_label(self) -> dict[str, int]:
        """How many corrected pictures have each label; one with several counts for each."""
        found = Counter(label for one in self.order.corrected for label in one.labels)
        return {label: found[label] for label in self.order.labels or sorted(found)}

    @property
    def boxes(self) -> int:
        """How many boxes people left on the corrected pictures."""
        return sum(len(one.boxes or ()) for one in self.order.corrected)


@dataclass(frozen=True)
class _Project:
    """What a project adds: title, labels, what people corrected, and how it is served."""

    title: str
    config: LabelConfig
    corrected: tuple[Corrected, ...]
    reference: str
    served: Pipeline | None


def prepare(
    settings: Settings, ledger: Ledger, request: TrainingRequest, open_studio: Callable[[], Studio]
) -> Prepared:
    """Return the training that a request means; nothing is written but what was pulled.

    Args:
        settings: of the service.
        ledger: keeps corrections and activations.
        request: what is asked for.
        open_studio: a client of Label Studio; called where a project is named.

    Raises:
        HeatboxError: Label Studio gives no answer, no model is there to begin from, or there is too little to learn.
    """
    store = open_store(settings)
    found = _ask(settings, store, ledger, request.project, open_studio)
    reference = found.reference if found else settings.model
    champion = _champion(settings, store, ledger, found)
    named = request.base or (reference if champion is None else "")
    base = find_model(store, ledger, named) if named else champion or serving_model(settings, store, ledger)
    _require_usable(store, base, request)
    corrected = found.corrected if found else ()
    _require_enough(corrected, request)
    labels = request.labels or (found.config.label_names if found else ())
    order = TrainingOrder(
        base=base.id,
        name=request.name or base.name,
        labels=labels,
        class_of=_class_of(base, found.config if found else None),
        corrected=corrected,
        data=request.data,
        labels_only=request.labels_only,
        options=request.options,
        pipeline=found.served.as_dict() if found and found.served else None,
        champion=champion.id if champion else "",
        fit=_fit(store, champion, request, corrected),
    )
    title = found.title if found else ", ".join(request.data)
    new = NewTraining(
        title,
        request.project,
        request.as_dict(),
        order.as_dict(),
        reference,
        base.id,
        order.champion,
        request.activate,
    )
    return Prepared(new, order)


def _ask(
    settings: Settings,
    store: ModelStore,
    ledger: Ledger,
    number: int | None,
    open_studio: Callable[[], Studio],
) -> _Project | None:
    """Return what a project adds; None where none is named."""
    if number is None:
        return None
    corrections = Corrections(ledger)
    with open_studio() as studio:
        project = studio.project(number)
        pull(studio, corrections, number)
    config = parse_label_config(project.label_config)
    served = None
    with suppress(LabelUnknownError):  # its labels are new to the model: there is nothing to compare with
        served = serve_project(settings, store, ledger, config, project=number).pipeline
    return _Project(
        project.title or f"project {number}",
        config,
        tuple(corrections.pictures(settings.studio_url, number)),
        config.attributes.model or settings.model,
        served,
    )


def _champion(settings: Settings, store: ModelStore, ledger: Ledger, found: _Project | None) -> Card | None:
    """Return the model that serves now."""
    if found is not None:
        return store.find(found.served.model) if found.served else None
    with suppress(ModelNotFoundError):
        return serving_model(settings, store, ledger)
    return None


def _require_usable(store: ModelStore, base: Card, request: TrainingRequest) -> None:
    """Raise where the new model's name, or an explainer's, would be seen to be wrong only after all has been learnt."""
    name = request.name or base.name
    make_card(name=name, architecture=base.architecture, labels=base.labels, input_size=base.input_size)
    if name != base.name and any(card.name == name and not card.trained_from for card in store.cards()):
        raise ModelInvalidError(
            f"{name!r} is the name of a model that was registered by hand, and not of {base.id}'s family.",
            "Choose another --name: projects that name their model so would get the new one.",
        )
    for explainer in request.fit or ():
        require_plugin(EXPLAINERS, explainer)


def _require_enough(corrected: tuple[Corrected, ...], request: TrainingRequest) -> None:
    usable = sum(bool(one.labels) for one in corrected)
    if not request.data and usable < _LEAST:
        where = f"Project {request.project} has" if request.project else "There are"
        raise TooLittleError(
            f"{where} {usable} corrected pictures with a label; it takes at least {_LEAST}.",
            "Correct more pictures in Label Studio and submit them, or add folders with --data.",
        )


def _class_of(base: Card, config: LabelConfig | None) -> tuple[tuple[str, str], ...]:
    """Return pairs (label, class of the base) of the labels that the base knows."""
    if config is None:
        return ()
    with suppress(LabelUnknownError):
        return tuple((label, name) for name, label in map_labels(base.labels, config.labels).pairs)
    return ()


def _fit(
    store: ModelStore, champion: Card | None, request: TrainingRequest, corrected: tuple[Corrected, ...]
) -> tuple[str, ...]:
    if request.fit is not None:
        return request.fit
    known = {one.explainer for one in list_states(store, champion)} if champion else set()
    boxes = {_LEARNS_BOXES} if any(one.boxes for one in corrected) else set()
    return tuple(sorted(known | boxes))
