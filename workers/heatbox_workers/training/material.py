"""What a training learns from: corrected pictures and data sets on disk, each picture once, by its content.

A corrected picture goes before the same picture in a data set. What cannot be used is kept with its reason.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from heatbox.boxes import Box
from heatbox.contract import Head
from heatbox.datasets.collecting import LABEL_UNKNOWN, Fetch, collect, with_classes
from heatbox.datasets.examples import Example, Marked, RejectedExample, Split
from heatbox.datasets.stored import digest_of
from heatbox.errors import DatasetError, HeatboxError, TooLittleError
from heatbox.models import Card
from heatbox.pictures.images import Limits, read_picture
from heatbox.trainings.order import HeadWish, TrainingOrder
from heatbox_workers.coco import category_names
from heatbox_workers.examples import Labelled, read_dataset

__all__ = ["Material", "as_labelled", "choose_head", "class_names", "gather", "held"]

_FEWEST = 2
_NAMED = 5


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

    def usable(self, head: Head) -> list[Example]:
        """Return the examples that a head can learn from, and choose its epoch by; the others are rejected."""
        found = []
        for one in self.of("train") + self.of("val"):
            if reason := _unusable(one, head):
                self.rejected.append(RejectedExample(one.name, "head", reason, one.task))
            else:
                found.append(one)
        return found


def gather(
    order: TrainingOrder,
    classes: Sequence[str],
    fetch: Fetch,
    limits: Limits,
    hold: Callable[[Example], Example] = lambda example: example,
) -> Material:
    """Read every picture once.

    Args:
        order: names the pictures.
        classes: names in their order.
        fetch: returns the file of a corrected picture.
        limits: for decoding.
        hold: given each example while its file is there for certain; returns it, perhaps with a file that stays.

    Raises:
        DatasetError: a data set cannot be read.
        TooLittleError: fewer than two pictures are left, or none shows any of the classes.
    """
    material, known = Material(tuple(classes)), set[str]()
    for one in _items(order, classes, fetch, limits):
        if isinstance(one, RejectedExample):
            material.rejected.append(one)
        elif one.sha256 not in known:
            known.add(one.sha256)
            material.examples.append(hold(one))
    if len(material.of("train")) < _FEWEST:
        raise TooLittleError(
            f"There are {len(material.of('train'))} pictures to learn from ({len(material.rejected)} cannot be used).",
            "Correct more pictures, or give further ones with --data.",
        )
    if not any(one.labels for one in material.of("train")):
        named = ", ".join(classes[:_NAMED]) + (", ..." if len(classes) > _NAMED else "")
        raise TooLittleError(
            f"None of the {len(material.of('train'))} pictures to learn from shows {named}.",
            "Compare --label with the labels of the corrections and of --data.",
        )
    return material


def class_names(data: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all classes of data sets: COCO's categories with boxes in their order, else folders.

    Raises:
        DatasetError: there is none, or no such data set.
    """
    names: dict[str, None] = {}
    for one in map(Path, data):
        if one.is_file() or (one / "annotations.json").is_file():
            names.update(dict.fromkeys(category_names(one)))
        else:
            names.update(dict.fromkeys(read_dataset(one, ())[1]))  # of no classes, all names are unknown
    if not names:
        raise DatasetError(
            "The data name no classes.", "Give COCO annotations, or a folder with a folder for each class."
        )
    return tuple(names)


def choose_head(wish: HeadWish, base: Card, material: Material) -> Head:
    """Return the head that is wished; `keep` is the base's where it suits the pictures, else what these need.

    A base that knows the classes keeps its head, and an embedding head stays one while there is one label a picture.
    """
    if wish != "keep":
        return wish
    several = any(len(one.labels) != 1 for one in material.examples)
    if set(material.classes) <= set(base.labels) or (base.head == "arcface" and not several):
        return base.head
    return "sigmoid" if several else "softmax"


def held(example: Example, folder: Path) -> Example:
    """Return the example with its file under a second name, so that it stays when the cache makes room for others."""
    path = folder / f"{example.sha256}{example.path.suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(example.path)
    except FileExistsError:
        pass  # of the process that was at it before
    except OSError:  # a file system without links, or another one
        return example
    return replace(example, path=path)


def as_labelled(example: Example, classes: Sequence[str]) -> Labelled:
    """Return the example in the form that explainers learn from."""
    boxes = example.boxes or ()
    placed = tuple((classes.index(one.label), one.box) for one in boxes)
    somewhere = set(example.labels) - {one.label for one in boxes}
    return Labelled(
        example.path,
        (*placed, *((classes.index(label), None) for label in sorted(somewhere))),
        (example.width, example.height),
    )


def _unusable(example: Example, head: Head) -> str:
    """Return why a head cannot learn from a picture: one of nothing is of use only where classes are independent."""
    if head == "sigmoid" or len(example.labels) == 1:
        return ""
    if not example.labels:
        return f"It shows nothing, which a {head} head cannot learn."
    return "It shows several things, which an arcface head cannot learn." if head == "arcface" else ""


def _items(
    order: TrainingOrder, classes: Sequence[str], fetch: Fetch, limits: Limits
) -> Iterator[Example | RejectedExample]:
    yield from with_classes(collect(order.corrected, fetch, limits), classes)
    for folder in map(Path, order.data):
        listed, unknown = read_dataset(folder, classes)
        if unknown:
            names = ", ".join(map(repr, unknown))
            yield RejectedExample(folder.name, LABEL_UNKNOWN, f"Not among the classes: {names}.")
        for one in listed:
            yield _example(one, classes, limits, labels_only=order.labels_only)


def _example(
    one: Labelled, classes: Sequence[str], limits: Limits, *, labels_only: bool
) -> Example | RejectedExample:
    if one.size is None and not one.objects:  # in no folder of a class; in COCO it is a picture of nothing
        return RejectedExample(one.path.name, "unlabelled", "Nobody said which of the classes it shows.")
    try:
        picture = read_picture(one.path, limits)
        sha256 = digest_of(one.path)
    except HeatboxError as error:
        return RejectedExample(one.path.name, error.code, error.sentence)
    has_boxes = one.size is not None and not labels_only
    if has_boxes and one.size != (picture.width, picture.height):
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
        _boxes(marked) if has_boxes else None,
    )


def _boxes(marked: Sequence[tuple[str, Box | None]]) -> tuple[Marked, ...]:
    return tuple(Marked(label, box) for label, box in marked if box is not None)
