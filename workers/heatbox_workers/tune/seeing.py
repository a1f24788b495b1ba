"""Seeing: pictures go through the network once; what every explainer makes of every target is kept for the fitters."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatbox.contract import Evidence
from heatbox.datasets.examples import Example, for_comparison
from heatbox.errors import HeatboxError, PictureUnreadableError
from heatbox.pictures.images import Limits, read_picture
from heatbox_workers.classifier import TorchClassifier, squash
from heatbox_workers.targets import Target
from heatbox_workers.ways import ReadyExplainer

__all__ = [
    "Boxes",
    "Heat",
    "Picture",
    "Seen",
    "batches",
    "doubles",
    "explain_batch",
    "fold_of",
    "look",
    "read_pictures",
]

_BATCH = 8
_READERS = 4
_COMPARED = 32  # targets by which two explainers are the same
_CLOSE = 5e-3

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """A picture that people have looked for boxes in.

    Attributes:
        square: (side, side, 3) RGB, as the classifier sees it.
        truths: (G, 4) true boxes by label, in input pixels.
        fold: of cross-validation.
        labels: what people said is in it.
        is_held_out: whether models are compared on it.
    """

    square: NDArray[np.uint8] = field(repr=False)
    truths: Mapping[str, Boxes]
    fold: int
    labels: tuple[str, ...] = ()
    is_held_out: bool = False


@dataclass(frozen=True)
class Heat:
    """What an explainer made of one target: a map (h, w) of any scale, or boxes (B, 4) that came ready."""

    heatmap: NDArray[np.float16] | None = None
    boxes: Boxes | None = None
    confidence: float | None = None


@dataclass
class Seen:
    """What came of all pictures.

    Attributes:
        ranked: by picture, every label with its most probable class, the most probable first.
        targets: by picture, by label: those that are explained.
        heats: by explainer's number, picture and label.
        broken: why explainers failed, by number.
        doubles: numbers of explainers that show the same as one before them.
    """

    ranked: list[list[Target]] = field(default_factory=list)
    targets: list[dict[str, Target]] = field(default_factory=list)
    heats: dict[tuple[int, int, str], Heat] = field(default_factory=dict)
    broken: dict[int, HeatboxError] = field(default_factory=dict)
    doubles: set[int] = field(default_factory=set)


def fold_of(sha256: str, folds: int) -> int:
    """Return the fold of a picture by the hash of its content; other digits of it than the data set's parts use."""
    return int(sha256[8:16], 16) % folds


def read_pictures(
    examples: Sequence[Example], side: int, folds: int, limits: Limits
) -> tuple[list[Picture], list[str]]:
    """Read pictures, in the order of their folds, and tell which cannot be read.

    Args:
        examples: with boxes.
        side: of the classifier's input in pixels.
        folds: of cross-validation.
        limits: of the pictures.
    """
    ordered = sorted(examples, key=lambda one: (fold_of(one.sha256, folds), one.sha256))
    compared = frozenset(one.sha256 for one in for_comparison(examples))
    how = partial(_read, side=side, folds=folds, limits=limits, compared=compared)
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(how, ordered))
    failed = [
        f"{one.name}: {found}"
        for one, found in zip(ordered, read, strict=True)
        if isinstance(found, HeatboxError)
    ]
    return [one for one in read if isinstance(one, Picture)], failed


def _read(
    example: Example, side: int, folds: int, limits: Limits, compared: Container[str]
) -> Picture | HeatboxError:
    try:
        picture = read_picture(example.path, limits, at_least=side)
    except HeatboxError as error:
        return error
    if (picture.width, picture.height) != (example.width, example.height):
        return PictureUnreadableError(
            f"The picture is {picture.width} x {picture.height} pixels upright, its boxes were drawn on "
            f"{example.width} x {example.height}.",
            "Correct width, height and boxes in the annotations.",
        )
    x, y = side / example.width, side / example.height
    truths: dict[str, list[tuple[float, ...]]] = {}
    for one in example.boxes or ():
        x1, y1, x2, y2 = one.box.as_xyxy()
        truths.setdefault(one.label, []).append((x1 * x, y1 * y, x2 * x, y2 * y))
    arrays = {label: np.array(boxes, dtype=np.float64) for label, boxes in truths.items()}
    return Picture(
        squash(picture.pixels, side),
        arrays,
        fold_of(example.sha256, folds),
        example.labels,
        example.sha256 in compared,
    )


