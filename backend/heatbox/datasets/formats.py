"""The names of the formats that corrections are exported in, alone, so that a command line knows them quickly."""

from enum import StrEnum

__all__ = ["ExportFormat"]


class ExportFormat(StrEnum):
    """What corrections can be exported as."""

    IMAGEFOLDER = "imagefolder"
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    WEBDATASET = "webdataset"
    JSONL = "jsonl"
