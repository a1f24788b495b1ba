"""The scoreboard of an evaluation: figures per explainer and box fitter, as table, CSV and page.

Two baselines that look at nothing stand first: the whole picture, and the box in its centre with 70 % of each side.
What cannot beat them has learnt nothing about where things are.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from heatbox.annotation import Annotation, Region, TargetEvidence, region_id
from heatbox.boxes import Box, iou_matrix
from heatbox.import_file import atomic_text
from heatbox.metrics import BoxAccuracy, HeldOut, box_accuracy, held_out
from heatbox.page import PageEntry, PageFrame, Table, write_page
from heatbox_workers.classifier import squash
from heatbox_workers.evaluate import Evaluation, Seen
from heatbox_workers.evidence import fit_heatmap

__all__ = ["COLUMNS", "Score", "scores", "table", "write_csv", "write_html"]

BASELINES = (("whole picture", 1.0), ("centre box, 70 %", 0.7))
COLUMNS = (
    "explainer",
    "fitter",
    *(f"{kind} {level}" for kind in ("MaxBoxAcc", "half/half", "threshold") for level in (0.3, 0.5, 0.7)),
    "mean IoU",
    "half/half mean IoU",
    "threshold",
    "pointing game",
    "s / picture",
    "x forward",
)
NOTES = (
    "MaxBoxAcc: share of pairs (picture, class) whose box reaches this IoU, at the best threshold for it.",
    "half/half: thresholds chosen on one half of the pictures, the other half measured, and the other way round.",
    "mean IoU: at the best single threshold. pointing game: share of peaks inside the box.",
    "s / picture: median, all targets of the picture; x forward: to a plain forward pass of the classifier.",
    "A pair counts when its class has exactly one box of at least 1 % of the picture. Dashed: the true box.",
)


@dataclass(frozen=True)
class Score:
    """What one explainer with one box fitter reached; None where a figure has no meaning.

    Attributes:
        explainer: its name and options, or a baseline's.
        fitter: its name and options.
        oracle: MaxBoxAcc, thresholds chosen with the answers at hand.
        held_out: thresholds chosen on the other half of the pictures.
        mean_iou: the best that a single threshold reaches.
        threshold: where it does.
        pointing: share of peaks inside the box.
        seconds: median per picture.
        ratio: median, to a plain forward pass.
    """

    explainer: str
    fitter: str
    oracle: BoxAccuracy
    held_out: HeldOut
    mean_iou: float
    threshold: float | None = None
    pointing: float | None = None
    seconds: float | None = None
    ratio: float | None = None


def scores(found: Evaluation, seed: int = 0) -> list[Score]:
    """Return the baselines and then every explainer with every fitter, in the order they were asked for.

    Args:
        found: at least one pair was measured.
        seed: of the split into halves.
    """
    rows = np.array(found.rows)
    return [*_baselines(np.array(found.truths), rows, seed), *_contestants(found, rows, seed)]


def table(board: Sequence[Score]) -> list[tuple[str | float | None, ...]]:
    """Return one row per score under `COLUMNS`."""
    return [
        (
            score.explainer,
            score.fitter,
            *score.oracle.best,
            *score.held_out.accuracy,
            *(score.oracle.thresholds if score.threshold is not None else (None, None, None)),
            score.mean_iou,
            score.held_out.mean_iou,
            score.threshold,
            score.pointing,
            score.seconds,
            score.ratio,
        )
        for score in board
    ]


def write_csv(path: Path, board: Sequence[Score]) -> None:
    """Write the table, figures unrounded, nothing where a figure has no meaning.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(table(board))


def write_html(path: Path, found: Evaluation, board: Sequence[Score], model: str) -> None:
    """Write a page with the table and, for the pictures that were kept, every explainer's heatmap and box.

    Boxes come from each explainer's first fitter, at the threshold with the best mean IoU.

    Raises:
        OutputError: the page cannot be written.
    """
    title = f"{len(found.rows)} boxes in {len(set(found.rows))} pictures, {model}"
    refused = tuple(f"Left out: {error.sentence}" for error in found.refused.values())
    frame = PageFrame("Explainers against true boxes", title, _tables(board), (*NOTES, *refused))
    first: dict[str, Score] = {}
    for score in board:
        first.setdefault(score.explainer, score)
    write_page(path, (_entry(seen, found, first) for seen in found.seen), frame)


def _tables(board: Sequence[Score]) -> tuple[Table, ...]:
    """Return quality, and thresholds with cost: one table would be wider than a screen."""
    rows, cut = table(board), len(COLUMNS)
    quality = (0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 14)
    rest = (0, 1, *(column for column in range(2, cut) if column not in quality))
    return tuple(
        Table(
            title,
            tuple(COLUMNS[column] for column in columns),
            tuple(tuple(row[column] for column in columns) for row in rows),
        )
        for title, columns in (("Quality", quality), ("Thresholds and cost", rest))
    )


def _baselines(truths: NDArray[np.float64], rows: NDArray[np.integer], seed: int) -> Iterator[Score]:
    for name, part in BASELINES:
        near, far = (1 - part) / 2, (1 + part) / 2
        ious = iou_matrix(truths, np.array([[near, near, far, far]]))
        centred = ((truths[:, :2] <= 0.5) & (truths[:, 2:] > 0.5)).all(axis=1)  # noqa: PLR2004 - the centre
        oracle = box_accuracy(ious, (0.0,))
        pointing = None if part == 1 else float(centred.mean())  # a whole picture points nowhere
        yield Score(name, "", oracle, held_out(ious, rows, seed=seed), float(ious.mean()), pointing=pointing)


def _contestants(found: Evaluation, rows: NDArray[np.integer], seed: int) -> Iterator[Score]:
    thresholds = found.contest.thresholds
    for name, record in found.records.items():
        for fitter, collected in record.ious.items():
            ious = np.array(collected)
            means = ious.mean(axis=0)
            yield Score(
                explainer=name,
                fitter=fitter,
                oracle=box_accuracy(ious, thresholds),
                held_out=held_out(ious, rows, seed=seed),
                mean_iou=float(means.max()),
                threshold=thresholds[int(means.argmax())],
                pointing=float(np.mean(record.hits)),
                seconds=float(np.median(record.seconds)),
                ratio=float(np.median(record.ratios)),
            )


def _entry(seen: Seen, found: Evaluation, first: dict[str, Score]) -> PageEntry:
    """Return the page's entry of a picture; explainers stand where labels usually do."""
    sample, regions, evidence = seen.sample, [], []
    for name, half in seen.heatmaps.items():
        if name not in found.records:
            continue
        heatmap, score = half.astype(np.float32), first[name]
        fitter = replace(cast("Any", found.contest.fitters[score.fitter]), threshold=score.threshold)
        fit = fit_heatmap(fitter, heatmap, squash(seen.pixels, len(heatmap)))
        evidence.append(TargetEvidence(name, seen.class_name, seen.probability, heatmap, fit.mask))
        scale = np.array([sample.width, sample.height] * 2) / len(heatmap)
        for rank, corners in enumerate((fit.boxes[:1] * scale).tolist()):
            box = Box.clipped(tuple(corners), sample.width, sample.height)
            if box is not None:
                value = min(float(fit.scores[rank]), 1.0)
                regions.append(Region(region_id(name, name, rank, box), name, seen.class_name, box, value))
    truth = tuple((item.label, sample.truths[0].box) for item in evidence)
    annotation = Annotation(sample.width, sample.height, tuple(regions), tuple(evidence))
    return PageEntry(sample.path.name, seen.pixels, annotation, truth=truth)
