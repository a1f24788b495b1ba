"""The data sets of the loop: photographs with true boxes, of classes of which most are not ImageNet's.

A set is divided by the names of its files: a quarter is the rest, which nobody corrects and boxes are measured on; the
others are the pool, whose image labels the first classifier learns and whose boxes the scripted person knows.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SETS", "PhotoSet", "TruePicture", "read_set", "write_pool"]

_REST = 4  # one picture in so many


@dataclass(frozen=True)
class PhotoSet:
    """A data set and how its classifier learns.

    Attributes:
        name: of the set.
        folders: below the test data.
        training: options of `heatbox train`.
    """

    name: str
    folders: tuple[str, ...]
    training: tuple[str, ...] = ()


SETS = (
    PhotoSet("hands", ("janken",)),
    PhotoSet("animals", ("animals_raccoon", "animals_kangaroo", "fork_scissors")),
    PhotoSet("cards", ("cards_train",), ("--unfreeze", "5", "--epochs", "30")),
)


@dataclass(frozen=True)
class TruePicture:
    """A photograph and its true boxes, (label, x1, y1, x2, y2) in parts of its sides."""

    path: Path
    width: int
    height: int
    boxes: tuple[tuple[str, float, float, float, float], ...]


def read_set(one: PhotoSet, data: Path) -> tuple[list[TruePicture], list[TruePicture]]:
    """Return pool and rest, both in an order that follows from the files' names alone."""
    pictures = [picture for folder in one.folders for picture in _read_coco(data / folder)]
    pictures.sort(
        key=lambda one: hashlib.sha256(f"{one.path.parts[-3]}/{one.path.name}".encode()).hexdigest()
    )
    count = len(pictures) // _REST
    return pictures[count:], pictures[:count]


def _read_coco(folder: Path) -> list[TruePicture]:
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    names = {one["id"]: one["name"] for one in content["categories"]}
    boxes: dict[int, list[tuple[str, float, float, float, float]]] = {}
    sizes = {one["id"]: (one["width"], one["height"]) for one in content["images"]}
    for one in content["annotations"]:
        (width, height), (x, y, w, h) = sizes[one["image_id"]], one["bbox"]
        corners = (x / width, y / height, min((x + w) / width, 1.0), min((y + h) / height, 1.0))
        boxes.setdefault(one["image_id"], []).append((names[one["category_id"]], *corners))
    return [
        TruePicture(
            folder / "images" / one["file_name"],
            one["width"],
            one["height"],
            tuple(boxes.get(one["id"], ())),
        )
        for one in content["images"]
    ]


def write_pool(pool: Sequence[TruePicture], data: Path, folder: Path) -> Path:
    """Write the pool as one COCO data set whose pictures stay where they are; return its file."""
    labels = sorted({box[0] for one in pool for box in one.boxes})
    images, annotations = [], list[dict[str, Any]]()
    for number, one in enumerate(pool):
        name = str(one.path.relative_to(data))
        images.append({"id": number, "file_name": name, "width": one.width, "height": one.height})
        for label, x1, y1, x2, y2 in one.boxes:
            box = [x1 * one.width, y1 * one.height, (x2 - x1) * one.width, (y2 - y1) * one.height]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": labels.index(label),
                    "bbox": box,
                }
            )
    content = {
        "images": images,
        "categories": [{"id": index, "name": label} for index, label in enumerate(labels)],
        "annotations": annotations,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "annotations.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    (folder / "images").unlink(missing_ok=True)
    (folder / "images").symlink_to(data, target_is_directory=True)
    return file
