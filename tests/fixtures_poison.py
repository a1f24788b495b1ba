"""A real explainer plugin for tests of what goes wrong: red pictures crash its process, green ones never end, blue ones
eat memory, and every picture takes as long as its option says. Others have a heatmap with one warm corner.

A pytest plugin (`pytest_plugins` in tests/conftest.py). The package is found through PYTHONPATH like an installed one.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SOURCE = '''
import mmap, os, signal, time
from dataclasses import dataclass
import torch
from heatbox.contract import Evidence

# The same 128 MiB are mapped again and again: they count as resident each time, and no page has to be found for it.
# Machines exist that find 300 MiB a second; there, a picture would be over its time before it is over its memory.
SIZE = 1 << 27
PLATE = os.memfd_create("plate")
os.ftruncate(PLATE, SIZE)

@dataclass(frozen=True)
class Poison:
    """Hurts the process on pictures of one colour."""
    seconds: float = 0.0

    def __call__(self, classifier, images, targets):
        for picture in images:
            red, green, blue = (float(channel.mean()) for channel in picture)
            if red > green + 1 and red > blue + 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            while green > red + 1 and green > blue + 1:
                pass
            eaten = []
            while blue > red + 1 and blue > green + 1:
                eaten.append(mmap.mmap(PLATE, SIZE, mmap.MAP_SHARED | mmap.MAP_POPULATE))
                time.sleep(0.01)
            time.sleep(self.seconds)
        maps = torch.zeros(len(targets), 8, 8)
        maps[:, :3, :3] = 1
        return Evidence(heatmaps=maps)
'''

COLOURS = {"crash": (255, 0, 0), "hang": (0, 255, 0), "eat": (0, 0, 255)}


@pytest.fixture(scope="session")
def poison_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin `poison`, to be put on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("poison")
    (folder / "poison_plugin.py").write_text(SOURCE)
    about = folder / "poison_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: poison-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[heatbox.explainers]\npoison = poison_plugin:Poison\n")
    return folder


@pytest.fixture
def poisoned(poison_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and those that it starts, find the plugin."""
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(poison_plugin), before])))
    monkeypatch.setattr(sys, "path", [*sys.path, str(poison_plugin)])


@pytest.fixture
def make_pictures(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of small pictures of noise, with those of some positions replaced by poison."""

    def make(count: int, **poison: int) -> Path:
        folder = tmp_path / "many"
        folder.mkdir()
        bad = {position: COLOURS[kind] for kind, position in poison.items()}
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            if number in bad:
                noise[:] = bad[number]
            Image.fromarray(noise).save(folder / f"{number:05}.png")
        return folder

    return make
