"""What a training learns from: corrected pictures and data sets on disk, each picture once, by its content.

A corrected picture goes before the same picture in a data set. What cannot be used is kept with its reason.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heatbox.boxes import Box
from heatbox.datasets.collecting import Fetch, collect, with_classes
from heatbox.datasets.examples import Example, Marked, RejectedExample, Split
from heatbox.datasets.stored import digest_of
from heatbox.errors import DatasetError, HeatboxError, TooLittleError
from heatbox.pictures.images import Limits, read_picture
from heatbox.trainings.order import TrainingOrder
from heatbox_workers.coco import category_names
from heatbox_workers.examples import Labelled, read_dataset

__all__ = ["Material", "class_names", "gather"]

_FEWEST = 2


@dataclass
class Material:
    """Pictures to learn from.

    Attributes:
        classes: names in their order, at least one.
        examples: each picture once.
        rejected: what cannot be used.
    """

    classes: tuple[str, ...]
    examples: list[Example] = field(default_factory=list)
    rejected: list[RejectedExample] = field(default_factory=list)

    def of(self, split: Split) -> list[Example]:
        """Return the examples of a part of the data set."""
        return [one for one in self.examples if one.split == split]

    @property
    def counts(self) -> dict[str, int]:
        """Pictures in each part."""
        return {split: len(self.of(split)) for split in ("train", "val", "test")}


def gather(
    order: TrainingOrder,
    classes: Sequence[str],
    fetch: Fetch,
    limits: Limits,
    seen: Callable[[Example], None] = lambda _: None,
) -> Material:
    """Read every picture once.

    Args:
        order: names the pictures.
        classes: names in their order.
        fetch: returns the file of a corrected picture.
        limits: for decoding.
        seen: told each example while its file is there for certain.

    Raises:
        DatasetError: a data set cannot be read.
        TooLittleError: fewer than two pictures are left.
    """
    material, known = Material(tuple(classes)), set[str]()
    for one in _items(order, classes, fetch, limits):
        if isinstance(one, RejectedExample):
            material.rejected.append(one)
        elif one.sha256 not in known:
            known.add(one.sha256)
            material.examples.append(one)
            seen(one)
    if len(material.of("train")) < _FEWEST:
        raise TooLittleError(
            f"There are {len(material.of('train'))} pictures to learn from ({len(material.rejected)} cannot be used).",
            "Correct more pictures, or give further ones with --data.",
        )
    return material


def class_names(data: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all classes of data sets: COCO's categories with boxes in their order, else folders.

    Raises:
        DatasetError: there is none.
    """
    names: dict[str, None] = {}
    for one in map(Path, data):
        if one.is_file() or (one / "annotations.json").is_file():
            names.update(dict.fromkeys(category_names(one)))
        elif one.is_dir():
            names.update(dict.fromkeys(sorted(folder.name for folder in one.iterdir() if folder.is_dir())))
    if not names:
        raise DatasetError(
            "The data name no classes.", "Give COCO annotations, or a folder with a folder for each class."
        )
    return tuple(names)


def _items(
    order: TrainingOrder, classes: Sequence[str], fetch: Fetch, limits: Limits
) -> Iterator[Example | RejectedExample]:
    yield from with_classes(collect(order.corrected, fetch, limits), classes)
    for folder in order.data:
        listed, _ = read_dataset(Path(folder), classes)
        for one in listed:
            yield _example(one, classes, limits, labels_only=order.labels_only)


def _example(
    one: Labelled, classes: Sequence[str], limits: Limits, *, labels_only: bool
) -> Example | RejectedExample:
    try:
        picture = read_picture(one.path, limits)
        sha256 = digest_of(one.path)
    except HeatboxError as error:
        return RejectedExample(one.path.name, error.code, error.sentence)
    if one.size not in (None, (picture.width, picture.height)):
        return RejectedExample(one.path.name, "size", "Its boxes were drawn on a picture of another size.")
    labels = tuple(sorted({classes[index] for index, _ in one.objects}))
    marked = [(classes[index], box) for index, box in one.objects]
    return Example(
        one.path,
        one.path.name,
        sha256,
        picture.width,
        picture.height,
        labels,
        None if labels_only or one.size is None else _boxes(marked),
    )


def _boxes(marked: Sequence[tuple[str, Box | None]]) -> tuple[Marked, ...]:
    return tuple(Marked(label, box) for label, box in marked if box is not None)
