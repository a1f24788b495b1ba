"""A COCO data set with boxes as examples, and the label map that says which classes stand for its categories."""

from collections.abc import Sequence
from pathlib import Path

from heatbox.boxes import Box
from heatbox.datasets.examples import Example, Marked
from heatbox.errors import DatasetError
from heatbox.models import file_sha256
from heatbox_workers.coco import Sample, Truth, read_boxes

__all__ = ["read_examples"]

LabelMap = tuple[tuple[str, str], ...]


def read_examples(
    source: Path, classes: Sequence[str], images: Path | None = None
) -> tuple[list[Example], LabelMap, list[str]]:
    """Read a data set whose boxes are all there.

    Args:
        source: a folder with `images/` and `annotations.json` (COCO), or a COCO file.
        classes: of the classifier.
        images: folder of a COCO file's pictures; default: `images/` beside it.

    Returns:
        The pictures that are there, pairs (class, category), and the categories that no class stands for.

    Raises:
        DatasetError: it is no such data set, or none of its pictures is there.
    """
    samples, unmapped = read_boxes(source, classes, images)
    found = [_example(sample) for sample in samples if sample.path.is_file()]
    if not found:
        raise DatasetError(f"None of the pictures of {source} is there.", "Name their folder with --images.")
    truths = [truth for sample in samples for truth in sample.truths]
    pairs = {(classes[index], truth.category) for truth in truths for index in truth.classes}
    return found, tuple(sorted(pairs, key=lambda pair: (pair[1], pair[0]))), unmapped


def _example(sample: Sample) -> Example:
    marked = tuple(_marked(truth) for truth in sample.truths)
    labels = tuple(sorted({one.label for one in marked}))
    path = sample.path
    return Example(path, path.name, file_sha256(path), sample.width, sample.height, labels, marked)


def _marked(truth: Truth) -> Marked:
    return Marked(truth.category, Box(*truth.box.as_xyxy()))
