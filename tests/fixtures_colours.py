"""A classifier with weights made by hand that knows red and blue, and pictures with squares of both on grey."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heatbox.models import Card, ModelStore, make_card
from heatbox_workers.loading import register
from heatbox_workers.tiny import TinyNet

__all__ = ["LABELS", "SIDE", "Colours", "colours"]

LABELS = ("red", "blue")
SIDE = 64
_RGB = {"red": (230, 20, 20), "blue": (20, 20, 230)}


@dataclass(frozen=True)
class Colours:
    """A store with the model `colours`, and a COCO data set of 30 pictures with a square or two."""

    store: ModelStore
    card: Card
    data: Path


def weights() -> dict[str, torch.Tensor]:
    """Return weights whose first map is how red a place is, and whose second how blue."""
    network = TinyNet(len(LABELS))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.zero_()
            elif name.startswith("classifier"):
                parameter.fill_(-3.0)
        convolutions = [one for one in network.modules() if isinstance(one, torch.nn.Conv2d)]
        for position, one in enumerate(convolutions):
            middle = 1 if one.kernel_size[0] == 3 else slice(1, 3)
            for map_, mix in enumerate([(1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)]):
                own = mix if position == 0 else tuple(float(map_ == other) for other in range(2))
                share = 1.0 if isinstance(middle, int) else 0.25
                for channel, value in enumerate(own):
                    one.weight[map_, channel, middle, middle] = value * share
            network.classifier.weight[0, 0] = network.classifier.weight[1, 1] = 40.0
    return network.state_dict()


def draw(folder: Path, count: int = 30) -> Path:
    """Write pictures with squares, and their annotations."""
    random = np.random.default_rng(4)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = random.normal(110, 6, (SIDE, SIDE, 3))
        shown = [("red",), ("blue",), ("red", "blue")][number % 3]
        for label in shown:
            left = 0 if label == "red" else SIDE // 2
            size = int(random.integers(12, 26))
            x, y = left + int(random.integers(0, SIDE // 2 - size)), int(random.integers(0, SIDE - size))
            pixels[y : y + size, x : x + size] = _RGB[label]
            annotations.append(
                {"image_id": number, "category_id": 1 + LABELS.index(label), "bbox": [x, y, size, size]}
            )
        name = f"{number:02}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
    categories = [{"id": 1 + index, "name": name} for index, name in enumerate(LABELS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> Colours:
    """A store of this test alone and the pictures."""
    store = ModelStore(tmp_path / "models")
    card = make_card(
        name="colours",
        architecture="heatbox/tiny",
        labels=LABELS,
        input_size=SIDE,
        head="sigmoid",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return Colours(store, register(store, card, weights()), draw(tmp_path / "squares"))
