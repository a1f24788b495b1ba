"""What the queue runs: the functions that `heatbox.queue` allows, and the classifiers they keep warm."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from rq import get_current_job

from heatbox.addresses import resolve
from heatbox.annotation import Annotation
from heatbox.errors import HeatboxError
from heatbox.fitted import find_state
from heatbox.images import Limits
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox.plugins import make_box_fitter, make_explainer, parse_options
from heatbox.settings import Settings
from heatbox_workers.annotate import make_annotator
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import with_state
from heatbox_workers.loading import load_classifier

__all__ = ["Annotators", "annotate_addresses", "tell_wrong_options", "use"]

log = logging.getLogger(__name__)

_KEPT = 3  # networks in memory
_ERROR_SECONDS = 5  # a result with an error is asked for again soon: somebody may have put the file right


class Annotators:
    """Annotators over the classifiers that were used last, which stay in memory for the next job."""

    def __init__(self, settings: Settings) -> None:
        self._store = store = ModelStore(settings.store_path)
        self._classifier = lru_cache(_KEPT)(lambda model: load_classifier(store, store.find(model)))
        self._fitted = lru_cache(_KEPT)(self._with_state)
        self._roots = settings.local_roots
        self._limits = Limits.from_settings(settings)

    def annotate(self, pipeline: Pipeline, addresses: Sequence[str]) -> list[Annotation | HeatboxError]:
        """Return one annotation or error per address, in order."""
        try:
            classifier = self._fitted(pipeline.model, pipeline.explainer, pipeline.state)
            annotator = make_annotator(pipeline, classifier, self._limits)
        except HeatboxError as error:
            return [error for _ in addresses]
        paths = [self._resolve(address) for address in addresses]
        found = annotator.annotate([path for path in paths if isinstance(path, Path)])
        return [next(found) if isinstance(path, Path) else path for path in paths]

    def _with_state(self, model: str, explainer: str, state: str) -> TorchClassifier:
        """Return a model's classifier with an explainer's state in hand, if it has one."""
        classifier = self._classifier(model)
        if not state:
            return classifier
        return with_state(classifier, find_state(self._store, classifier.card, explainer, state))

    def _resolve(self, address: str) -> Path | HeatboxError:
        try:
            return resolve(address, self._roots)
        except HeatboxError as error:
            return error


def tell_wrong_options(settings: Settings) -> None:
    """Log at the start what would fail with every task: an explainer or fitter that cannot be made."""
    try:
        make_explainer(settings.explainer, parse_options(settings.explainer_options))
        make_box_fitter(settings.fitter, parse_options(settings.fitter_options))
    except HeatboxError as error:
        log.error("no task can be annotated: %s", error)  # noqa: TRY400 - the sentence says it all


_current: ContextVar[Annotators] = ContextVar("annotators")


@contextmanager
def use(annotators: Annotators) -> Iterator[None]:
    """Let the jobs of this thread use these annotators."""
    token = _current.set(annotators)
    try:
        yield
    finally:
        _current.reset(token)


def annotate_addresses(pipeline: Mapping[str, Any], addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Annotate the pictures at these addresses; the job that the service queues.

    Args:
        pipeline: `Pipeline.as_dict()`.
        addresses: as the tasks name them.

    Returns:
        One entry per address, in order: {"annotation": `Annotation.as_dict()`} or
        {"error": `HeatboxError.as_dict()`}.
    """
    outcomes = _current.get().annotate(Pipeline.from_dict(pipeline), addresses)
    job = get_current_job()
    if job is not None and any(isinstance(outcome, HeatboxError) for outcome in outcomes):
        job.result_ttl = _ERROR_SECONDS
    return [_entry(outcome) for outcome in outcomes]


def _entry(outcome: Annotation | HeatboxError) -> dict[str, Any]:
    is_error = isinstance(outcome, HeatboxError)
    return {"error" if is_error else "annotation": outcome.as_dict()}
