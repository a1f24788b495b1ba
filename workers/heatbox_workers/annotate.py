"""Annotating: pictures -> classifier -> explainer -> heatmaps -> boxes -> regions, in batches, one bad picture alone.

The same code serves `heatbox annotate`, the queue worker and the demo.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heatbox.annotation import Annotation, Found, Region, TargetEvidence, region_id
from heatbox.boxes import Box
from heatbox.contract import Evidence, Explainer, Fit
from heatbox.errors import EvidenceError, HeatboxError, InternalError, OptionError
from heatbox.logs import place_of
from heatbox.masks import Mask
from heatbox.pictures.images import Limits, Picture, read_picture
from heatbox.pictures.wanted import Wanted
from heatbox.pipeline import Pipeline
from heatbox_workers.classifier import TorchClassifier, squash
from heatbox_workers.evidence import fit_evidence
from heatbox_workers.read_ahead import read_ahead
from heatbox_workers.self_check import check_crops, check_masks
from heatbox_workers.targets import Target, absence, choose_targets, classes_by_label
from heatbox_workers.views import View, needed_side, view_of
from heatbox_workers.ways import (
    Explained,
    Fitter,
    ReadyExplainer,
    explain,
    ready_explainer,
    ready_fitter,
    ready_ways,
)

__all__ = ["Annotator", "make_annotator"]

Outcome = Annotation | HeatboxError

log = logging.getLogger(__name__)

_OF_MASKS = frozenset({"brushlabels", "polygonlabels"})


def make_annotator(
    pipeline: Pipeline,
    classifier: TorchClassifier,
    limits: Limits,
    states: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> "Annotator":
    """Make what a pipeline names and check that its parts fit together.

    Args:
        pipeline: names the explainer and the fitter, also those of single labels.
        classifier: the pipeline's model, loaded, with the state that the pipeline names.
        limits: of the pictures that are read.
        states: what explainers of single labels have learnt, by the ids that their ways name.

    Raises:
        PluginError: an explainer or a fitter cannot be used, does not support this network, or has not been fitted.
        LayerNotFoundError: an option of an explainer names a layer that the network does not have.
        LabelUnknownError: a label was asked for that the classifier does not know.
    """
    own = ready_explainer(pipeline.own_way, classifier, classifier.state)
    if pipeline.own_label and pipeline.min_crop_probability:
        raise OptionError(
            f"No class of the model is {pipeline.own_label!r}, so crops cannot be classified again.",
            "Leave --min-crop-probability away; --min-mask-iou works.",
        )
    ways = ready_ways(pipeline, classifier, states or {})
    return Annotator(
        pipeline,
        classifier,
        own.explainer,
        ready_fitter(pipeline.own_way, own.explainer, classifier),
        classes_by_label(pipeline, _names(pipeline, classifier)),
        limits,
        tuple(dict.fromkeys((*own.watched, *ways.watched))),
        own_fitters=ways.fitters,
        own_explainers=ways.explainers,
    )


@dataclass(frozen=True)
class Annotator:
    """A pipeline made ready: everything loaded, nothing left to look up."""

    pipeline: Pipeline
    classifier: TorchClassifier
    explainer: Explainer
    fitter: Fitter
    known: dict[str, list[int]]
    limits: Limits
    watched: tuple[str, ...] = ()
    batch_size: int = 8
    own_fitters: Mapping[str, Fitter] = field(default_factory=dict)
    own_explainers: Mapping[str, ReadyExplainer] = field(default_factory=dict)

    def annotate(self, paths: Iterable[Path]) -> Iterator[Outcome]:
        """Yield one annotation or error per file, in order; files are decoded while the network works."""
        return self.annotate_wanted((Wanted(str(path)) for path in paths), lambda one: Path(one.address))

    def annotate_wanted(
        self,
        wanted: Iterable[Wanted],
        fetch: Callable[[Wanted], Path],
        waited: Callable[[float], object] = lambda _: None,
    ) -> Generator[Outcome, None, None]:
        """Yield one annotation or error per picture, in order; others are fetched and decoded meanwhile.

        Who leaves early, by `close`, waits for no picture that is being fetched.

        Args:
            wanted: pictures with what is known about them.
            fetch: returns the file, or raises HeatboxError; called in threads.
            waited: called with the seconds for which each batch was waited for until it was read.
        """
        for views in read_ahead(partial(self._read, fetch), wanted, self.batch_size, waited):
            good = [view for view in views if isinstance(view, View)]
            found = iter(self._annotate(good))
            yield from [view if isinstance(view, HeatboxError) else next(found) for view in views]

    def _read(self, fetch: Callable[[Wanted], Path], wanted: Wanted) -> View | HeatboxError:
        side = needed_side(wanted, self.classifier.input_size)
        try:
            return view_of(read_picture(fetch(wanted), self.limits, at_least=side), wanted)
        except HeatboxError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an edge: whatever is in a task or a file costs that picture alone
            log.error("a picture failed: %s", place_of(error))  # noqa: TRY400 - its text may show an address
            return InternalError("The picture could not be read.", "The log of the worker says where.")

    def _annotate(self, views: Sequence[View]) -> list[Outcome]:
        outcomes = self._explain(views) if views else []
        return [
            view.placed(outcome, self.pipeline.version) if isinstance(outcome, Annotation) else outcome
            for view, outcome in zip(views, outcomes, strict=True)
        ]

    def _explain(self, views: Sequence[View]) -> list[Outcome]:
        pictures = [view.picture for view in views]
        images = self.classifier.preprocess([picture.pixels for picture in pictures])
        try:
            seen = self.classifier.seen(images, self.watched)
        except HeatboxError as error:  # a layer that is there and puts out no map
            return [error for _ in views]
        if self.pipeline.own_label:  # one target a picture; how sure it is, the evidence tells
            probabilities = torch.ones(len(views), 1)
        else:
            probabilities = self.classifier.probabilities(seen.logits(images)).cpu()
        chosen = [
            choose_targets(row, self.known, self.pipeline, view.wanted.labels)
            for row, view in zip(probabilities, views, strict=True)
        ]
        rows = [
            (index, one.class_index, one.label) for index, targets in enumerate(chosen) for one in targets
        ]
        own = ReadyExplainer(self.pipeline.explainer, self.explainer, self.watched, self.classifier.state)
        try:
            explained = iter(explain(own, self.own_explainers, seen, images, rows))
        except HeatboxError as error:
            if len(views) == 1:
                return [error]
            return [outcome for view in views for outcome in self._explain([view])]
        outcomes: list[Outcome] = []
        for view, targets, likely in zip(views, chosen, probabilities, strict=True):
            if targets:
                outcomes.append(self._fit(view, [(one, next(explained)) for one in targets]))
            else:
                nothing = absence(likely, self.known, self.pipeline)
                outcomes.append(Annotation(view.picture.width, view.picture.height, (), absence=nothing))
        return self._check_crops(pictures, outcomes)

    def _fit(self, view: View, targets: Sequence[tuple[Target, Explained]]) -> Outcome:
        picture = view.picture
        asked = bool(self.pipeline.labels) or view.wanted.labels is not None
        regions: list[Region] = []
        kept: list[TargetEvidence] = []
        doubts: list[float] = []
        drawn: set[str] = set()
        pixels = squash(picture.pixels, self.classifier.input_size)
        for chosen, explained in targets:
            evidence, row = explained.evidence, explained.row
            target = _confident(chosen, evidence, row)
            least = self.pipeline.min_probability_of(target.label)
            if evidence.confidences is not None and target.probability < least and not asked:
                doubts.append(1 - target.probability / least)
                continue
            fitter = self.own_fitters.get(target.label, self.fitter)
            try:
                heatmap, fit = fit_evidence(
                    evidence, row, fitter, self.pipeline.normalisation, pixels, view.window
                )
            except EvidenceError as error:
                return error
            name = _names(self.pipeline, self.classifier)[target.class_index]
            kept.append(TargetEvidence(target.label, name, target.probability, heatmap, fit.mask))
            drawn |= set() if evidence.boxes is None else {target.label}
            regions += self._regions(picture, target, name, fit)
        regions.sort(key=lambda region: (-region.score, region.label, region.box))
        found = tuple(Found(one.label, one.class_name, one.probability) for one in kept)
        nothing = min(doubts, default=None) if not kept else None
        annotation = Annotation(
            picture.width, picture.height, tuple(regions), tuple(kept), found=found, absence=nothing
        )
        return check_masks(annotation, self.pipeline.min_mask_iou, drawn)

    def _check_crops(self, pictures: Sequence[Picture], outcomes: Sequence[Outcome]) -> list[Outcome]:
        pairs = [
            (picture, outcome)
            for picture, outcome in zip(pictures, outcomes, strict=True)
            if isinstance(outcome, Annotation)
        ]
        limit = self.pipeline.min_crop_probability
        checked = iter(check_crops(pairs, self.classifier, self.known, limit))
        return [next(checked) if isinstance(outcome, Annotation) else outcome for outcome in outcomes]

    def _regions(self, picture: Picture, target: Target, name: str, fit: Fit) -> Iterator[Region]:
        side = self.classifier.input_size
        x, y = picture.width / side, picture.height / side
        own = dict(self.pipeline.label_ways).get(target.label)
        explainer = own.explainer if own else ""
        for rank, (corners, fitted) in enumerate(zip(fit.boxes.tolist(), fit.scores.tolist(), strict=True)):
            x1, y1, x2, y2 = corners
            box = Box.clipped((x1 * x, y1 * y, x2 * x, y2 * y), picture.width, picture.height)
            if box is not None:
                identity = region_id(self.pipeline.version, target.label, rank, box)
                raw = min(max(target.probability * fitted, 0.0), 1.0)
                score, raw_score = (self._calibrated(raw), raw) if self.pipeline.calibration else (raw, None)
                mask = self._mask(fit, corners) if set(self.pipeline.kinds) & _OF_MASKS else None
                yield Region(identity, target.label, name, box, score, mask, raw_score, explainer)

    def _calibrated(self, raw: float) -> float:
        """Return the share of boxes with such a score that people kept."""
        scores, shares = zip(*self.pipeline.calibration, strict=True)
        return float(np.interp(raw, scores, shares))

    @staticmethod
    def _mask(fit: Fit, corners: Sequence[float]) -> Mask:
        """Return the box's part of the mask."""
        x1, y1, x2, y2 = (round(side) for side in corners)
        part = np.zeros_like(fit.mask)
        part[max(y1, 0) : y2, max(x1, 0) : x2] = fit.mask[max(y1, 0) : y2, max(x1, 0) : x2]
        return Mask.of(part)


def _confident(target: Target, evidence: Evidence, row: int) -> Target:
    """Return the target with the evidence's own confidence, where it has one."""
    if evidence.confidences is None:
        return target
    return replace(target, probability=min(max(float(evidence.confidences[row]), 0.0), 1.0))


def _names(pipeline: Pipeline, classifier: TorchClassifier) -> tuple[str, ...]:
    """Return what class indices mean: the classifier's labels, or the explainer's own."""
    return (pipeline.own_label,) if pipeline.own_label else classifier.labels
