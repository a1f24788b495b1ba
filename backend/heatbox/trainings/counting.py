"""Into which parts the pictures of an order fall, before anything is learnt: their content decides."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heatbox.datasets.examples import SPLITS, split_of
from heatbox.errors import DatasetError, PictureError
from heatbox.models import file_sha256
from heatbox.pictures.fetching import Fetcher
from heatbox.pictures.sources import find_pictures
from heatbox.settings import Settings
from heatbox.trainings.order import TrainingOrder

__all__ = ["split_counts"]


def split_counts(settings: Settings, order: TrainingOrder) -> dict[str, int]:
    """Return how many pictures are learnt from, validated and measured with, and how many cannot be fetched.

    Raises:
        DatasetError: a folder has no picture in it, or its COCO file is none.
    """
    found: Counter[str] = Counter()
    fetcher = Fetcher(settings)
    try:
        for one in order.corrected:
            try:
                found[split_of(file_sha256(fetcher.fetch(one.address, one.task)))] += 1
            except PictureError:
                found["not fetched"] += 1
    finally:
        fetcher.close()
    for source in order.data:
        for path in _named(Path(source)):
            found[split_of(file_sha256(path)) if path.is_file() else "not fetched"] += 1
    return {name: found[name] for name in (*SPLITS, "not fetched") if found[name] or name in SPLITS}


def _named(source: Path) -> Sequence[Path]:
    """Return the pictures of a data set: those that its COCO file names, else all in and below the folder."""
    file = source / "annotations.json" if source.is_dir() else source
    if file.is_file():
        try:
            names = [str(one["file_name"]) for one in json.loads(file.read_bytes())["images"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            told = f"{file} is not COCO: it has no list of images with their file_name."
            raise DatasetError(
                told, "Name a COCO file, or a folder with images/ and annotations.json."
            ) from error
        return [file.parent / "images" / name for name in names]
    found = [one.path for one in find_pictures([str(source)]) if one.path is not None]
    if not found:
        raise DatasetError(f"The folder {source} has no picture in it.", "Look for JPEG, PNG or WebP files.")
    return found
