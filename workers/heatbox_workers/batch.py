"""The batch behind `heatbox annotate`: from what was asked for to an import file or a dataset, and a page."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from heatbox.activation import find_model as find_card
from heatbox.annotation import Annotation, Rejected
from heatbox.boxes import Box
from heatbox.errors import HeatboxError, ModelNotFoundError, PictureError
from heatbox.export import Dataset, Format, common_folder, write_coco, write_voc, write_yolo
from heatbox.fitted import find_state, require_options
from heatbox.import_file import atomic_text, config_path, local_files_address, write_tasks
from heatbox.labelling.attributes import Attributes
from heatbox.labelling.choice import choose_labels, read_label_config
from heatbox.labelling.config import make_label_config
from heatbox.labelling.predictions import import_task, prediction
from heatbox.labelling.tags import LabelConfig
from heatbox.labelling.tasks import known_labels
from heatbox.ledger import Ledger
from heatbox.models import Card
from heatbox.page import PageEntry, PageWriter, frame_of
from heatbox.pictures.images import Limits, read_picture
from heatbox.pictures.sources import Source, find_pictures
from heatbox.pictures.wanted import Wanted
from heatbox.pipeline import Normalisation, Pipeline, pipeline_for
from heatbox.plugins import make_box_fitter, make_explainer, parse_options
from heatbox.remote_store import open_store
from heatbox.serving import config_fields, label_names, serving_model, usable_labels
from heatbox.settings import Settings
from heatbox_workers.annotate import Annotator, make_annotator
from heatbox_workers.fitting import with_state
from heatbox_workers.loading import load_classifier, register_published
from heatbox_workers.networks import canonical_architecture

__all__ = ["Annotated", "Batch", "Request", "Summary", "find_model", "page_entry", "prepare"]

_THUMBNAIL_SIDE = 256


@dataclass(frozen=True)
class Request:
    """What `heatbox annotate` was asked for; the command's options tell what each means."""

    paths: tuple[str, ...]
    model: str | None = None
    explainer: str = "fused_cam"
    explainer_options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    fitter: str = "components"
    fitter_options: tuple[str, ...] = ()
    threshold: float | None = None
    min_probability: float = 0.25
    max_labels: int = 3
    label_config: Path | None = None
    data_key: str | None = None
    document_root: Path = Path("/")
    normalisation: Normalisation = "max"
    min_mask_iou: float = 0.0
    min_crop_probability: float = 0.0


@dataclass(frozen=True)
class Annotated:
    """A source with what came of it."""

    source: Source
    outcome: Annotation | HeatboxError


@dataclass
class Summary:
    """What a batch came to: pictures, boxes by label, what the self-check rejected, what failed, and why."""

    pictures: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    without_boxes: int = 0
    failed: list[tuple[str, HeatboxError]] = field(default_factory=list)
    rejected: list[tuple[str, Rejected]] = field(default_factory=list)

    def count(self, annotated: Annotated) -> None:
        """Take one more picture into account."""
        self.pictures += 1
        if isinstance(annotated.outcome, HeatboxError):
            self.failed.append((annotated.source.name, annotated.outcome))
            return
        self.boxes.update(region.label for region in annotated.outcome.regions)
        self.without_boxes += not annotated.outcome.regions
        self.rejected += [(annotated.source.name, one) for one in annotated.outcome.rejected]


@dataclass(frozen=True)
class Batch:
    """A request made ready: sources found, model loaded, labels mapped."""

    sources: tuple[Source, ...]
    annotator: Annotator
    config: LabelConfig
    limits: Limits
    document_root: Path
    has_config: bool
    warnings: tuple[str, ...] = ()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline whose version the predictions carry."""
        return self.annotator.pipeline

    def annotate(self) -> Iterator[Annotated]:
        """Yield every source with its annotation or error, in order."""
        wanted = (self._wanted(source) for source in self.sources if source.path is not None)
        found = self.annotator.annotate_wanted(wanted, lambda one: Path(one.address))
        for source in self.sources:
            outcome = next(found) if source.path is not None else source.error
            if outcome is not None:
                yield Annotated(source, outcome)

    def _wanted(self, source: Source) -> Wanted:
        """Return a source's picture with what its task says is in it."""
        usable = usable_labels(self.pipeline, self.config)
        (labels,) = known_labels(source.task or {}, self.config, usable)
        return Wanted(str(source.path), labels=labels)

    def write(
        self,
        results: Iterable[Annotated],
        out: Path,
        html: Path | None,
        form: Format = Format.LABEL_STUDIO,
    ) -> Summary:
        """Write the results in a format, and the page; return the counts.

        Args:
            results: of `annotate`.
            out: a file; a new folder for VOC and YOLO. Beside an import file comes a label config, unless the user
                has one.
            html: file of the page; None: no page.
            form: what is written.

        Raises:
            OutputError: a file or folder cannot be written.
            HeatboxError: no picture could be annotated; the first one's error, and nothing is written.
        """
        summary = Summary()
        with PageWriter(html) if html is not None else nullcontext() as page:
            passing = self._passing(results, summary, page)
            if form is Format.LABEL_STUDIO:
                self._write_tasks(passing, out, summary)
            else:
                self._write_dataset(passing, out, form)
            if page is not None:
                page.write(frame_of(self.pipeline, self.annotator.fitter.threshold))
        return summary

    def _passing(
        self, results: Iterable[Annotated], summary: Summary, page: PageWriter | None
    ) -> Iterator[Annotated]:
        """Pass the results on while each is counted and put on the page."""
        for one in results:
            summary.count(one)
            if page is not None:
                page.add(page_entry(one, self.limits))
            yield one

    def _write_tasks(self, results: Iterable[Annotated], out: Path, summary: Summary) -> None:
        with write_tasks(out) as tasks:
            for one in results:
                task = self._task(one)
                if task is not None:
                    tasks.add(task)
            if summary.failed and not tasks.count:
                raise summary.failed[0][1]  # nothing worked: an older file stays as it is
        if not self.has_config and summary.boxes:
            with atomic_text(config_path(out)) as file:
                file.write(make_label_config(sorted(summary.boxes), self.config.data_key))

    def _write_dataset(self, results: Iterable[Annotated], out: Path, form: Format) -> None:
        """Write what could be annotated; the labels are numbered as in the label config, or as asked for."""
        named = self.has_config or self.pipeline.labels
        root = common_folder(source.path for source in self.sources if source.path is not None)
        dataset = Dataset(root, self.pipeline.version, self.config.label_names if named else ())
        pairs = (
            (one.source.path, one.outcome)
            for one in results
            if one.source.path is not None and isinstance(one.outcome, Annotation)
        )
        write = {Format.VOC: write_voc, Format.COCO: write_coco, Format.YOLO: write_yolo}[form]
        write(out, pairs, dataset)

    def _task(self, one: Annotated) -> dict[str, object] | None:
        """Return the import task: one that came is kept in any case, a failed file makes none."""
        regions = None
        if isinstance(one.outcome, Annotation):
            regions = prediction([one.outcome], self.config, self.pipeline.version)
        if one.source.task is not None:
            return import_task(one.source.task, regions)
        if regions is None or one.source.path is None:
            return None
        address = local_files_address(one.source.path, self.document_root)
        return import_task({"data": {self.config.data_key: address}}, regions)


