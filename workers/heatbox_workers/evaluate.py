"""Measuring explainers and box fitters on true boxes: one pass over the pictures, every explainer on each.

Protocol (metrics in `heatbox.metrics`, pairs in `heatbox_workers.coco`): the target of a pair is the class with the
highest score among those that stand for its category; each fitter runs at every threshold of a grid, and the first of
its boxes counts. The fitter `largest` is the published protocol itself: the box of the largest component.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatbox.boxes import iou_matrix
from heatbox.contract import BoxFitter, Evidence, Explainer, Fit, PictureFitter
from heatbox.errors import (
    HeatboxError,
    PictureUnreadableError,
    PluginBrokenError,
    UnsupportedError,
)
from heatbox.heatmaps import connected_components
from heatbox.metrics import THRESHOLDS, pointing_hit
from heatbox.pictures.images import Limits, Picture, read_picture
from heatbox.pipeline import Normalisation
from heatbox_workers.classifier import TorchClassifier, squash
from heatbox_workers.coco import Sample
from heatbox_workers.evidence import fit_evidence, fit_heatmap, raise_for_evidence
from heatbox_workers.fitting import require_fitted

__all__ = ["Contest", "Evaluation", "Largest", "Record", "Seen", "evaluate"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Largest:
    """The box of the component with the most pixels (Choe et al., https://arxiv.org/abs/2001.07437).

    Attributes:
        threshold: the mask is heat above this part of the map's maximum.
    """

    threshold: float = 0.3

    def __call__(self, heatmap: NDArray[np.float32]) -> Fit:
        """Fit one box to a heatmap (H, W) in [0, 1], none to an empty mask."""
        mask = heatmap > self.threshold
        found = connected_components(mask)
        first = np.argsort(-found.areas, kind="stable")[:1]
        return Fit(mask, found.boxes[first].astype(np.float64), np.ones(len(first)))


@dataclass(frozen=True)
class Contest:
    """What competes, each by the name under which it is reported, and how maps become boxes.

    Attributes:
        explainers: at least one.
        fitters: at least one.
        normalisation: how heatmaps become [0, 1].
        thresholds: (T,) the grid on which each fitter runs.
        states: what explainers with `fit` have learnt about the classifier.
    """

    explainers: Mapping[str, Explainer]
    fitters: Mapping[str, BoxFitter | PictureFitter]
    normalisation: Normalisation = "max"
    thresholds: Sequence[float] = THRESHOLDS
    states: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass
class Record:
    """What one explainer did, row by row.

    Attributes:
        ious: by fitter, for each pair the IoU of the first box at each threshold (T,).
        hits: for each pair, whether the peak lies inside the box.
        seconds: for each picture, all its targets together.
        ratios: of these seconds to those of a plain forward pass of the same picture.
    """

    ious: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    hits: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """A picture, kept to be looked at: heatmaps (side, side) float16 of its first pair, by explainer."""

    sample: Sample
    pixels: NDArray[np.uint8]
    class_name: str
    probability: float
    heatmaps: Mapping[str, NDArray[np.float16]]


@dataclass
class Evaluation:
    """What was measured, and what could not be.

    Attributes:
        contest: what competed.
        records: by explainer; those that were refused are not among them.
        rows: for each pair the number of its picture.
        truths: for each pair the true box (4,), xyxy in parts of the picture's sides.
        failed: pictures that could not be used, with the reason.
        refused: explainers that do not support the network, or failed on a picture.
        seen: the first pictures.
    """

    contest: Contest
    records: dict[str, Record]
    rows: list[int] = field(default_factory=list)
    truths: list[NDArray[np.float64]] = field(default_factory=list)
    failed: list[tuple[str, HeatboxError]] = field(default_factory=list)
    refused: dict[str, HeatboxError] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def refuse(self, explainer: str, error: HeatboxError) -> None:
        """Take an explainer out of the contest: figures on fewer pictures would not compare."""
        self.refused[explainer] = error
        del self.records[explainer]


@dataclass(frozen=True)
class _Shot:
    """One picture in front of the classifier.

    Attributes:
        pixels: (H, W, 3) RGB, as the classifier sees it.
        images: (1, 3, H, W).
        targets: (M, 2), one row per pair.
        truth: (M, 4) xyxy in input pixels.
        probabilities: (C,).
        forward: seconds of a plain forward pass.
    """

    pixels: NDArray[np.uint8]
    images: Tensor
    targets: Tensor
    truth: NDArray[np.float64]
    probabilities: Tensor
    forward: float


def evaluate(
    classifier: TorchClassifier, samples: Iterable[Sample], contest: Contest, limits: Limits, show: int = 0
) -> Evaluation:
    """Measure every explainer with every fitter on the same pictures.

    Args:
        classifier: whose decisions are explained.
        samples: pictures with the boxes that are true.
        contest: what competes.
        limits: of the pictures that are read.
        show: of so many pictures the heatmaps are kept.
    """
    found = Evaluation(contest, {name: Record() for name in contest.explainers})
    for name, explainer in contest.explainers.items():
        supports: Callable[[TorchClassifier], str | None] | None = getattr(explainer, "supports", None)
        if supports and (reason := supports(classifier)):
            sentence = f"{name} cannot explain {classifier.card.id}: {reason}"
            found.refuse(name, UnsupportedError(sentence, "Choose another explainer."))
    for sample in samples:
        try:
            picture = read_picture(sample.path, limits, at_least=classifier.input_size)
            shot = _shot(classifier, sample, picture)
        except HeatboxError as error:
            found.failed.append((str(sample.path), error))
            continue
        heatmaps = {name: _measure(found, name, classifier, shot) for name in list(found.records)}
        number = found.rows[-1] + 1 if found.rows else 0
        found.rows += [number] * len(shot.truth)
        found.truths += list(shot.truth / classifier.input_size)
        if number < show:
            found.seen.append(_seen(classifier, sample, picture, shot, heatmaps))
    return found


def _shot(classifier: TorchClassifier, sample: Sample, picture: Picture) -> _Shot:
    """Put a picture in front of the classifier and time its plain forward pass.

    Raises:
        PictureUnreadableError: the picture is not of the size that its boxes were drawn on.
    """
    if (picture.width, picture.height) != (sample.width, sample.height):
        raise PictureUnreadableError(
            f"The picture is {picture.width} x {picture.height} pixels upright, its annotations say "
            f"{sample.width} x {sample.height}.",
            "Correct width, height and boxes in the annotations.",
        )
    images = classifier.preprocess([picture.pixels])
    forward, logits = _timed(classifier, lambda: classifier.logits(images))
    scores = logits[0].tolist()
    targets = [[0, max(truth.classes, key=scores.__getitem__)] for truth in sample.truths]
    corners = np.array([truth.box.as_xyxy() for truth in sample.truths])
    return _Shot(
        pixels=squash(picture.pixels, classifier.input_size),
        images=images,
        targets=torch.tensor(targets, device=images.device),
        truth=corners * classifier.input_size / np.array([sample.width, sample.height] * 2),
        probabilities=classifier.probabilities(logits)[0].cpu(),
        forward=forward,
    )


def _measure(
    found: Evaluation, name: str, classifier: TorchClassifier, shot: _Shot
) -> list[NDArray[np.float32]]:
    """Measure one explainer on one picture and return a heatmap per pair, none when it fails."""
    record, explainer, pairs = found.records[name], found.contest.explainers[name], len(shot.targets)
    try:
        informed = replace(classifier, state=found.contest.states.get(name, {}))
        seconds, evidence = _timed(classifier, lambda: _explain(name, explainer, informed, shot))
        raise_for_evidence(evidence, pairs, classifier.input_size)
        fitted = [_fit(found.contest, evidence, row, shot) for row in range(pairs)]
    except HeatboxError as error:
        found.refuse(name, error)
        return []
    record.seconds.append(seconds)
    record.ratios.append(seconds / shot.forward)
    for (heatmap, ious), truth in zip(fitted, shot.truth, strict=True):
        record.hits.append(pointing_hit(heatmap, truth[None]))
        for fitter, row in ious.items():
            record.ious.setdefault(fitter, []).append(row)
    return [heatmap for heatmap, _ in fitted]


def _explain(name: str, explainer: Explainer, classifier: TorchClassifier, shot: _Shot) -> Evidence:
    require_fitted(name, explainer, classifier)
    try:
        return explainer(classifier, shot.images, shot.targets)
    except HeatboxError:
        raise
    except Exception as error:  # a plugin may raise anything; it is told as that plugin's failure
        raise PluginBrokenError(
            f"{name} failed: {type(error).__name__}: {error}.", "Tell the plugin's authors."
        ) from error


def _fit(
    contest: Contest, evidence: Evidence, row: int, shot: _Shot
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """Return one pair's heatmap (side, side) and, by fitter, the IoU of the first box at each threshold (T,)."""
    ious = {}
    for name, fitter in contest.fitters.items():
        heatmap, fit = fit_evidence(evidence, row, fitter, contest.normalisation, shot.pixels)
        truth = shot.truth[row]
        if evidence.boxes is not None:  # ready boxes know no threshold
            ious[name] = np.full(len(contest.thresholds), _first_iou(fit, truth))
            continue
        steps = (replace(cast("Any", fitter), threshold=threshold) for threshold in contest.thresholds)
        ious[name] = np.array([_first_iou(fit_heatmap(step, heatmap, shot.pixels), truth) for step in steps])
    return heatmap, ious


def _first_iou(fit: Fit, truth: NDArray[np.float64]) -> float:
    return float(iou_matrix(fit.boxes[:1], truth[None])[0, 0]) if len(fit.boxes) else 0.0


def _seen(
    classifier: TorchClassifier,
    sample: Sample,
    picture: Picture,
    shot: _Shot,
    heatmaps: Mapping[str, Sequence[NDArray[np.float32]]],
) -> Seen:
    target = int(shot.targets[0, 1])
    kept = {name: maps[0].astype(np.float16) for name, maps in heatmaps.items() if maps}
    return Seen(sample, picture.pixels, classifier.labels[target], float(shot.probabilities[target]), kept)


def _timed(classifier: TorchClassifier, work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that work took, its result with it; an accelerator is waited for."""
    start = time.perf_counter()
    result = work()
    if classifier.device.type == "cuda":
        torch.cuda.synchronize(classifier.device)
    return time.perf_counter() - start, result
