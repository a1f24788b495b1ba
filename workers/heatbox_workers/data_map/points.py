"""A map of pictures: where a classifier sees them near each other, what it says, and what people say.

The pictures are those of a project in Label Studio, or of a data set on disk; `projection` places them, and `page`
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
from heatbox_workers.data_map.page import OTHER, MapPoint, cell_side, thumbnail
from heatbox_workers.examples import read_dataset
from heatbox_workers.looking import Look, look_at, shares_of

__all__ = ["Pictured", "Seen", "known_classes", "look", "of_dataset", "of_tasks", "strange_names"]


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


def strange_names(names: Sequence[str], classifier: TorchClassifier) -> list[str]:
    """Return the labels of a data set that are no class of the classifier, but for capitals and underlines.

    Where there are any it was made for other names, and what sounds alike is an accident: a jack of cards is no jack
    to lift cars.
    """
    own = {_plain(label) for label in classifier.labels}
    return [name for name in names if _plain(name) not in own]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def known_classes(names: Sequence[str], classifier: TorchClassifier) -> dict[str, Sequence[int]]:
    """Return the classes that stand for the labels of a data set; each other class stands for itself."""
    own = [] if strange_names(names, classifier) else names
    known: dict[str, Sequence[int]] = {
        name: found for name, found in classes_by_name(own, classifier.labels).items() if found
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
    compared: bool = True,
) -> Seen:
    """Look at pictures; one that cannot be read is not on the map.

    Args:
        pictures: that are to be on the map.
        classifier: that looks.
        known: class indices by label; none: it says nothing about these labels.
        limits: of the pictures that are read.
        fetch: returns the file, or raises HeatboxError; called in threads.
        told: called after each.
        compared: whether what people say and what the classifier says are the same names.

    Raises:
        HeatboxError: none can be read; the first one's error.
    """
    seen, side = Seen(), cell_side(len(pictures))
    looks = look_at((one.wanted for one in pictures), fetch, classifier, limits)
    for one, found in zip(pictures, looks, strict=True):
        if isinstance(found, Look):
            predicted = _predicted(found, known, classifier.card.head)
            if one.labels is not None and not (compared and _can_say(one.labels, known)):
                predicted = ""  # it is asked about other things
            wrong = _is_wrong(predicted, one.labels)
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


def _can_say(labels: Sequence[str], known: Mapping[str, Sequence[int]]) -> bool:
    """Return whether the classifier could say what people say; that there is nothing it always can."""
    return not labels or any(label in known for label in labels)


def _is_wrong(predicted: str, labels: Sequence[str] | None) -> bool:
    """Return whether people say something else; nothing and something else agree."""
    if labels is None or not predicted:
        return False
    return predicted not in labels if labels else predicted != OTHER


def _link(path: Path, page: Path) -> str:
    """Return a file's address for a page in another folder; it begins with a dot, so it is never a scheme."""
    relative = os.path.relpath(path.absolute(), page.absolute().parent)
    return "./" + quote(os.fsencode(relative))