def prepare(request: Request, settings: Settings) -> Batch:
    """Find the pictures, load the model and map the labels.

    Raises:
        HeatboxError: the request as a whole cannot be met.
    """
    root = request.document_root
    sources = find_pictures(request.paths, data_key=request.data_key, document_roots=(root,))
    card = find_model(settings, request.model)
    store = open_store(settings)
    explainer_options = parse_options(list(request.explainer_options))
    fitter_options = parse_options(list(request.fitter_options))
    typed = _typed(make_explainer(request.explainer, explainer_options), explainer_options)
    state = find_state(store, card, request.explainer)
    if state is not None:
        require_options(state, typed)
    config = None if request.label_config is None else read_label_config(request.label_config)
    choice = choose_labels(label_names(card, state), request.labels, config, request.data_key)
    pipeline = pipeline_for(
        card,
        request.threshold,
        state,
        explainer=request.explainer,
        explainer_options=typed,
        fitter=request.fitter,
        fitter_options=_typed(make_box_fitter(request.fitter, fitter_options), fitter_options),
        min_probability=request.min_probability,
        max_labels=request.max_labels,
        labels=request.labels,
        label_map=choice.label_map,
        normalisation=request.normalisation,
        min_mask_iou=request.min_mask_iou,
        min_crop_probability=request.min_crop_probability,
        **config_fields(choice.config),
    )
    limits = Limits.from_settings(settings)
    classifier = with_state(load_classifier(store, card), state)
    annotator = make_annotator(pipeline, classifier, limits)
    warnings = (*choice.warnings, *_unused_attributes(choice.config))
    return Batch(tuple(sources), annotator, choice.config, limits, root, config is not None, warnings)


def _unused_attributes(config: LabelConfig) -> Iterator[str]:
    if replace(config.attributes, labels_key=None) != Attributes():
        yield (
            "Of the controls' model_* attributes only model_labels is used here:"
            " for the others the options of the command decide."
        )


def find_model(settings: Settings, reference: str | None) -> Card:
    """Return the card of the model that was asked for, else of the service's.

    A network that the store does not have, but torchvision or timm does, is downloaded and registered.

    Raises:
        ModelNotFoundError: nobody has it, or none was asked for and none is active.
        WeightsUnavailableError: its weights cannot be downloaded.
    """
    store = open_store(settings)
    if not reference:
        return serving_model(settings, store, Ledger(settings.ledger_url))
    try:
        card = store.find(reference.rpartition("/")[2])
        if card.trained_from:  # only then the ledger is asked, which is made on first use
            card = find_card(store, Ledger(settings.ledger_url), reference.rpartition("/")[2])
        if "/" not in reference or card.architecture == canonical_architecture(reference):
            return card
    except ModelNotFoundError:
        if "@" in reference or not _is_published(reference):
            raise
    return register_published(store, reference)


def page_entry(one: Annotated, limits: Limits, truth: tuple[tuple[str, Box], ...] = ()) -> PageEntry:
    """Return the page's entry of a picture: a thumbnail with its evidence and true boxes, or its error."""
    if isinstance(one.outcome, HeatboxError) or one.source.path is None:
        error = one.outcome if isinstance(one.outcome, HeatboxError) else one.source.error
        return PageEntry(one.source.name, None, None, error)
    try:
        pixels = read_picture(one.source.path, limits, at_least=_THUMBNAIL_SIDE).pixels
    except PictureError:  # it was there when it was annotated; now it is counted, not shown
        pixels = None
    return PageEntry(one.source.name, pixels, one.outcome, truth=truth)


def _typed(plugin: object, options: dict[str, str]) -> dict[str, object]:
    """Return options with the plugin's types, so that `0.40` and `0.4` are one version."""
    return {name: getattr(plugin, name) for name in options}


def _is_published(name: str) -> bool:
    try:
        canonical_architecture(name)
    except ModelNotFoundError:
        return False
    return True