def batches(pictures: Sequence[Picture]) -> Iterator[list[int]]:
    """Yield the places of pictures a few at a time, never of two folds at once."""
    for fold in sorted({one.fold for one in pictures}):
        places = [place for place, one in enumerate(pictures) if one.fold == fold]
        yield from (places[start : start + _BATCH] for start in range(0, len(places), _BATCH))


def look(  # noqa: PLR0913, PLR0917 - pictures, who looks at them, and for what
    pictures: Sequence[Picture],
    classifier: TorchClassifier,
    explainers: Mapping[int, ReadyExplainer],
    rank: Callable[[Tensor], list[Target]],
    want: Callable[[list[Target], Picture], list[Target]],
    tell: Callable[[int], object],
) -> Seen:
    """Let every explainer explain every target.

    Args:
        pictures: to look at.
        classifier: that says what is in them.
        explainers: by number, none that must be fitted first.
        rank: returns every label with its most probable class by a picture's probabilities (C,).
        want: returns which of them are explained in a picture.
        tell: told after every batch how many pictures it had.
    """
    seen = Seen()
    seen.ranked, seen.targets = [[] for _ in pictures], [{} for _ in pictures]
    watched = tuple(dict.fromkeys(layer for one in explainers.values() for layer in one.watched))
    for places in batches(pictures):
        images = classifier.preprocess([pictures[place].square for place in places])
        held = classifier.seen(images, watched)
        for place, row in zip(places, held.probabilities(held.logits(images)).cpu(), strict=True):
            seen.ranked[place] = rank(row)
            wanted = want(seen.ranked[place], pictures[place])
            seen.targets[place] = {one.label: one for one in wanted}
        for number, explainer in explainers.items():
            if number not in seen.broken:
                explain_batch(seen, number, explainer, held, images, places)
        tell(len(places))
    return seen


def explain_batch(  # noqa: PLR0913, PLR0917 - a batch, and who explains it
    seen: Seen,
    number: int,
    explainer: ReadyExplainer,
    classifier: TorchClassifier,
    images: Tensor,
    places: Sequence[int],
) -> None:
    """Keep what an explainer makes of a batch's targets, or why it failed."""
    rows = [(row, place, one) for row, place in enumerate(places) for one in seen.targets[place].values()]
    if not rows:
        return
    wanted = torch.tensor([(row, one.class_index) for row, _, one in rows], device=images.device)
    try:
        evidence = explainer(classifier, images, wanted)
    except HeatboxError as error:
        seen.broken[number] = error
        return
    for row, (_, place, one) in enumerate(rows):
        seen.heats[number, place, one.label] = _heat(evidence, row)


def _heat(evidence: Evidence, row: int) -> Heat:
    sure = None if evidence.confidences is None else float(evidence.confidences[row].clamp(0, 1))
    if evidence.boxes is not None:
        boxes = evidence.boxes[row].detach().cpu().numpy().astype(np.float64)
        return Heat(boxes=boxes, confidence=sure)
    maps = evidence.heatmaps if evidence.heatmaps is not None else evidence.masks
    raw = np.zeros((1, 1)) if maps is None else maps[row].detach().cpu().numpy().astype(np.float64)
    raw = np.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0)
    scale = max(float(np.abs(raw).max()), 1e-30)  # half floats have three digits at any scale
    return Heat((raw / scale).astype(np.float16), confidence=sure)


def doubles(seen: Seen, numbers: Sequence[int]) -> set[int]:
    """Return the explainers whose maps are those of one before them, as CAM's and Grad-CAM's are on many networks."""
    targets = [(place, label) for place, some in enumerate(seen.targets) for label in some][:_COMPARED]
    found: set[int] = set()
    for position, number in enumerate(numbers):
        before = [one for one in numbers[:position] if one not in found]
        if any(all(_same(seen, number, one, *target) for target in targets) for one in before):
            found.add(number)
    return found


def _same(seen: Seen, number: int, other: int, place: int, label: str) -> bool:
    one, two = (seen.heats.get((explainer, place, label)) for explainer in (number, other))
    if one is None or two is None or one.heatmap is None or two.heatmap is None:
        return False
    maps = [each.heatmap.clip(0).astype(np.float32) for each in (one, two) if each.heatmap is not None]
    if maps[0].shape != maps[1].shape:
        return False
    scaled = [each / max(float(each.max()), 1e-6) for each in maps]
    return bool(np.allclose(scaled[0], scaled[1], atol=_CLOSE))
