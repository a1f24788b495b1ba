"""Exports: examples in, a folder in a format that others read out, with a card and the list of what was rejected."""

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatbox.datasets.card import CARD, SPLIT_RULE, Counts, Target, card_text, class_order, is_export
from heatbox.datasets.coco import CocoWriter
from heatbox.datasets.collecting import BOX_EMPTY, LABEL_UNKNOWN, SAME_CONTENT, Collected, with_classes
from heatbox.datasets.examples import RejectedExample
from heatbox.datasets.folder import check_free, new_folder
from heatbox.datasets.formats import ExportFormat
from heatbox.datasets.imagefolder import ImageFolderWriter
from heatbox.datasets.jsonl import JsonLinesWriter
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.voc import VocWriter
from heatbox.datasets.webdataset import WebDatasetWriter
from heatbox.datasets.writing import BOXES_UNKNOWN, NOT_ONE_LABEL, Writer, as_json, write
from heatbox.datasets.yolo import YoloWriter
from heatbox.errors import DatasetError, HeatboxError
from heatbox.pictures.images import Limits

__all__ = ["Exported", "check_place", "export"]

_MOST_NAMED = 3
_BY_CHOICE = {BOX_EMPTY, BOXES_UNKNOWN, LABEL_UNKNOWN, NOT_ONE_LABEL, SAME_CONTENT}


_WRITERS: dict[ExportFormat, type[Writer]] = {
    ExportFormat.IMAGEFOLDER: ImageFolderWriter,
    ExportFormat.COCO: CocoWriter,
    ExportFormat.YOLO: YoloWriter,
    ExportFormat.VOC: VocWriter,
    ExportFormat.WEBDATASET: WebDatasetWriter,
    ExportFormat.JSONL: JsonLinesWriter,
}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        target: where and what it is.
        classes: in their order.
        counts: pictures and boxes by split and class.
        rejected: pictures and boxes that are not in it, with their reasons.
    """

    target: Target
    classes: tuple[str, ...]
    counts: Counts
    rejected: tuple[RejectedExample, ...]

    @property
    def lost(self) -> int:
        """How many pictures could not be had, or not be read."""
        return sum(one.code not in _BY_CHOICE for one in self.rejected)

    def reasons(self) -> list[tuple[str, int]]:
        """Return the codes of what was rejected and how often, the most frequent first."""
        return sorted(_often(self.rejected).items(), key=lambda pair: (-pair[1], pair[0]))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "folder": str(self.target.folder),
            "format": self.target.form.value,
            "classes": list(self.classes),
            "splits": self.counts.as_dict(self.classes),
            "rejected": dict(self.reasons()),
        }


def export(items: Iterable[Collected], target: Target, limits: Limits) -> Exported:
    """Write a data set; the same items make the same files, byte by byte.

    Args:
        items: as `heatbox.datasets.collecting.collect` yields them; each is written before the next is taken.
        target: where and what to write; the folder appears when it is whole.
        limits: for decoding pictures that are not written as they are.

    Raises:
        OutputError: the folder is taken, or cannot be written.
        DatasetError: nothing of the items can be used.
    """
    check_place(target.folder, replace=target.replace)
    classes, sources = class_order(target)
    counts, rejected = Counts(), list[RejectedExample]()
    with new_folder(target.folder, lambda there: target.replace and is_export(there)) as part:
        writer = _WRITERS[target.form](part, classes)
        with closing(writer):
            for item in with_classes(items, classes):
                rejected += _written(item, writer, counts, limits)
            more = {**writer.finish(), "class_sources": sources, "rejected": _often(rejected)}
        if not (counts.pictures or counts.boxes):
            raise _nothing(rejected)
        write(part / "rejected.jsonl", "".join(f"{as_json(vars(one))}\n" for one in rejected))
        write(part / "README.txt", _readme(writer, target.project))
        write(part / CARD, card_text(target, classes, counts, more))
    return Exported(target, classes, counts, tuple(rejected))


def check_place(folder: Path, *, replace: bool) -> None:
    """Raise where an export into the folder would be refused; a former one that a killed export set aside comes back.

    Raises:
        OutputError: it is taken, or cannot be looked at.
    """
    check_free(folder, lambda there: replace and is_export(there))


def _written(item: Collected, writer: Writer, counts: Counts, limits: Limits) -> list[RejectedExample]:
    """Write one item; return what of it was rejected."""
    if isinstance(item, RejectedExample):
        return [item]
    refused = writer.refusal(item)
    try:
        if refused is None or item.boxes:
            writer.add(item, OpenPicture.read(item, limits))
    except HeatboxError as error:
        return [RejectedExample(item.name, error.code, error.sentence, item.task)]
    counts.add(item, is_whole=refused is None)
    return [] if refused is None else [refused]


def _often(rejected: Iterable[RejectedExample]) -> dict[str, int]:
    return dict(Counter(one.code for one in rejected))


def _nothing(rejected: list[RejectedExample]) -> DatasetError:
    reasons = Counter(f"{one.code}: {one.reason}" for one in rejected).most_common(_MOST_NAMED)
    if not reasons:
        return DatasetError("There are no corrections to export.", "Correct some pictures in Label Studio.")
    return DatasetError(
        f"None of the pictures can be exported: {len(rejected)} were rejected.",
        "The most frequent reasons: " + " ".join(f"{count} x {reason}" for reason, count in reasons),
    )


def _readme(writer: Writer, project: int | None) -> str:
    source = "corrections" if project is None else f"corrections of project {project}"
    return (
        f"The {source} in Label Studio, exported by heatbox.\n\n{writer.how}\n"
        "Boxes are of the upright picture. Pictures that were stored turned, or as a file that readers of this format\n"
        f"do not know, were written anew; all others are the same bytes.\n\nSplit: {SPLIT_RULE}\n\n"
        "card.json has the classes in their order and the counts; rejected.jsonl what is not in here, and why.\n"
    )
