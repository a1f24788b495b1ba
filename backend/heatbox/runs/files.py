"""From pictures that a person names to a run in the ledger: its items are known at once.

Each item has the task that it becomes in the result, so that the file can be imported into Label Studio.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heatbox.errors import AddressRefusedError, HeatboxError, OutputError, PictureNotFoundError
from heatbox.import_file import local_files_address
from heatbox.labelling.choice import LabelChoice, choose_labels, read_label_config
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.labelling.predictions import import_task
from heatbox.labelling.tags import LabelConfig
from heatbox.labelling.tasks import known_labels
from heatbox.ledger import Ledger
from heatbox.pictures.sources import Source, find_pictures
from heatbox.pictures.wanted import Wanted
from heatbox.pipeline import Pipeline
from heatbox.remote_store import open_store
from heatbox.runs.records import Runs
from heatbox.runs.start import Prepared
from heatbox.runs.tables import NewItem, NewRun
from heatbox.serving import serve_project, usable_labels
from heatbox.settings import Settings

__all__ = ["FilesRequest", "prepare_files_run"]

_TITLE_CHARACTERS = 80
_OTHER_PLACE = "Choose another place with --out."


@dataclass(frozen=True)
class FilesRequest:
    """A run over pictures of this machine.

    Attributes:
        paths: as `heatbox.pictures.sources.find_pictures` takes them.
        out: JSON lines file of the results.
        labels: to look for in every picture; empty: what the classifier sees.
        label_config: XML file whose labels and names are used.
        data_key: key of the task data that holds the picture's address.
        document_root: Label Studio's LOCAL_FILES_DOCUMENT_ROOT.
        most: at most so many pictures; None: all.
        roots: folders that the workers may read; None: this process does the work and reads what is named.
        given: names of settings that were given by hand and go before the label config.
    """

    paths: tuple[str, ...]
    out: Path
    labels: tuple[str, ...] = ()
    label_config: Path | None = None
    data_key: str | None = None
    document_root: Path = Path("/")
    most: int | None = None
    roots: tuple[Path, ...] | None = None
    given: frozenset[str] = frozenset()


def prepare_files_run(settings: Settings, request: FilesRequest) -> Prepared:
    """Find the pictures and map the labels.

    Raises:
        HeatboxError: the request as a whole cannot be met; the first picture's error where none can be tried.
    """
    _require_writable(request.out)
    ledger = Ledger(settings.ledger_url)
    try:
        pipeline, choice, config = _files_pipeline(settings, ledger, request)
        sources = find_pictures(
            request.paths,
            data_key=request.data_key or (choice.config.data_key if choice.config.value_list else None),
            document_roots=(request.document_root,),
            lists=choice.config.value_list,
        )
        taken = sources[: request.most]
        _require_readable(taken, request.roots)
        usable = usable_labels(pipeline, choice.config)
        content = tuple(_item(source, choice.config, usable, request.document_root) for source in taken)
        known = Runs(ledger).count_known(pipeline.version, content)
    finally:
        ledger.close()
    new = NewRun(_title(request.paths), pipeline, config, out=str(request.out.absolute()))
    wrong = sum(one.code is not None for one in content)
    return Prepared(new, content, choice.config, len(sources), len(taken), known, wrong, choice.warnings)


def _files_pipeline(
    settings: Settings, ledger: Ledger, request: FilesRequest
) -> tuple[Pipeline, LabelChoice, str]:
    """Return the pipeline, what it does about labels, and the label config of the run."""
    store = open_store(settings)
    plain = serve_project(settings, store, ledger, None)
    given = None if request.label_config is None else read_label_config(request.label_config)
    choice = choose_labels(plain.config.label_names, request.labels, given, request.data_key)
    if given is not None:
        serving = serve_project(settings, store, ledger, choice.config, request.given)
        return replace(serving.pipeline, labels=request.labels), choice, given
    config = make_label_config(tuple(dict.fromkeys(choice.config.label_names)), choice.config.data_key)
    parse_label_config(config)  # its key comes from the command line
    return replace(plain.pipeline, labels=request.labels, label_map=choice.label_map), choice, config


def _require_readable(sources: Sequence[Source], roots: Sequence[Path] | None) -> None:
    """Raise where no picture can be tried, or where the workers may not read one of them."""
    wrong = [source.error for source in sources if source.error is not None]
    if wrong and len(wrong) == len(sources):
        raise wrong[0]
    if roots is None:
        return
    allowed = [root.resolve() for root in roots]
    paths = [path for source in sources for path in source.paths]
    outside = [
        path
        for path in paths
        if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in allowed)
    ]
    if outside:
        raise AddressRefusedError(
            f"{len(outside)} of {len(paths)} pictures are where the workers may not read, such as {outside[0]}.",
            "Start the service with --root DIR or HEATBOX_LOCAL_ROOTS, and name the same folder here.",
        )


def _require_writable(out: Path) -> None:
    """Raise where the result could not be written in the morning."""
    try:
        place = out if out.exists() else next(parent for parent in out.absolute().parents if parent.exists())
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.", _OTHER_PLACE) from error
    if out.is_dir():
        raise OutputError(f"{out} cannot be written: it is a folder.", _OTHER_PLACE)
    if place != out and not place.is_dir():
        raise OutputError(f"{out} cannot be written: {place} is no folder.", _OTHER_PLACE)
    try:
        if place == out:
            place.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.", _OTHER_PLACE) from error


def _item(source: Source, config: LabelConfig, usable: Collection[str], document_root: Path) -> NewItem:
    """Return a source as an item: its pictures with what is known of them, and the task that it becomes."""
    try:
        if source.error is not None:
            raise source.error
        paths = [os.path.realpath(path) for path in source.paths]
        known = known_labels(source.task or {}, config, usable, len(paths))
        wanted = tuple(Wanted(path, labels=labels).text for path, labels in zip(paths, known, strict=True))
        fingerprint = _fingerprint(paths, config, known)
        content = _content(source, config, document_root)
        return NewItem(source.name, wanted, content=content, fingerprint=fingerprint)
    except OutputError:  # not below the document root: true of the whole request, not of this picture
        raise
    except HeatboxError as error:
        return NewItem(
            source.name,
            content=_content_of_wrong(source, config),
            code=error.code,
            reason=f"{error.sentence} {error.remedy}",
        )


def _content(source: Source, config: LabelConfig, document_root: Path) -> Mapping[str, Any]:
    if source.task is not None:
        return import_task(source.task, None)
    addresses = [local_files_address(path, document_root) for path in source.paths]
    return import_task({"data": {config.data_key: addresses if config.value_list else addresses[0]}}, None)


def _content_of_wrong(source: Source, config: LabelConfig) -> Mapping[str, Any]:
    return import_task(source.task or {"data": {config.data_key: source.name}}, None)


def _fingerprint(paths: Sequence[str], config: LabelConfig, known: Sequence[Sequence[str] | None]) -> str:
    """Return a digest that changes with the files, and with the names that stand in a prediction.

    Raises:
        PictureNotFoundError: a file is gone by now.
    """
    names = (
        [(one.from_name, one.to_name, one.kind) for one in config.controls],
        config.value_list,
        *(() if known == [None] * len(known) else (known,)),
    )
    try:
        found = [(path, (about := Path(path).stat()).st_size, about.st_mtime_ns) for path in paths]
    except OSError as error:
        raise PictureNotFoundError(
            f"The file {Path(error.filename).name!r} cannot be looked at: {error.strerror}.",
            "Check the path.",
        ) from error
    return hashlib.sha256(json.dumps([names, found]).encode()).hexdigest()


def _title(paths: Sequence[str]) -> str:
    text = ", ".join(path.encode(errors="replace").decode() for path in paths)
    return text if len(text) <= _TITLE_CHARACTERS else text[: _TITLE_CHARACTERS - 3] + "..."
