"""Annotating: pictures -> classifier -> explainer -> heatmaps -> boxes -> regions, in batches, one bad picture alone.

The same code serves `heatbox annotate`, the queue worker and the demo.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from heatbox.annotation import Annotation, Region, TargetEvidence, region_id
from heatbox.boxes import Box
from heatbox.contract import BoxFitter, Evidence, Explainer, Fit, PictureFitter
from heatbox.errors import (
    EvidenceError,
    HeatboxError,
    OptionError,
    PluginBrokenError,
    UnsupportedError,
)
from heatbox.pictures.images import Limits, Picture, read_picture
from heatbox.pipeline import Pipeline
from heatbox.plugins import make_box_fitter, make_explainer
from heatbox_workers.classifier import TorchClassifier, squash
from heatbox_workers.evidence import fit_evidence, raise_for_evidence
from heatbox_workers.features import find_module
from heatbox_workers.fitting import require_fitted
from heatbox_workers.self_check import check_crops, check_masks
from heatbox_workers.targets import Target, choose_targets, classes_by_label

__all__ = ["Annotator", "make_annotator"]

Outcome = Annotation | HeatboxError


def make_annotator(pipeline: Pipeline, classifier: TorchClassifier, limits: Limits) -> "Annotator":
    """Make what a pipeline names and check that its parts fit together.

    Args:
        pipeline: names the explainer and the fitter.
        classifier: the pipeline's model, loaded, with the state that the pipeline names.
        limits: of the pictures that are read.

    Raises:
        PluginError: the explainer or the fitter cannot be used, does not support this network, or has not been fitted.
        LayerNotFoundError: an option of the explainer names a layer that the network does not have.
        LabelUnknownError: a label was asked for that the classifier does not know.
    """
    explainer = make_explainer(pipeline.explainer, pipeline.explainer_options)
    suited = getattr(explainer, "box_threshold", None) or classifier.card.box_threshold
    default = {} if suited is None else {"threshold": suited}
    fitter = make_box_fitter(pipeline.fitter, {**default, **pipeline.fitter_options})
    supports: Callable[[TorchClassifier], str | None] | None = getattr(explainer, "supports", None)
    reason = supports(classifier) if supports else None
    if reason:
        raise UnsupportedError(
            f"{pipeline.explainer} cannot explain {pipeline.model}: {reason}", "Choose another explainer."
        )
    watches: Callable[[TorchClassifier], Sequence[str]] | None = getattr(explainer, "watches", None)
    watched = tuple(watches(classifier)) if watches else ()
    for layer in (getattr(explainer, "layer", "auto"), *watched):
        if isinstance(layer, str) and layer != "auto":
            find_module(classifier.network, layer)
    require_fitted(pipeline.explainer, explainer, classifier)
    if pipeline.own_label and pipeline.min_crop_probability:
        raise OptionError(
            f"No class of the model is {pipeline.own_label!r}, so crops cannot be classified again.",
            "Leave --min-crop-probability away; --min-mask-iou works.",
        )
    known = classes_by_label(pipeline, _names(pipeline, classifier))
    return Annotator(pipeline, classifier, explainer, fitter, known, limits, watched)


@dataclass(frozen=True)
class Annotator:
    """A pipeline made ready: everything loaded, nothing left to look up."""

    pipeline: Pipeline
    classifier: TorchClassifier
    explainer: Explainer
    fitter: BoxFitter | PictureFitter
    known: dict[str, list[int]]
    limits: Limits
    watched: tuple[str, ...] = ()
    batch_size: int = 8

    def annotate(self, paths: Iterable[Path]) -> Iterator[Outcome]:
        """Yield one annotation or error per file, in order; files are decoded while the network works."""
        for pictures in _read_ahead(self._read, paths, self.batch_size):
            yield from self.annotate_pictures(pictures)

    def annotate_pictures(self, pictures: Sequence[Picture | HeatboxError]) -> list[Outcome]:
        """Return one annotation or error per picture; errors that come in go out again in their place."""
        outcomes: list[Outcome] = [picture for picture in pictures if isinstance(picture, HeatboxError)]
        good = [picture for picture in pictures if isinstance(picture, Picture)]
        if not good:
            return outcomes
        found = iter(self._explain(good))
        return [picture if isinstance(picture, HeatboxError) else next(found) for picture in pictures]

    def _read(self, path: Path) -> Picture | HeatboxError:
        try:
            return read_picture(path, self.limits, at_least=self.classifier.input_size)
        except HeatboxError as error:
            return error

    def _explain(self, pictures: Sequence[Picture]) -> list[Outcome]:
        images = self.classifier.preprocess([picture.pixels for picture in pictures])
        try:
            seen = self.classifier.seen(images, self.watched)
        except HeatboxError as error:  # a layer that is there and puts out no map
            return [error for _ in pictures]
        if self.pipeline.own_label:  # one target a picture; how sure it is, the evidence tells
            probabilities = torch.ones(len(pictures), 1)
        else:
            probabilities = self.classifier.probabilities(seen.logits(images)).cpu()
        chosen = [choose_targets(row, self.known, self.pipeline) for row in probabilities]
        rows = [(index, target.class_index) for index, targets in enumerate(chosen) for target in targets]
        if not rows:
            return [Annotation(picture.width, picture.height, ()) for picture in pictures]
        try:
            evidence = self._evidence(seen, images, torch.tensor(rows, device=images.device))
        except HeatboxError as error:
            if len(pictures) == 1:
                return [error]
            return [outcome for picture in pictures for outcome in self._explain([picture])]
        row = 0
        outcomes: list[Outcome] = []
        for picture, targets in zip(pictures, chosen, strict=True):
            outcomes.append(self._fit(picture, targets, evidence, row))
            row += len(targets)
        return self._check_crops(pictures, outcomes)

    def _evidence(self, classifier: TorchClassifier, images: Tensor, targets: Tensor) -> Evidence:
        try:
            evidence = self.explainer(classifier, images, targets)
        except HeatboxError:
            raise
        except Exception as error:  # a plugin may raise anything; it is told as that plugin's failure
            raise PluginBrokenError(
                f"{self.pipeline.explainer} failed: {type(error).__name__}: {error}.",
                "Tell the plugin's authors.",
            ) from error
        return raise_for_evidence(evidence, len(targets), classifier.input_size)

    def _fit(self, picture: Picture, targets: Sequence[Target], evidence: Evidence, row: int) -> Outcome:
        regions: list[Region] = []
        kept: list[TargetEvidence] = []
        pixels = squash(picture.pixels, self.classifier.input_size)
        for offset, chosen in enumerate(targets):
            target = self._confident(chosen, evidence, row + offset)
            if target is None:
                continue
            try:
                heatmap, fit = fit_evidence(
                    evidence, row + offset, self.fitter, self.pipeline.normalisation, pixels
                )
            except EvidenceError as error:
                return error
            name = _names(self.pipeline, self.classifier)[target.class_index]
            kept.append(TargetEvidence(target.label, name, target.probability, heatmap, fit.mask))
            regions += self._regions(picture, target, name, fit)
        regions.sort(key=lambda region: (-region.score, region.label, region.box))
        annotation = Annotation(picture.width, picture.height, tuple(regions), tuple(kept))
        if evidence.boxes is not None:  # they came ready: there is no mask that they were fitted to
            return annotation
        return check_masks(annotation, self.pipeline.min_mask_iou)

    def _confident(self, target: Target, evidence: Evidence, row: int) -> Target | None:
        """Return the target with the evidence's own confidence, where it has one; None where that is too little."""
        if evidence.confidences is None:
            return target
        sure = float(evidence.confidences[row])
        if sure < self.pipeline.min_probability and not self.pipeline.labels:
            return None
        return replace(target, probability=min(max(sure, 0.0), 1.0))

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
        for rank, (corners, score) in enumerate(zip(fit.boxes.tolist(), fit.scores.tolist(), strict=True)):
            x1, y1, x2, y2 = corners
            box = Box.clipped((x1 * x, y1 * y, x2 * x, y2 * y), picture.width, picture.height)
            if box is not None:
                identity = region_id(self.pipeline.version, target.label, rank, box)
                yield Region(
                    identity, target.label, name, box, min(max(target.probability * score, 0.0), 1.0)
                )


def _names(pipeline: Pipeline, classifier: TorchClassifier) -> tuple[str, ...]:
    """Return what class indices mean: the classifier's labels, or the explainer's own."""
    return (pipeline.own_label,) if pipeline.own_label else classifier.labels


def _read_ahead(
    read: Callable[[Path], Picture | HeatboxError], paths: Iterable[Path], size: int
) -> Iterator[list[Picture | HeatboxError]]:
    """Yield batches of read pictures in order while two threads read the next batch."""
    remaining = iter(paths)
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode") as pool:
        ahead: deque[list[Future[Picture | HeatboxError]]] = deque()
        while True:
            while len(ahead) < 2 and (batch := list(islice(remaining, size))):  # noqa: PLR2004 - one read, one used
                ahead.append([pool.submit(read, path) for path in batch])
            if not ahead:
                return
            yield [future.result() for future in ahead.popleft()]
