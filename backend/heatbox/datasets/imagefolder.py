"""Folders of classes, as `torchvision.datasets.ImageFolder` and most trainers of classifiers read them.

`SPLIT/CLASS/picture` has the whole pictures of exactly one label, `crops/SPLIT/CLASS/picture.N` what is inside each
corrected box. Every split has every folder, also an empty one, because readers number classes by the folders they see.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heatbox.datasets.examples import SPLITS, Example, RejectedExample
from heatbox.datasets.names import folder_names
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.writing import NOT_ONE_LABEL, Writer, write

__all__ = ["ImageFolderWriter"]


class ImageFolderWriter(Writer):
    """Writes `train`, `val`, `test`, and the same below `crops`."""

    how = (
        "torchvision.datasets.ImageFolder(DIR / 'train', allow_empty=True), and DIR / 'crops' / 'train' for what is\n"
        "inside the boxes. ImageFolder numbers classes by the names of folders; `folders` in card.json says which\n"
        "class each folder is.\n"
    )

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        self._folders = folder_names(self.classes)
        for split in SPLITS:
            for name in self._folders.values():
                for kind in (folder, folder / "crops"):
                    (kind / split / name).mkdir(parents=True)

    def refusal(self, example: Example) -> RejectedExample | None:
        """Return why there is no whole picture; its crops are written all the same."""
        if len(example.labels) == 1:
            return None
        found = ", ".join(map(repr, example.labels)) or "none"
        return RejectedExample(
            example.name,
            NOT_ONE_LABEL,
            f"A whole picture has exactly one label here; it has {found}.",
            example.task,
        )

    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write the whole picture where it has one label, and its crops."""
        crops = [(one.label, *picture.crop(one.box)) for one in example.boxes or ()]
        if self.refusal(example) is None:
            name, content = picture.file(self.accepted)
            write(self.folder / example.split / self._folders[example.labels[0]] / name, content)
        for number, (label, suffix, content) in enumerate(crops, 1):
            place = self.folder / "crops" / example.split / self._folders[label]
            write(place / f"{Path(example.name).stem}.{number}{suffix}", content)

    def finish(self) -> Mapping[str, Any]:
        """Return the folder of each class."""
        return {"folders": self._folders}
