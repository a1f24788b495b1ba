"""Feature maps that are computed once and kept on disk: of each variant of a picture, at the cut of the network.

    <folder>/<key>/<sha256 of the picture>.safetensors     what the layer puts out of V variants, V first

They are kept as the layer lays them out, a transformer's class token with them, in float16 where their range allows
it. The key names the weights in front of the layer and all that prepares a picture, so another training of the same
network finds them again. They can be deleted at any time: what is gone or damaged is computed anew.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from heatbox.datasets.examples import Example
from heatbox.errors import OutputError
from heatbox.pictures.images import Limits, read_picture
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.training.cut import output_of
from heatbox_workers.training.variants import Variant, variant

__all__ = ["KeptFeatures", "Shown", "trim"]

_MOST_BYTES = 8 * 2**30
_LARGEST_HALF = 6e4  # float16 ends at 65504
_ABANDONED_SECONDS = 86_400
_INCOMING = ".incoming-"


@dataclass(frozen=True)
class Shown:
    """What is known about each variant of an example; the pixels stay on disk as feature maps."""

    example: Example
    variants: tuple[Variant, ...]


@dataclass
class KeptFeatures:
    """Feature maps of pictures in front of a cut.

    Attributes:
        folder: of all feature maps.
        classifier: whose layer is recorded.
        layer: name of the module.
        variants: how many of each picture.
        limits: of the pictures that are read.
        computed: how many pictures were not there yet.
    """

    folder: Path
    classifier: TorchClassifier
    layer: str
    variants: int
    limits: Limits
    computed: int = 0
    _key: str = field(default="", init=False)

    def __post_init__(self) -> None:
        """Name the folder by everything that decides what is in it, and say that it is in use."""
        card = self.classifier.card
        content = json.dumps([card.version, card.sha256, self.layer, card.input_size, self.variants, 2])
        self._key = hashlib.sha256(content.encode()).hexdigest()[:16]
        with suppress(OSError):  # the first picture tells what is wrong
            (self.folder / self._key).mkdir(parents=True, exist_ok=True)
            os.utime(self.folder / self._key)

    def prepare(self, example: Example) -> Shown:
        """Make sure that the maps of an example are there, and return what its variants show.

        Raises:
            PictureError: the picture cannot be read.
            OutputError: the maps cannot be written.
        """
        shown = Shown(example, tuple(variant(example, number) for number in range(self.variants)))
        if self._read(example, 0) is None:
            self._compute(shown)
        return shown

    def maps(self, shown: Sequence[Shown], numbers: Sequence[int]) -> Tensor:
        """Return what the layer puts out of one variant of each example: (B, ...) float32.

        Raises:
            PictureError: maps are gone or damaged, and so is the picture.
            OutputError: maps are gone or damaged, and cannot be written.
        """
        return torch.stack([self._row(one, number) for one, number in zip(shown, numbers, strict=True)])

    def _row(self, shown: Shown, number: int) -> Tensor:
        found = self._read(shown.example, number)
        return (self._compute(shown)[number] if found is None else found).float()

    def _compute(self, shown: Shown) -> Tensor:
        """Return what the layer puts out of all variants, as it is kept: (V, ...)."""
        classifier = self.classifier
        pixels = read_picture(shown.example.path, self.limits, at_least=classifier.input_size).pixels
        images = classifier.preprocess([one.of(pixels) for one in shown.variants])
        maps = output_of(classifier.network, self.layer, images).cpu().contiguous()
        kept = maps.half() if float(maps.abs().max()) < _LARGEST_HALF else maps
        self._write(self._path(shown.example), kept)
        self.computed += 1
        return kept

    def _path(self, example: Example) -> Path:
        return self.folder / self._key / f"{example.sha256}.safetensors"

    def _read(self, example: Example, number: int) -> Tensor | None:
        """Return the maps of one variant; None where they are not there, or the file is damaged."""
        try:
            with safe_open(self._path(example), framework="pt") as file:
                found: Tensor = file.get_slice("maps")[number]
        except (OSError, SafetensorError, IndexError):
            return None
        return found

    def _write(self, path: Path, maps: Tensor) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=_INCOMING, dir=path.parent)
            os.close(descriptor)
            try:
                save_file({"maps": maps}, name)
                Path(name).replace(path)
            finally:
                Path(name).unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"Feature maps cannot be written: {error}.",
                "Free some space in HEATBOX_HOME, or leave --unfreeze and further variants away.",
            ) from error


def trim(folder: Path, most: int = _MOST_BYTES) -> None:
    """Remove the feature maps that were used longest ago until the others fit; other trainings compute theirs again.

    Those that were used last stay in any case, but for what a killed process left half written a day ago.
    """
    total = 0
    for number, key in enumerate(_newest_first(folder)):
        total += sum(_size(path) for path in key.glob("*"))
        if number and total > most:
            shutil.rmtree(key, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    found: list[tuple[float, Path]] = []
    for key in folder.glob("*"):
        with suppress(OSError):  # removed by another training just now
            if key.is_dir():
                found.append((key.stat().st_mtime, key))
    return [key for _, key in sorted(found, reverse=True)]


def _size(path: Path) -> int:
    """Return the bytes of a file; one that was abandoned half written is removed."""
    with suppress(OSError):
        status = path.stat()
        if path.name.startswith(_INCOMING) and time.time() - status.st_mtime > _ABANDONED_SECONDS:
            path.unlink()
            return 0
        return status.st_size
    return 0
