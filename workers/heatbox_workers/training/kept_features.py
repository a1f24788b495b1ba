"""Feature maps that are computed once and kept on disk: of each variant of a picture, at the cut of the network.

    <folder>/<key>/<sha256 of the picture>.safetensors     maps (V, K, h, w) float16, V variants

The key names the weights in front of the layer and all that prepares a picture, so another training of the same network
finds them again. They can be deleted at any time.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from heatbox.datasets.examples import Example
from heatbox.errors import OutputError
from heatbox.pictures.images import Limits, read_picture
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.training.variants import Variant, variant

__all__ = ["KeptFeatures", "Shown", "trim"]

_MOST_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Shown:
    """What is known about each variant of an example; the pixels stay on disk as feature maps."""

    example: Example
    variants: tuple[Variant, ...]


@dataclass
class KeptFeatures:
    """Feature maps of pictures in front of a classifier.

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
        """Name the folder by everything that decides what is in it."""
        card = self.classifier.card
        content = json.dumps([card.version, card.sha256, self.layer, card.input_size, self.variants, 1])
        self._key = hashlib.sha256(content.encode()).hexdigest()[:16]

    def prepare(self, example: Example) -> Shown:
        """Make sure that the maps of an example are there, and return what its variants show.

        Raises:
            PictureError: the picture cannot be read.
            OutputError: the maps cannot be written.
        """
        classifier = self.classifier
        pixels = read_picture(example.path, self.limits, at_least=classifier.input_size).pixels
        variants = [variant(example, pixels, number) for number in range(self.variants)]
        path = self._path(example)
        if not path.is_file():
            images = classifier.preprocess([one.pixels for one in variants])
            self._write(path, classifier.feature_maps(images, self.layer).half().cpu().contiguous())
            self.computed += 1
        empty = pixels[:0]
        return Shown(example, tuple(Variant(empty, one.labels, one.boxes) for one in variants))

    def maps(self, examples: Sequence[Example], numbers: Sequence[int]) -> Tensor:
        """Return the maps of one variant of each example: (B, K, h, w) float32."""
        rows = [
            self._read(self._path(example))[number] for example, number in zip(examples, numbers, strict=True)
        ]
        return torch.stack(rows).float()

    def _path(self, example: Example) -> Path:
        return self.folder / self._key / f"{example.sha256}.safetensors"

    def _read(self, path: Path) -> Tensor:
        try:
            return load_file(path)["maps"]
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"Feature maps of a picture are gone or damaged: {error}.",
                f"Start the training again; what is wrong is computed anew after deleting {path.parent}.",
            ) from error

    def _write(self, path: Path, maps: Tensor) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
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
    """Remove the feature maps that were used longest ago until the others fit; other trainings compute theirs again."""
    keys = sorted(
        (one for one in folder.glob("*") if one.is_dir()), key=lambda one: one.stat().st_mtime, reverse=True
    )
    total = 0
    for key in keys:
        total += sum(path.stat().st_size for path in key.glob("*"))
        if total > most and key != keys[0]:
            shutil.rmtree(key, ignore_errors=True)
