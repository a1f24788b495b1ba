"""Datasets in the formats that detectors are trained from: Pascal VOC, COCO and YOLO.

- VOC: one XML per picture, edges in whole pixels, the first pixel is 1 and both edges belong to the box. Section 3 of
  the VOC2012 development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf.
- COCO: one JSON, boxes as x, y, width, height in pixels. https://cocodataset.org/#format-data and, for the score,
  https://cocodataset.org/#format-results.
- YOLO: one text per picture, a line `class x y width height` per box: its centre and sides in parts of the picture.
  https://docs.ultralytics.com/datasets/detect/.

Sizes and boxes are those of the upright picture, as a browser shows it. A picture without boxes is an example too: XML
without objects, an entry of `images`, an empty text. VOC and YOLO find the pictures by name, so their folders hold
links to them. Nothing is seen under its final name before it is whole.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from heatbox.errors import OutputError
from heatbox.import_file import atomic_text

if TYPE_CHECKING:  # a command that only names the formats need not load numpy
    from heatbox.annotation import Annotation

__all__ = ["Dataset", "Format", "common_folder", "write_coco", "write_voc", "write_yolo"]


class Format(StrEnum):
    """What boxes can be written as."""

    LABEL_STUDIO = "label-studio"
    VOC = "voc"
    COCO = "coco"
    YOLO = "yolo"

    @property
    def default_out(self) -> str:
        """Name of the file or folder where none is named."""
        names = {self.LABEL_STUDIO: "heatbox.json", self.COCO: "heatbox-coco.json"}
        return names.get(self, f"heatbox-{self.value}")


@dataclass(frozen=True)
class Dataset:
    """What the formats need to know besides the pictures.

    Attributes:
        root: pictures are named relative to this folder; see `common_folder`.
        version: of the pipeline, written down as the source.
        labels: in the order of their numbers; others get the next number when they first come.
    """

    root: Path
    version: str
    labels: tuple[str, ...] = ()


def common_folder(paths: Iterable[Path]) -> Path:
    """Return the deepest folder that all pictures are in; `/` where there are none."""
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths] or ["/"]))  # noqa: PTH100 - links stay


def write_voc(folder: Path, pictures: Iterable[tuple[Path, "Annotation"]], dataset: Dataset) -> None:
    """Write `Annotations/NAME.xml` for each picture and link it as `JPEGImages/NAME.EXT`.

    Args:
        folder: new, or empty.
        pictures: files with their annotations; a file that comes again is passed over.
        dataset: gives root and version.

    Raises:
        OutputError: the folder holds something, or cannot be written.
    """
    from heatbox.datasets.voc import voc_xml
    from heatbox.datasets.writing import write

    with _new_folder(folder) as part:
        for path, name, annotation in _named(pictures, dataset.root):
            picture = name + path.suffix
            _link(path, part / "JPEGImages" / picture)
            size = annotation.width, annotation.height
            objects = ((region.label, region.box, None) for region in annotation.regions)
            write(part / "Annotations" / f"{name}.xml", voc_xml(picture, size, objects, dataset.version))


def write_coco(file: Path, pictures: Iterable[tuple[Path, "Annotation"]], dataset: Dataset) -> None:
    """Write one JSON with images, annotations (with their score) and categories.

    Args:
        file: replaced in one step when it is whole.
        pictures: files with their annotations; a file that comes again is passed over.
        dataset: a picture's `file_name` is relative to its root.

    Raises:
        OutputError: the file cannot be written.
    """
    from heatbox.datasets.coco import coco_box, coco_text
    from heatbox.datasets.writing import as_json

    numbers = {label: number for number, label in enumerate(dataset.labels, 1)}
    images: list[str] = []  # as text: a part of the memory that the objects take
    boxes: list[str] = []
    with atomic_text(file) as out:
        for path, _, annotation in _named(pictures, dataset.root):
            size = {"width": annotation.width, "height": annotation.height}
            image = {"id": len(images) + 1, "file_name": _relative(path, dataset.root), **size}
            images.append(as_json(image))
            for region in annotation.regions:
                row = coco_box(len(images), numbers.setdefault(region.label, len(numbers) + 1), region.box)
                boxes.append(as_json({"id": len(boxes) + 1, **row, "score": round(region.score, 6)}))
        categories = [
            as_json({"id": number, "name": label, "supercategory": ""}) for label, number in numbers.items()
        ]
        out.write(coco_text(dataset.version, images, boxes, categories))


def write_yolo(folder: Path, pictures: Iterable[tuple[Path, "Annotation"]], dataset: Dataset) -> None:
    """Write `labels/NAME.txt` for each picture, link it as `images/NAME.EXT`, and `classes.txt` and `data.yaml`.

    Args:
        folder: new, or empty.
        pictures: files with their annotations; a file that comes again is passed over.
        dataset: gives root, version and the classes known beforehand.

    Raises:
        OutputError: the folder holds something, or cannot be written.
    """
    from heatbox.datasets.writing import write
    from heatbox.datasets.yolo import yaml_names, yolo_box

    numbers = {label: number for number, label in enumerate(dataset.labels)}
    with _new_folder(folder) as part:
        for path, name, annotation in _named(pictures, dataset.root):
            lines = [
                f"{numbers.setdefault(region.label, len(numbers))} "
                f"{yolo_box(region.box, annotation.width, annotation.height)}\n"
                for region in annotation.regions
            ]
            _link(path, part / "images" / (name + path.suffix))
            write(part / "labels" / f"{name}.txt", "".join(lines))
        write(part / "classes.txt", "".join(" ".join(label.split()) + "\n" for label in numbers))
        head = (
            f"# {dataset.version}\ntrain: images\nval: images # choose pictures of your own to measure on\n"
        )
        write(part / "data.yaml", head + yaml_names(numbers))


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside its final name and rename it when the block ends without an error."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 - a name for `.` too, and links stay
    part = whole.with_name(f".{whole.name}.{os.getpid()}.part")
    try:
        if os.path.lexists(whole):
            raise FileExistsError(errno.EEXIST, "it is there already")
        part.mkdir(parents=True)
        try:
            yield part
            part.replace(whole)
        finally:
            shutil.rmtree(part, ignore_errors=True)  # the error that brought us here says more
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be written: {error.strerror}.",
            "Name a folder that is not there yet, where there is space and you may write.",
        ) from error


def _named(
    pictures: Iterable[tuple[Path, "Annotation"]], root: Path
) -> Iterator[tuple[Path, str, "Annotation"]]:
    """Yield each file once, with a name that no other has: relative to the root, numbered where it came before.

    The name has no extension, and names that differ in their case only count as the same: so `a.jpg`, `a.png` and
    `A.jpg` become `a`, `a-2` and `A-3`, on every file system.
    """
    files: set[str] = set()
    names: set[str] = set()
    for path, annotation in pictures:
        file = _relative(path, root)
        if file in files:
            continue
        files.add(file)
        stem = os.path.splitext(file)[0]  # noqa: PTH122 - a name that may not be Unicode, and no path
        name = next(one for one in _numbered(stem) if one.casefold() not in names)
        names.add(name.casefold())
        yield path, name, annotation


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    for number in count(2):
        yield f"{stem}-{number}"


def _relative(path: Path, root: Path) -> str:
    """Return the file's place below the root; ValueError where it is elsewhere."""
    return str(Path(os.path.abspath(path)).relative_to(os.path.abspath(root)))  # noqa: PTH100 - links stay


def _link(path: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.abspath(path))  # noqa: PTH100 - a link to a link is kept, so that it can be re-aimed
