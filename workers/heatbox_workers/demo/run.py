"""The demo from beginning to end: compose, train on image labels, explain held-out pictures, fit boxes, measure them.

What it leaves in its folder:

    pictures/*.jpg      held-out pictures, which training never saw
    tasks.json          Label Studio import file with the predicted boxes
    label_config.xml    label config for it
    truth.json          the true boxes (COCO); only the measuring looks at them
    index.html          every held-out picture: heatmap, mask, contour, box
    demo.jpg            a handful of them on one sheet
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from heatbox.annotation import Annotation, Region
from heatbox.boxes import Box
from heatbox.contact_sheet import contact_sheet
from heatbox.import_file import atomic_text
from heatbox.labelling.config import make_label_config
from heatbox.labelling.tags import every_class
from heatbox.metrics import Agreement, agreement
from heatbox.models import Card, ModelStore, make_card
from heatbox.page import PageEntry, PageFrame, Table, frame_of, write_page
from heatbox.pictures.images import Limits
from heatbox.pictures.sources import Source
from heatbox.pipeline import pipeline_for
from heatbox_workers.annotate import make_annotator
from heatbox_workers.batch import Annotated, Batch, page_entry
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.demo.compose import LABELS, Part, Scene, compose
from heatbox_workers.loading import load_classifier, make_classifier, register
from heatbox_workers.tiny import TinyNet
from heatbox_workers.train import Recipe, train_classifier

__all__ = ["COLUMNS", "Demo", "DemoResult", "run_demo"]

EXPLAINERS = ("cam", "grad_cam", "fused_cam")
ALL = "all"
COLUMNS = (
    "label",
    "explainer",
    "true boxes",
    "mean IoU",
    "found at IoU 0.5",
    "false boxes / picture",
    "s / picture",
)
_SHEET = 3  # pictures on demo.jpg; each has a row per label

Progress = Callable[[str, int, int], None]
"""Told the stage in words, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Demo:
    """What the demo makes; the defaults are those of `make demo`.

    Attributes:
        seed: of pictures, weights and training.
        training: number of training pictures.
        held_out: number of held-out pictures.
        size: side of the square pictures in pixels.
        input_size: side in pixels at which the network sees them.
        epochs: passes over the training pictures.
        threshold: box threshold as part of the heatmap's maximum; it was chosen on other composed pictures.
    """

    seed: int = 0
    training: int = 500
    held_out: int = 80
    size: int = 384
    input_size: int = 160
    epochs: int = 34
    threshold: float = 0.12


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to.

    Attributes:
        card: of the trained model, registered as `demo`.
        accuracy: per label, the share of held-out pictures whose presence or absence it tells right.
        rows: one per label and explainer, under `COLUMNS`.
    """

    card: Card
    accuracy: dict[str, float]
    rows: tuple[tuple[str | float, ...], ...]


def run_demo(demo: Demo, out: Path, store: ModelStore, progress: Progress) -> DemoResult:
    """Make the data set, the model, the boxes, the numbers and the files.

    Raises:
        OutputError: the folder or the model store cannot be written.
    """
    training = _compose(demo, demo.training, "training", progress)
    held_out = _compose(demo, demo.held_out, "held-out", progress)
    paths = _write_pictures(out, held_out)
    card = _train(demo, training, store, progress)
    rows: list[tuple[str | float, ...]] = []
    for explainer in EXPLAINERS:
        batch = _batch(card, store, paths, explainer)
        start = time.perf_counter()
        results = []
        for one in batch.annotate():
            results.append(one)
            progress(f"explaining with {explainer}", len(results), len(paths))
        rows += _measure(explainer, held_out, results, (time.perf_counter() - start) / len(results))
    result = DemoResult(card, _accuracy(load_classifier(store, card), held_out), tuple(rows))
    _write(out, batch, held_out, results, result)
    return result


def _compose(demo: Demo, count: int, part: Part, progress: Progress) -> list[Scene]:
    scenes = []
    for scene in compose(demo.seed, count, demo.size, part):
        scenes.append(scene)
        progress(f"composing {part} pictures", len(scenes), count)
    return scenes


def _train(demo: Demo, scenes: Sequence[Scene], store: ModelStore, progress: Progress) -> Card:
    """Train a small network on the scenes' image labels, never on their boxes, and register it as `demo`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(demo.seed)
        network = TinyNet(len(LABELS))
    card = make_card(
        name="demo",
        architecture="heatbox/tiny",
        labels=LABELS,
        input_size=demo.input_size,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        head="sigmoid",
        box_threshold=demo.threshold,
        source=f"heatbox demo, seed {demo.seed}",
    )
    pictures = (
        make_classifier(card, network.state_dict()).preprocess([scene.pixels for scene in scenes]).cpu()
    )
    recipe = Recipe(epochs=demo.epochs, seed=demo.seed)
    train_classifier(
        network,
        pictures,
        _presence(scenes),
        recipe,
        lambda step: progress("training", step.number, step.total),
    )
    return register(store, card, network.state_dict())


