"""WebDataset: tar files of at most 1000 pictures, read in one stream. https://github.com/webdataset/webdataset.

`KEY.jpg` or `KEY.png` is the picture, `KEY.json` says what is in it, `KEY.cls` is the number of its label where it has
exactly one. A key has no dot. The same pictures make the same tar files, byte by byte.
"""

import io
import tarfile
from collections import Counter
from pathlib import Path

from heatbox.datasets.examples import Example, Split
from heatbox.datasets.jsonl import example_as_dict
from heatbox.datasets.stored import OpenPicture
from heatbox.datasets.writing import Writer, as_json

__all__ = ["WebDatasetWriter"]

PICTURES_PER_SHARD = 1000


class WebDatasetWriter(Writer):
    """Writes `SPLIT-000000.tar` and so on."""

    accepted = frozenset({".jpg", ".png"})  # what its decoders take for pictures
    how = (
        "webdataset.WebDataset('train-000000.tar', shardshuffle=False).decode('pil'), with {000000..000003} for\n"
        "several. cls is the number of the class in card.json, from 0; in json, boxes null means: nobody looked.\n"
    )

    _shards: dict[Split, tarfile.TarFile]

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        super().__init__(folder, classes)
        self._shards = {}
        self._count: Counter[Split] = Counter()

    def add(self, example: Example, picture: OpenPicture) -> None:
        """Write the picture into the open tar file of its split."""
        name, content = picture.file(self.accepted)
        stem = Path(name).stem
        members = {name: content, f"{stem}.json": as_json(example_as_dict(example, name)).encode()}
        if len(example.labels) == 1:
            members[f"{stem}.cls"] = str(self.numbers[example.labels[0]]).encode()
        shard = self._shard(example.split)
        for member, inside in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(inside)
            shard.addfile(entry, io.BytesIO(inside))

    def close(self) -> None:
        """Close the tar files."""
        while self._shards:
            self._shards.popitem()[1].close()

    def _shard(self, split: Split) -> tarfile.TarFile:
        number, place = divmod(self._count[split], PICTURES_PER_SHARD)
        self._count[split] += 1
        if place == 0:
            if split in self._shards:
                self._shards.pop(split).close()
            self._shards[split] = tarfile.open(self.folder / f"{split}-{number:06}.tar", "x")  # noqa: SIM115 - closed in close
        return self._shards[split]
