"""JSON lines: one line for each picture with all that is known about it, read by anything. https://jsonlines.org."""

from collections.abc import Mapping
from typing import Any

from heatbox.datasets.examples import SPLITS, Example
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.writing import Writer, append, as_json, marked_as_dict, write

__all__ = ["JsonLinesWriter", "example_as_dict"]


class JsonLinesWriter(Writer):
    """Writes `train.jsonl`, `val.jsonl`, `test.jsonl` and `images/`."""

    how = (
        "One line of SPLIT.jsonl is a picture: file_name is relative to this folder, xyxy are corners in pixels of\n"
        "the upright picture, boxes null means: nobody looked for them.\n"
    )

    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write the picture and its line."""
        name, content = picture.file(self.accepted)
        write(self.folder / "images" / name, content)
        line = as_json(example_as_dict(example, f"images/{name}"))
        append(self.folder / f"{example.split}.jsonl", f"{line}\n")

    def finish(self) -> Mapping[str, Any]:
        """Make the files that nothing is in."""
        (self.folder / "images").mkdir(exist_ok=True)
        for split in SPLITS:
            append(self.folder / f"{split}.jsonl", "")
        return {}


def example_as_dict(example: Example, file_name: str) -> dict[str, Any]:
    """Return all that is known about an example.

    Args:
        example: with boxes in pixels.
        file_name: of the picture in the data set.
    """
    boxes = None if example.boxes is None else [marked_as_dict(one) for one in example.boxes]
    return {
        "file_name": file_name,
        "sha256": example.sha256,
        "width": example.width,
        "height": example.height,
        "labels": list(example.labels),
        "boxes": boxes,
        "predicted": [marked_as_dict(one) for one in example.predicted],
        "version": example.version,
        "task": example.task,
        "annotation": example.annotation,
    }
