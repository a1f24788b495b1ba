"""Examples to learn from: data sets on disk as batches of `heatbox.contract.Examples`, one bad picture alone.

Three forms are read: COCO (boxes), a folder with one folder of pictures for each class (image labels), and a folder of
pictures (neither; what `anomaly` learns from).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from heatbox.boxes import Box
from heatbox.contract import Examples
from heatbox.errors import DatasetError, HeatboxError, PictureUnreadableError
from heatbox.pictures.images import Limits, Picture, read_picture
from heatbox.pictures.sources import find_pictures
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.coco import classes_by_name, read_boxes

__all__ = ["ExampleBatches", "Labelled", "read_dataset"]

_BATCH = 8
_NOWHERE = (float("nan"),) * 4


@dataclass(frozen=True)
class Labelled:
    """A picture with what people know about it.

    Attributes:
        path: the file.
        objects: (class index, box in pixels of the picture; None: somewhere).
        size: width and height that the boxes were drawn on; None: there are no boxes.
    """

    path: Path
    objects: tuple[tuple[int, Box | None], ...] = ()
    size: tuple[int, int] | None = None


def read_dataset(
    source: Path, labels: Sequence[str], images: Path | None = None
) -> tuple[list[Labelled], list[str]]:
    """List the pictures of a data set and find the classes of its categories or folders.

    Args:
        source: a COCO file or its folder, a folder with a folder for each class, or a folder of pictures.
        labels: class names of the classifier.
        images: folder of a COCO file's pictures; default: `images/` beside it.

    Returns:
        The pictures, and the names of categories or folders that no class stands for; their pictures stay, without it.

    Raises:
        DatasetError: there is no such folder or file, or it is no data set.
    """
    if source.is_file() or (source / "annotations.json").is_file():
        samples, unmapped = read_boxes(source, labels, images)
        return [
            Labelled(
                sample.path,
                tuple((truth.classes[0], truth.box) for truth in sample.truths),
                (sample.width, sample.height),
            )
            for sample in samples
        ], unmapped
    if not source.is_dir():
        raise DatasetError(f"There is no data set {source}.", "Check the path.")
    return _folder(source, labels)


def _folder(source: Path, labels: Sequence[str]) -> tuple[list[Labelled], list[str]]:
    """List the pictures in and below a folder; the folder right below `source` names their class."""
    found = [one.path.relative_to(source) for one in find_pictures([str(source)]) if one.path is not None]
    names = sorted({path.parts[0] for path in found if len(path.parts) > 1})
    if not found:
        raise DatasetError(f"The folder {source} has no picture in it.", "Look for JPEG, PNG or WebP files.")
    classes = classes_by_name(names, labels)
    listed = []
    for path in found:
        own = classes.get(path.parts[0], ()) if len(path.parts) > 1 else ()
        listed.append(Labelled(source / path, ((own[0], None),) if own else ()))
    return listed, [name for name in names if not classes[name]]


@dataclass
class ExampleBatches:
    """Pictures read and prepared for a classifier, in batches; may be gone through several times.

    Attributes:
        pictures: what to read.
        classifier: prepares them.
        limits: of the pictures that are read.
        seen: told after every picture of the first time through.
        failed: pictures that could not be used, with the reason; each once.
    """

    pictures: Sequence[Labelled]
    classifier: TorchClassifier
    limits: Limits
    seen: Callable[[], None] = lambda: None
    failed: dict[Path, HeatboxError] = field(default_factory=dict)
    _again: bool = False

    def __iter__(self) -> Iterator[Examples]:
        for first in range(0, len(self.pictures), _BATCH):
            batch = self.pictures[first : first + _BATCH]
            read = [(one, picture) for one in batch if (picture := self._read(one)) is not None]
            if read:
                yield self._examples(read)
        self._again = True

    def _read(self, one: Labelled) -> Picture | None:
        if one.path in self.failed:
            return None
        try:
            picture = read_picture(one.path, self.limits, at_least=self.classifier.input_size)
            if one.size not in (None, (picture.width, picture.height)):
                raise PictureUnreadableError(
                    f"The picture is {picture.width} x {picture.height} pixels upright, its boxes were drawn on "
                    f"{' x '.join(map(str, one.size or ()))}.",
                    "Correct width, height and boxes in the annotations.",
                )
        except HeatboxError as error:
            self.failed[one.path] = error
            return None
        finally:
            if not self._again:
                self.seen()
        return picture

    def _examples(self, read: Sequence[tuple[Labelled, Picture]]) -> Examples:
        images = self.classifier.preprocess([picture.pixels for _, picture in read])
        side = self.classifier.input_size
        targets: list[tuple[int, int]] = []
        boxes: list[tuple[float, ...]] = []
        for index, (one, picture) in enumerate(read):
            x, y = side / picture.width, side / picture.height
            for class_index, box in one.objects:
                targets.append((index, class_index))
                boxes.append((box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y) if box else _NOWHERE)
        return Examples(
            images,
            torch.tensor(targets, dtype=torch.int64, device=images.device).reshape(-1, 2),
            torch.tensor(boxes, dtype=torch.float32, device=images.device).reshape(-1, 4),
        )