def _batch(card: Card, store: ModelStore, paths: Sequence[Path], explainer: str) -> Batch:
    """Return the held-out pictures as `heatbox annotate` would take them."""
    pipeline = pipeline_for(card, explainer=explainer, min_probability=0.5, max_labels=len(LABELS))
    annotator = make_annotator(pipeline, load_classifier(store, card), Limits())
    sources = tuple(Source(path.name, path) for path in paths)
    return Batch(sources, annotator, every_class(card.labels), Limits(), paths[0].parents[1], has_config=True)


def _measure(
    explainer: str, scenes: Sequence[Scene], results: Sequence[Annotated], seconds: float
) -> Iterable[tuple[str | float, ...]]:
    """Yield a row per label and one over all: boxes against the truth that training never saw."""
    predicted = [[(region.label, region.box) for region in _regions(one)] for one in results]
    for label in (*LABELS, ALL):
        pairs = [
            (_corners(boxes, label), _corners(scene.boxes, label))
            for boxes, scene in zip(predicted, scenes, strict=True)
        ]
        found: Agreement = agreement(pairs)
        yield label, explainer, found.truths, found.mean_iou, found.found, found.false_boxes, seconds


def _accuracy(classifier: TorchClassifier, scenes: Sequence[Scene]) -> dict[str, float]:
    logits = torch.cat([classifier.logits(classifier.preprocess([scene.pixels])) for scene in scenes]).cpu()
    right = (logits > 0) == (_presence(scenes) > 0)
    return dict(zip(LABELS, right.double().mean(dim=0).tolist(), strict=True))


def _write(
    out: Path, batch: Batch, scenes: Sequence[Scene], results: Sequence[Annotated], result: DemoResult
) -> None:
    """Write the import file, the label config, the page and the sheet."""
    batch.write(results, out / "tasks.json", None)
    with atomic_text(out / "label_config.xml") as file:
        file.write(make_label_config(LABELS))
    entries = [page_entry(one, batch.limits, scene.boxes) for one, scene in zip(results, scenes, strict=True)]
    accuracy = Table("Classifier on held-out pictures", ("label", "accuracy"), tuple(result.accuracy.items()))
    frame = frame_of(batch.pipeline, batch.annotator.fitter.threshold)
    tables = (Table("Boxes against the truth that training never saw", COLUMNS, result.rows), accuracy)
    notes = (
        "Dashed: the true boxes. The classifier was trained on image labels only.",
        f"The threshold {batch.annotator.fitter.threshold} was chosen on other composed pictures.",
    )
    write_page(out / "index.html", entries, PageFrame(frame.title, frame.subtitle, tables, notes))
    chosen = sorted(entries, key=_showing)[:_SHEET]
    Image.fromarray(contact_sheet(chosen, side=200)).save(out / "demo.jpg", quality=85)


def _showing(entry: PageEntry) -> tuple[bool, str]:
    """Order entries for the sheet: pictures with two documents first, in the order of their names."""
    return len(entry.truth) != 2, entry.name  # noqa: PLR2004 - several, yet few enough to see


def _write_pictures(out: Path, scenes: Sequence[Scene]) -> list[Path]:
    """Write held-out pictures as JPEG, and their true boxes as COCO."""
    paths = [out / "pictures" / f"{index:03d}.jpg" for index in range(len(scenes))]
    with atomic_text(out / "truth.json") as file:
        json.dump(_coco(paths, scenes), file)
    paths[0].parent.mkdir(exist_ok=True)
    for path, scene in zip(paths, scenes, strict=True):
        Image.fromarray(scene.pixels).save(path, quality=92)
    return paths


def _coco(paths: Sequence[Path], scenes: Sequence[Scene]) -> dict[str, Any]:
    size = {"width": scenes[0].pixels.shape[1], "height": scenes[0].pixels.shape[0]}
    boxes = [(image, *one) for image, scene in enumerate(scenes) for one in scene.boxes]
    return {
        "images": [{"id": index, "file_name": path.name, **size} for index, path in enumerate(paths)],
        "categories": [{"id": index, "name": label} for index, label in enumerate(LABELS)],
        "annotations": [
            {
                "id": index,
                "image_id": image,
                "category_id": LABELS.index(label),
                "bbox": [box.x1, box.y1, box.width, box.height],
                "area": box.area,
                "iscrowd": 0,
            }
            for index, (image, label, box) in enumerate(boxes)
        ],
    }


def _presence(scenes: Sequence[Scene]) -> torch.Tensor:
    """Return the image labels: (N, C), 1 where the class is in the picture."""
    return torch.tensor([[float(label in scene.labels) for label in LABELS] for scene in scenes])


def _regions(one: Annotated) -> tuple[Region, ...]:
    return one.outcome.regions if isinstance(one.outcome, Annotation) else ()


def _corners(boxes: Iterable[tuple[str, Box]], label: str) -> NDArray[np.float64]:
    """Return the boxes of a label, or of all: (B, 4) xyxy."""
    return np.array([box.as_xyxy() for name, box in boxes if label in (name, ALL)], np.float64).reshape(-1, 4)
