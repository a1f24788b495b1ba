"""COCO: https://cocodataset.org/#format-data, and for predictions https://cocodataset.org/#format-results.

Boxes are x, y, width, height in pixels. Categories are numbered from 1, because 0 is the background for many readers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heatbox.boxes import Box
from heatbox.datasets.examples import SPLITS, Example, Split
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.writing import Writer, as_json, write

__all__ = ["CocoWriter", "coco_box", "coco_text"]

_UNSCORED = 1.0  # COCO wants a score of every prediction


class CocoWriter(Writer):
    """Writes `images/`, `annotations/SPLIT.json` and `predictions_SPLIT.json`."""

    wants_boxes = True
    how = (
        "torchvision.datasets.CocoDetection(DIR / 'images', DIR / 'annotations' / 'train.json'). What had been\n"
        "predicted is beside it, measured by pycocotools against what people left:\n"
        "truth = COCO('annotations/test.json'); COCOeval(truth, truth.loadRes('predictions_test.json'), 'bbox').\n"
    )

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        self._images: dict[Split, list[str]] = {split: [] for split in SPLITS}  # as text, which is smaller
        self._boxes: dict[Split, list[str]] = {split: [] for split in SPLITS}
        self._predicted: dict[Split, list[str]] = {split: [] for split in SPLITS}

    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write the picture, and keep its rows until all are known."""
        name, content = picture.file(self.accepted)
        write(self.folder / "images" / name, content)
        images, boxes = self._images[example.split], self._boxes[example.split]
        number = len(images) + 1
        images.append(as_json(_image(number, name, example)))
        for one in example.boxes or ():
            row = coco_box(number, self.numbers[one.label] + 1, one.box)
            boxes.append(as_json({"id": len(boxes) + 1, **row}))
        for one in example.predicted:
            row = coco_box(number, self.numbers[one.label] + 1, one.box)
            score = _UNSCORED if one.score is None else round(one.score, 6)
            scored = {key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": score}
            self._predicted[example.split].append(as_json(scored))

    def finish(self) -> Mapping[str, Any]:
        """Write the annotations and predictions of each split."""
        categories = [
            as_json({"id": number + 1, "name": name, "supercategory": ""})
            for name, number in self.numbers.items()
        ]
        (self.folder / "images").mkdir(exist_ok=True)
        for split in SPLITS:
            text = coco_text("heatbox export", self._images[split], self._boxes[split], categories)
            write(self.folder / "annotations" / f"{split}.json", text)
            write(self.folder / f"predictions_{split}.json", _listed(self._predicted[split]) + "\n")
        return {}


def coco_box(image: int, category: int, box: Box) -> dict[str, Any]:
    """Return the row of a box, without its number."""
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [round(value, 3) for value in (box.x1, box.y1, box.width, box.height)],
        "area": round(box.area, 3),
        "segmentation": [],
        "iscrowd": 0,
    }


def coco_text(
    description: str, images: Sequence[str], boxes: Sequence[str], categories: Sequence[str]
) -> str:
    """Return the file: one line for each picture, box and category, which are JSON already."""
    rows = {"images": images, "annotations": boxes, "categories": categories}
    lists = "".join(f',\n"{key}": {_listed(values)}' for key, values in rows.items())
    return f'{{"info": {as_json({"description": description})}, "licenses": []{lists}}}\n'


def _image(number: int, name: str, example: Example) -> dict[str, Any]:
    size = {"width": example.width, "height": example.height}
    source = {"sha256": example.sha256, "task": example.task, "annotation": example.annotation}
    return {"id": number, "file_name": name, **size, **source}


def _listed(rows: Sequence[str]) -> str:
    return "[" + ",".join(f"\n{row}" for row in rows) + "]"
