"""What the writers of all formats have in common: a folder, classes with numbers, pictures one by one."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from heatbox.datasets.examples import Example, Marked, RejectedExample
from heatbox.datasets.stored import ANY, OpenPicture

__all__ = ["BOXES_UNKNOWN", "NOT_ONE_LABEL", "Writer", "append", "as_json", "marked_as_dict", "write"]

BOXES_UNKNOWN, NOT_ONE_LABEL = "boxes-unknown", "not-one-label"


class Writer(ABC):
    """Writes examples in a format.

    Args:
        folder: new and empty; nothing outside it is touched.
        classes: in their order; examples have no others.

    Attributes:
        accepted: suffixes of the files that readers of the format know; others are written anew.
        wants_boxes: whether a picture is of no use where nobody looked for boxes.
        how: to read it, for people.
    """

    accepted: ClassVar[frozenset[str]] = ANY
    wants_boxes: ClassVar[bool] = False
    how: ClassVar[str]

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder = folder
        self.classes = tuple(classes)
        self.numbers = {name: number for number, name in enumerate(classes)}

    def refusal(self, example: Example) -> RejectedExample | None:
        """Return why a picture is not written, None where it is."""
        if not self.wants_boxes or example.boxes is not None:
            return None
        reason = "Nobody looked for boxes in it; it may have some."
        return RejectedExample(example.name, BOXES_UNKNOWN, reason, example.task)

    @abstractmethod
    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write a picture.

        Raises:
            PictureError: it cannot be decoded any more; nothing of it is written.
            OSError: nothing can be written.
        """

    def finish(self) -> Mapping[str, Any]:
        """Write what is known only now; return what the card shall say besides."""
        return {}

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Close what is open, also after an error."""


def write(file: Path, content: str | bytes) -> None:
    """Write a new file, and the folders that it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as out:
        out.write(_as_bytes(content))


def append(file: Path, text: str) -> None:
    """Write text to the end of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as out:
        out.write(_as_bytes(text))


def as_json(value: object) -> str:
    """Return one line, the same for the same values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def marked_as_dict(one: Marked) -> dict[str, Any]:
    """Return label and corners in pixels; the score where there is one."""
    score = {} if one.score is None else {"score": round(one.score, 6)}
    return {"label": one.label, "xyxy": [round(edge, 3) for edge in one.box.as_xyxy()], **score}


def _as_bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
