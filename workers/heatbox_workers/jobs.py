"""What a job does: pictures by their addresses, a few at a time, with classifiers that stay warm for the next job."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatbox.annotation import Annotation
from heatbox.errors import HeatboxError
from heatbox.page import PageEntry, frame_of, write_page
from heatbox.page_entry import THUMBNAIL_SIDE
from heatbox.pictures.addresses import local_name
from heatbox.pictures.fetching import Fetcher
from heatbox.pictures.images import Limits, read_picture
from heatbox.pictures.wanted import Wanted
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
        self._fetcher = Fetcher(settings)
        self._limits = Limits.from_settings(settings)
        self._pace: dict[str, float] = {}  # seconds per picture by version

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def annotate(
        self, pipeline: Pipeline, addresses: Sequence[str], begin: Callable[..., None]
    ) -> Iterator[tuple[list[Entry], float]]:
        """Yield what became of the pictures, a slice at a time: as many as take a tenth of a second, at least one.

        Args:
            pipeline: that annotates.
            addresses: of the pictures (`heatbox.pictures.wanted.Wanted.text`).
            begin: called as `begin(begin=positions)` before each slice.

        Yields:
            An entry for each picture of the slice, {"annotation": `Annotation.as_dict()`} or
            {"error": `HeatboxError.as_dict()`}, and the seconds that they took.

        Raises:
            HeatboxError: no picture at all can be annotated with this pipeline.
        """
        classifier = self._models.classifier(pipeline.model, pipeline.explainer, pipeline.state)
        annotator = replace(
            make_annotator(pipeline, classifier, self._limits, self._models.states(pipeline)),
            batch_size=self._slice_size(pipeline.version),
        )
        wanted = [Wanted.from_text(text) for text in addresses]
        waits: list[float] = []
        with closing(annotator.annotate_wanted(wanted, self._fetch, waits.append)) as found:
            for start in range(0, len(wanted), annotator.batch_size):
                some = wanted[start : start + annotator.batch_size]
                began = time.monotonic()
                begin(begin=list(range(start, start + len(some))))
                entries = [self._entry(one, next(found), annotator) for one in some]
                seconds = time.monotonic() - began
                if all("annotation" in entry for entry in entries):  # one that cannot be read takes no time
                    unforeseen = 0.0 if start else waits[0]  # nothing could be read ahead of the first slice
                    self._pace[pipeline.version] = (seconds - unforeseen) / len(some)
                yield entries, seconds

    def _slice_size(self, version: str) -> int:
        pace = self._pace.get(version, _SLICE_SECONDS)
        return min(max(int(_SLICE_SECONDS / max(pace, 1e-6)), 1), _MOST_PICTURES)

    def _fetch(self, wanted: Wanted) -> Path:
        return self._fetcher.fetch(wanted.address, wanted.task)

    def _entry(self, wanted: Wanted, outcome: Annotation | HeatboxError, annotator: Annotator) -> Entry:
        if isinstance(outcome, HeatboxError):
            return {"error": outcome.as_dict()}
        page = {"page": self._page(wanted, outcome, annotator)} if wanted.evidence else {}
        return {"annotation": outcome.as_dict(), **page}

    def _page(self, wanted: Wanted, outcome: Annotation, annotator: Annotator) -> str:
        """Return the page that shows what the regions came from."""
        pixels = read_picture(self._fetch(wanted), self._limits, at_least=THUMBNAIL_SIDE).pixels
        entry = PageEntry(local_name(wanted.address), pixels, outcome)
        with tempfile.TemporaryDirectory(prefix="heatbox-") as folder:
            path = Path(folder) / "evidence.html"
            write_page(path, [entry], frame_of(annotator.pipeline, annotator.fitter.threshold))
            return path.read_text(encoding="utf-8")


def tell_wrong_options(settings: Settings) -> None:
    """Log at the start what would fail with every task: an explainer or fitter that cannot be made."""
    try:
        make_explainer(settings.explainer, parse_options(settings.explainer_options))
        make_box_fitter(settings.fitter, parse_options(settings.fitter_options))
    except HeatboxError as error:
        log.error("no task can be annotated: %s", error)  # noqa: TRY400 - the sentence says it all
