"""YOLO: one text per picture, a line `class x y width height` per box: its centre and sides in parts of the picture.

https://docs.ultralytics.com/datasets/detect/. What had been predicted is beside, with the score as a sixth number.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heatbox.boxes import Box
from heatbox.datasets.examples import SPLITS, Example, Marked
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.writing import Writer, write

__all__ = ["YoloWriter", "yaml_names", "yolo_box"]


class YoloWriter(Writer):
    """Writes `images/SPLIT`, `labels/SPLIT`, `labels_predicted/SPLIT` and `data.yaml`."""

    wants_boxes = True
    how = (
        "Give data.yaml to the trainer. labels_predicted/ has what had been predicted, with the score at the end of\n"
        "each line; trainers do not look there.\n"
    )

    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write picture, boxes and predictions."""
        name, content = picture.file(self.accepted)
        place = Path(example.split) / Path(name).stem
        write(self.folder / "images" / example.split / name, content)
        for folder, boxes in (("labels", example.boxes or ()), ("labels_predicted", example.predicted)):
            text = "".join(self._line(one, example) for one in boxes)
            write(self.folder / folder / f"{place}.txt", text)

    def finish(self) -> Mapping[str, Any]:
        """Write what a trainer is given."""
        for split in SPLITS:
            for folder in ("images", "labels", "labels_predicted"):
                (self.folder / folder / split).mkdir(parents=True, exist_ok=True)
        places = "".join(f"{split}: images/{split}\n" for split in SPLITS)
        write(self.folder / "data.yaml", places + yaml_names(self.classes))
        return {}

    def _line(self, one: Marked, example: Example) -> str:
        score = "" if one.score is None else f" {one.score:.6f}"
        return f"{self.numbers[one.label]} {yolo_box(one.box, example.width, example.height)}{score}\n"


def yolo_box(box: Box, width: int, height: int) -> str:
    """Return centre and sides of a box in parts of a width x height picture."""
    centre = (box.x1 + box.x2) / 2 / width, (box.y1 + box.y2) / 2 / height
    return " ".join(f"{value:.8f}" for value in (*centre, box.width / width, box.height / height))


def yaml_names(labels: Iterable[str]) -> str:
    """Return the names of the classes by their numbers, as YAML."""
    names = "".join(f"  {number}: {_yaml(label)}\n" for number, label in enumerate(labels))
    return f"names:\n{names}" if names else "names: {}\n"


def _yaml(text: str) -> str:
    """Return a text as YAML's double-quoted form: JSON's, with every character that YAML cannot hold escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)
