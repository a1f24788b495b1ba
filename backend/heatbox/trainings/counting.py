"""Into which parts the pictures of an order fall, before anything is learnt: their content decides."""

from collections import Counter
from pathlib import Path

from heatbox.datasets.examples import SPLITS, split_of
from heatbox.errors import PictureError
from heatbox.models import file_sha256
from heatbox.pictures.fetching import Fetcher
from heatbox.settings import Settings
from heatbox.trainings.order import TrainingOrder

__all__ = ["split_counts"]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def split_counts(settings: Settings, order: TrainingOrder) -> dict[str, int]:
    """Return how many pictures are learnt from, validated and measured with, and how many cannot be fetched."""
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
    for folder in order.data:
        for path in Path(folder).rglob("*"):
            if path.suffix.lower() in _SUFFIXES:
                found[split_of(file_sha256(path))] += 1
    return {name: found[name] for name in (*SPLITS, "not fetched") if found[name] or name in SPLITS}
