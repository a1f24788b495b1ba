"""The page: one self-contained HTML file with the five steps of each picture, to look at without a server.

It asks for nothing from outside (its own Content-Security-Policy forbids it) and holds at most one picture in
memory: entries are rendered into a temporary file as they come, the page around them is written when their counts
are known, and renamed into place, so that a reader never sees half a page.
"""

import base64
import errno
import hashlib
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import jinja2
from markupsafe import Markup

from heatbox.annotation import Annotation
from heatbox.errors import HeatboxError, OutputError
from heatbox.page_entry import PageEntry, card
from heatbox.pipeline import Pipeline
from heatbox.templating import make_templates

__all__ = ["MAX_ENTRIES", "PageEntry", "PageFrame", "PageWriter", "Table", "frame_of", "write_page"]

MAX_ENTRIES = 200
UTF8 = ("utf-8", "backslashreplace")  # file names need not be valid Unicode


@dataclass(frozen=True)
class Table:
    """Numbers under a title, one value per column in each row; None shows as a dash, a float with 3 decimals."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


@dataclass(frozen=True)
class PageFrame:
    """What stands around the pictures.

    Attributes:
        title: for example the version of the pipeline.
        subtitle: for example the explainer and the box fitter in words.
        tables: shown above the pictures.
        footnotes: sentences under them.
    """

    title: str
    subtitle: str = ""
    tables: tuple[Table, ...] = ()
    footnotes: tuple[str, ...] = ()


def frame_of(pipeline: Pipeline, threshold: float) -> PageFrame:
    """Return the page's title and subtitle: the version, and what made it in words."""
    made = f"{pipeline.explainer} on {pipeline.model}, boxes by {pipeline.fitter}"
    limits = {
        "IoU with the mask": pipeline.min_mask_iou,
        "probability in the crop": pipeline.min_crop_probability,
    }
    checked = "".join(f", {name} at least {limit:g}" for name, limit in limits.items() if limit)
    own = ", ".join(f"{label} by {way.in_words}, {way.fitter}" for label, way in pipeline.label_ways)
    ways = f"; in a way of their own: {own}" if own else ""
    return PageFrame(pipeline.version, f"{made} above {threshold:g} of the maximum{checked}{ways}")


@dataclass
class _Counts:
    """What the sticky header says; `labels` counts the shown pictures of each label, the rest is of all."""

    pictures: int = 0
    shown: int = 0
    boxes: int = 0
    without: int = 0
    failed: int = 0
    labels: Counter[str] = field(default_factory=Counter)


class PageWriter:
    """Takes entries one by one and writes the page at the end; a context manager.

    Args:
        path: the HTML file; missing folders are made, an older page is replaced.
        max_entries: later pictures are counted but not shown, and the page says so.

    Raises:
        OutputError: on entry already, where nothing can be written there.
    """

    def __init__(self, path: Path, max_entries: int = MAX_ENTRIES) -> None:
        self._path = path
        self._max_entries = max_entries
        self._counts = _Counts()
        self._failures: list[tuple[str, HeatboxError]] = []
        self._templates = _templates()
        self._cards: IO[bytes]

    def __enter__(self) -> Self:
        with _output_errors(self._path):
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._cards = tempfile.TemporaryFile(dir=self._path.parent)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what did not fit on the disk is not needed any more
            self._cards.close()

    @property
    def full(self) -> bool:
        """Whether further pictures are only counted, so that their pixels need not be loaded."""
        return self._counts.shown >= self._max_entries

    def add(self, entry: PageEntry) -> None:
        """Take the next picture.

        Raises:
            OutputError: the disk is full.
        """
        if entry.error is not None:
            self._fail(entry.name, entry.error)
        if entry.annotation is not None:
            self._counts.pictures += 1
            self._counts.boxes += len(entry.annotation.regions)
            self._counts.without += not entry.annotation.regions
            self._show(entry, entry.annotation)

    def write(self, frame: PageFrame) -> None:
        """Write the page in one step: it is there whole, or not at all.

        Raises:
            OutputError: the page cannot be written.
        """
        script = self._templates.get_template("page.js").render()
        page = self._templates.get_template("page.html.j2").stream(
            frame=frame,
            counts=self._counts,
            failures=self._failures,
            cards=self._lines(),
            script=Markup(script),  # noqa: S704 - our own file
            script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        part = self._path.with_name(f".heatbox-{uuid.uuid4().hex}.part")
        with _output_errors(self._path):
            try:
                with part.open("xb") as file:
                    page.dump(file, *UTF8)
                part.replace(self._path)
            finally:
                part.unlink(missing_ok=True)

    def _fail(self, name: str, error: HeatboxError) -> None:
        self._counts.failed += 1
        if len(self._failures) < self._max_entries:
            self._failures.append((name, error))

    def _show(self, entry: PageEntry, annotation: Annotation) -> None:
        if entry.pixels is None or self.full:
            return
        context = card(entry.name, entry.pixels, annotation, entry.truth)
        self._counts.shown += 1
        self._counts.labels.update({row["label"] for row in context["rows"]})
        with _output_errors(self._path):
            template = self._templates.get_template("card.html.j2")
            template.stream(context, number=self._counts.shown).dump(self._cards, *UTF8)

    def _lines(self) -> Iterator[Markup]:
        self._cards.seek(0)
        return (Markup(line.decode()) for line in self._cards)  # noqa: S704 - escaped by card.html.j2


def write_page(
    path: Path, entries: Iterable[PageEntry], frame: PageFrame, max_entries: int = MAX_ENTRIES
) -> None:
    """Write the page of all entries; see `PageWriter`.

    Raises:
        OutputError: the page cannot be written.
    """
    with PageWriter(path, max_entries) as page:
        for entry in entries:
            page.add(entry)
        page.write(frame)


def _templates() -> jinja2.Environment:
    return make_templates(cell=_cell)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing into an error with a remedy."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"The page {path} cannot be written: {reason}.",
            "Free some space, or choose another file in a folder that you may write to.",
        ) from error
