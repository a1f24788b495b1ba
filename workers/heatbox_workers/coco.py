"""Reading true boxes: COCO annotations to (picture, class) pairs that box quality can be measured on.

Format: https://cocodataset.org/#format-data (images, categories, annotations; bbox is x, y, width, height in pixels).
A category may carry `imagenet_indices`, the ImageNet classes that stand for it (null: none does); it is believed
where the classifier has ImageNet's 1000 classes. Any other category is looked up by its name, by the rules of
`heatbox.labelling.mapping`.

A pair counts when its class has exactly one box in the picture, of at least 1 % of the picture's area.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from heatbox.boxes import Box
from heatbox.errors import DatasetError, LabelUnknownError
from heatbox.labelling.mapping import map_labels
from heatbox.labelling.tags import LabelTag

__all__ = ["Sample", "Truth", "category_names", "classes_by_name", "read_boxes", "read_coco"]

IMAGENET_CLASSES = 1000
SMALLEST = 0.01  # of the picture's area
_REMEDY = "Give a folder with images/ and annotations.json (COCO), or a COCO file with --images."


@dataclass(frozen=True)
class Truth:
    """A box in a picture.

    Attributes:
        category: name in the data set.
        classes: indices of the classifier's classes that stand for it, at least one.
        box: pixels of the picture.
    """

    category: str
    classes: tuple[int, ...]
    box: Box


@dataclass(frozen=True)
class Sample:
    """A picture with what is measured on it; width and height in pixels as the annotations state them."""

    path: Path
    width: int
    height: int
    truths: tuple[Truth, ...]


class _Image(BaseModel):
    id: int
    file_name: str
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class _Category(BaseModel):
    id: int
    name: str
    imagenet_indices: list[int] | None = None


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]


class _Coco(BaseModel):
    images: Annotated[list[_Image], Field(min_length=1)]
    categories: Annotated[list[_Category], Field(min_length=1)]
    annotations: list[_Annotation]


def read_coco(
    source: Path, labels: Sequence[str], images: Path | None = None
) -> tuple[list[Sample], list[str]]:
    """Read the pairs of a data set that count, and find the classes of its categories.

    Args:
        source: a folder with `images/` and `annotations.json`, or a COCO file.
        labels: class names of the classifier.
        images: folder of the pictures; needed when the source is a file without `images/` beside it.

    Returns:
        The pictures that have at least one pair, in the file's order, and the names of categories without a class.

    Raises:
        DatasetError: the file is missing or is not COCO, or there is no folder of pictures.
        LabelAmbiguousError: two categories claim one class.
    """
    samples, unmapped = read_boxes(source, labels, images)
    counting = (replace(sample, truths=tuple(_pairs(sample))) for sample in samples)
    return [sample for sample in counting if sample.truths], unmapped


def read_boxes(
    source: Path, labels: Sequence[str], images: Path | None = None
) -> tuple[list[Sample], list[str]]:
    """Read every picture of a data set with all boxes of categories that have a class; as `read_coco` otherwise."""
    file = source / "annotations.json" if source.is_dir() else source
    folder = images or file.parent / "images"
    coco = _parse(file)
    if not folder.is_dir():
        raise DatasetError(f"There is no folder of pictures {folder}.", _REMEDY)
    classes = _classes(coco.categories, labels)
    boxes: dict[int, list[_Annotation]] = defaultdict(list)
    for annotation in coco.annotations:
        boxes[annotation.image_id].append(annotation)
    names = {category.id: category.name for category in coco.categories}
    samples = [
        Sample(
            folder / image.file_name,
            image.width,
            image.height,
            tuple(_truths(image, boxes[image.id], names, classes)),
        )
        for image in coco.images
    ]
    return samples, [category.name for category in coco.categories if not classes[category.id]]


def category_names(source: Path) -> list[str]:
    """Return the names of the categories that have boxes, in the file's order; raises as `read_boxes` does."""
    coco = _parse(source / "annotations.json" if source.is_dir() else source)
    used = {annotation.category_id for annotation in coco.annotations}
    return [category.name for category in coco.categories if category.id in used]


def _parse(file: Path) -> _Coco:
    try:
        return _Coco.model_validate_json(file.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DatasetError(f"{file} cannot be read: {reason}.", _REMEDY) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DatasetError(f"{file} is not COCO: {where or 'file'}: {first['msg']}.", _REMEDY) from error


def _classes(categories: Sequence[_Category], labels: Sequence[str]) -> dict[int, tuple[int, ...]]:
    """Return the class indices of each category, none for those that no class stands for."""
    imagenet = len(labels) == IMAGENET_CLASSES
    named = {one.id for one in categories if imagenet and "imagenet_indices" in one.model_fields_set}
    by_name = classes_by_name([one.name for one in categories if one.id not in named], labels)
    return {
        one.id: tuple(i for i in one.imagenet_indices or () if 0 <= i < IMAGENET_CLASSES)
        if one.id in named
        else by_name.get(one.name, ())
        for one in categories
    }


def classes_by_name(names: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the class indices of each name, by `heatbox.labelling.mapping`; none for a name without a class."""
    try:
        pairs = map_labels(labels, [LabelTag(name) for name in names]).pairs if names else ()
    except LabelUnknownError:  # no category has a class: each is reported by its name
        pairs = ()
    index = {name: position for position, name in enumerate(labels)}
    return {name: tuple(sorted(index[found] for found, label in pairs if label == name)) for name in names}


def _truths(
    image: _Image,
    annotations: Sequence[_Annotation],
    names: Mapping[int, str],
    classes: Mapping[int, tuple[int, ...]],
) -> Iterator[Truth]:
    """Yield the boxes of a picture whose category has a class."""
    for annotation in annotations:
        x, y, width, height = annotation.bbox
        box = Box.clipped((x, y, x + width, y + height), image.width, image.height)
        if box is not None and classes.get(annotation.category_id):
            yield Truth(names[annotation.category_id], classes[annotation.category_id], box)


def _pairs(sample: Sample) -> Iterator[Truth]:
    """Yield the boxes that are the only ones of their category and large enough to count."""
    often = Counter(truth.category for truth in sample.truths)
    floor = SMALLEST * sample.width * sample.height
    for truth in sample.truths:
        x1, y1, x2, y2 = truth.box.as_xyxy()
        if often[truth.category] == 1 and (x2 - x1) * (y2 - y1) >= floor:
            yield truth
