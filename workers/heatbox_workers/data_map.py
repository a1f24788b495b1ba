"""A map of pictures: where a classifier sees them near each other, what it says, and what people say.

The pictures are those of a project in Label Studio, or of a data set on disk; `projection` places them, and `map_page`
shows them.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from heatbox.corrections.corrected import Corrected
from heatbox.errors import DatasetError, HeatboxError, TasksFileError
from heatbox.labelling.tags import LabelConfig
from heatbox.labelling.tasks import task_addresses
from heatbox.pictures.addresses import is_cloud, local_name
from heatbox.pictures.images import Limits
from heatbox.pictures.wanted import Wanted
from heatbox.studio.priorities import ListedTask
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.coco import classes_by_name
from heatbox_workers.examples import read_dataset
from heatbox_workers.looking import Look, look_at, shares_of
from heatbox_workers.map_page import OTHER, MapPoint, cell_side, thumbnail

__all__ = ["Pictured", "Seen", "known_classes", "look", "of_dataset", "of_tasks"]


@dataclass(frozen=True)
class Pictured:
    """A picture that is to be on the map.

    Attributes:
        name: what a person calls it.
        href: where a click leads.
        wanted: where it is.
        labels: what people say is in it; None: nobody has.
    """

    name: str
    href: str
    wanted: Wanted
    labels: tuple[str, ...] | None = None


@dataclass
class Seen:
    """Pictures that were looked at: points with their embeddings, and by name those that could not be."""

    points: list[MapPoint] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    failed: list[tuple[str, HeatboxError]] = field(default_factory=list)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Of the points: (N, D)."""
        return np.stack(self.vectors)


def of_tasks(
    tasks: Iterable[ListedTask],
    config: LabelConfig,
    corrected: Iterable[Corrected],
    address: str,
) -> tuple[list[Pictured], list[tuple[str, HeatboxError]]]:
    """Return the pictures of a project, and the tasks that have none.

    Args:
        tasks: of the project.
        config: names the key of the pictures.
        corrected: what people say.
        address: of a task in Label Studio, up to its number.
    """
    said = {(one.task, one.item): one.labels for one in corrected}
    pictures: list[Pictured] = []
    failed: list[tuple[str, HeatboxError]] = []
    for task in tasks:
        try:
            addresses = task_addresses({"id": task.id, "data": task.data}, config)
        except TasksFileError as error:
            failed.append((f"task {task.id}", error))
            continue
        for item, one in enumerate(addresses):
            wanted = Wanted(one, task.id if is_cloud(one) else None)
            name = f"{local_name(one)}, task {task.id}"
            pictures.append(Pictured(name, f"{address}{task.id}", wanted, said.get((task.id, item))))
    return pictures, failed


def of_dataset(source: Path, images: Path | None, page: Path) -> tuple[list[Pictured], list[str]]:
    """Return the pictures of a data set on disk, and the names of its labels.

    Args:
        source: as `heatbox_workers.examples.read_dataset` takes it.
        images: folder of a COCO file's pictures.
        page: from which they are linked.

    Raises:
        DatasetError: it is no data set.
    """
    _, names = read_dataset(source, (), images)  # no class at all: every name is told
    listed, _ = read_dataset(source, names, images)
    pictures = []
    for one in listed:
        labels = tuple(sorted({names[index] for index, _ in one.objects}))
        known = labels if labels or one.size is not None else None
        pictures.append(Pictured(one.path.name, _link(one.path, page), Wanted(str(one.path)), known))
    return pictures, names


def known_classes(names: Sequence[str], classifier: TorchClassifier) -> dict[str, Sequence[int]]:
    """Return the classes that stand for the labels of a data set; each other class stands for itself."""
    known: dict[str, Sequence[int]] = {
        name: found for name, found in classes_by_name(names, classifier.labels).items() if found
    }
    taken = {index for found in known.values() for index in found}
    others = {name: (index,) for index, name in enumerate(classifier.labels) if index not in taken}
    return {**others, **known}


def look(  # noqa: PLR0913 - who looks at what, and how it is read
    pictures: Sequence[Pictured],
    classifier: TorchClassifier,
    known: Mapping[str, Sequence[int]],
    limits: Limits,
    fetch: Callable[[Wanted], Path],
    *,
    told: Callable[[], object] = lambda: None,
) -> Seen:
    """Look at pictures; one that cannot be read is not on the map.

    Args:
        pictures: that are to be on the map.
        classifier: that looks.
        known: class indices by label; none: it says nothing about these labels.
        limits: of the pictures that are read.
        fetch: returns the file, or raises HeatboxError; called in threads.
        told: called after each.

    Raises:
        HeatboxError: none can be read; the first one's error.
    """
    seen, side = Seen(), cell_side(len(pictures))
    looks = look_at((one.wanted for one in pictures), fetch, classifier, limits)
    for one, found in zip(pictures, looks, strict=True):
        if isinstance(found, Look):
            predicted = _predicted(found, known, classifier.card.head)
            wrong = bool(one.labels) and _is_wrong(predicted, one.labels or (), known)
            pixels = thumbnail(found.picture.pixels, side)
            seen.points.append(MapPoint(one.name, one.href, pixels, predicted, one.labels, wrong))
            seen.vectors.append(found.embedding)
        else:
            seen.failed.append((one.name, found))
        told()
    if not seen.points:
        raise (
            seen.failed[0][1] if seen.failed else DatasetError("There is no picture.", "Import or name some.")
        )
    return seen


def _predicted(found: Look, known: Mapping[str, Sequence[int]], head: str) -> str:
    return (shares_of(found.probabilities, known, head).best or OTHER) if known else ""


def _is_wrong(predicted: str, labels: Sequence[str], known: Mapping[str, Sequence[int]]) -> bool:
    """Return whether the classifier could have said what people say, and did not."""
    return bool(predicted) and predicted not in labels and any(label in known for label in labels)


def _link(path: Path, page: Path) -> str:
    """Return a file's address for a page in another folder; it begins with a dot, so it is never a scheme."""
    relative = os.path.relpath(path.absolute(), page.absolute().parent)
    return "./" + quote(os.fsencode(relative))
