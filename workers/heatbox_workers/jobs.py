"""What a job does: pictures by their addresses, a few at a time, with classifiers that stay warm for the next job."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatbox.annotation import Annotation
from heatbox.errors import HeatboxError
from heatbox.pictures.addresses import resolve
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline
from heatbox.plugins import make_box_fitter, make_explainer, parse_options
from heatbox.remote_store import open_store
from heatbox.settings import Settings
from heatbox_workers.annotate import Annotator, make_annotator
from heatbox_workers.model_cache import ModelCache

__all__ = ["Annotators", "tell_wrong_options"]

log = logging.getLogger(__name__)

_SLICE_SECONDS = 0.1  # for which a picture that somebody waits for may have to wait
_MOST_PICTURES = 8

Entry = dict[str, Any]


class Annotators:
    """Annotators over the classifiers that were used last, which stay in memory for the next job."""

    def __init__(self, settings: Settings) -> None:
        self._models = ModelCache(open_store(settings), settings.model_memory)
        self._roots = settings.local_roots
        self._limits = Limits.from_settings(settings)
        self._pace: dict[str, float] = {}  # seconds per picture by version

    def annotate(
        self, pipeline: Pipeline, addresses: Sequence[str], begin: Callable[..., None]
    ) -> Iterator[tuple[list[Entry], float]]:
        """Yield what became of the pictures, a slice at a time: as many as take a tenth of a second, at least one.

        Args:
            pipeline: that annotates.
            addresses: of the pictures, as the tasks name them.
            begin: called as `begin(begin=positions)` before each slice.

        Yields:
            An entry for each picture of the slice, {"annotation": `Annotation.as_dict()`} or
            {"error": `HeatboxError.as_dict()`}, and the seconds that they took.

        Raises:
            HeatboxError: no picture at all can be annotated with this pipeline.
        """
        classifier = self._models.classifier(pipeline.model, pipeline.explainer, pipeline.state)
        annotator = replace(
            make_annotator(pipeline, classifier, self._limits), batch_size=self._slice_size(pipeline.version)
        )
        paths = [self._resolve(address) for address in addresses]
        wrong = {index: path for index, path in enumerate(paths) if isinstance(path, HeatboxError)}
        if wrong:
            begin(begin=list(wrong))
            yield [_entry(error) for error in wrong.values()], 0.0
        good = {index: path for index, path in enumerate(paths) if isinstance(path, Path)}
        yield from self._slices(annotator, good, begin)

    def _slices(
        self, annotator: Annotator, paths: dict[int, Path], begin: Callable[..., None]
    ) -> Iterator[tuple[list[Entry], float]]:
        found = annotator.annotate(paths.values())
        positions = list(paths)
        for start in range(0, len(positions), annotator.batch_size):
            some = positions[start : start + annotator.batch_size]
            began = time.monotonic()
            begin(begin=some)
            entries = [_entry(next(found)) for _ in some]
            seconds = time.monotonic() - began
            if all("annotation" in entry for entry in entries):  # one that cannot be read takes no time
                self._pace[annotator.pipeline.version] = seconds / len(some)
            yield entries, seconds

    def _slice_size(self, version: str) -> int:
        pace = self._pace.get(version, _SLICE_SECONDS)
        return min(max(int(_SLICE_SECONDS / max(pace, 1e-6)), 1), _MOST_PICTURES)

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


def _entry(outcome: Annotation | HeatboxError) -> Entry:
    is_error = isinstance(outcome, HeatboxError)
    return {"error" if is_error else "annotation": outcome.as_dict()}
