"""What a task asks for: its pictures, what is known to be in them, and what a person points at in the editor.

Weak labels in, boxes out: where the project has image-level labels already (an answered `<Choices>`, or a key of the
data that `model_labels` names), boxes are looked for under these and no others.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatbox.errors import TasksFileError
from heatbox.labelling.mapping import meanings
from heatbox.labelling.quoting import quoted
from heatbox.labelling.tags import LabelConfig
from heatbox.pictures.addresses import is_cloud
from heatbox.pictures.wanted import Wanted
from heatbox.studio.annotations import counting_annotation

__all__ = ["Prompt", "known_labels", "read_prompt", "task_addresses", "wanted_pictures"]

log = logging.getLogger(__name__)

_MOST_WORDS = 5  # in one line of the log
_MOST_NUMBER = 2**63
_PROMPTS = ("rectanglelabels", "keypointlabels", "rectangle", "keypoint")
_WHOLE = 100.0

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What a person drew with a smart tool.

    Attributes:
        item_index: picture of the task's list that it was drawn on.
        label: name of the label, None where it has none that the config knows.
        within: x, y, width, height of a rectangle in percent.
        point: x, y in percent.
    """

    item_index: int = 0
    label: str | None = None
    within: tuple[float, float, float, float] | None = None
    point: tuple[float, float] | None = None

    def asks(self, wanted: Wanted) -> Wanted:
        """Return a picture that is asked for, as the prompt means it."""
        labels = wanted.labels if self.label is None else (self.label,)
        return replace(wanted, labels=labels, within=self.within, point=self.point)


def wanted_pictures(task: Task, config: LabelConfig, usable: Collection[str]) -> list[Wanted]:
    """Return the task's pictures, in the order of their item indices, with the labels that are known to be in them.

    Args:
        task: a task, or its bare data.
        config: of its project.
        usable: labels that a class stands for; others are left out of what is known.

    Raises:
        TasksFileError: the task has no address under the key.
    """
    addresses = task_addresses(task, config)
    known = known_labels(task, config, usable, len(addresses))
    number = task.get("id")
    return [
        Wanted(address, number if is_cloud(address) and type(number) is int else None, labels)
        for address, labels in zip(addresses, known, strict=True)
    ]


def known_labels(
    task: Task, config: LabelConfig, usable: Collection[str], pictures: int = 1
) -> list[tuple[str, ...] | None]:
    """Return for each of a task's pictures the labels that are known to be in it, None where nobody said.

    A word that means no usable label is left out, and the log says so: the words come from people and are no secret.

    Args:
        task: a task, or its bare data.
        config: of its project.
        usable: labels that a class stands for.
        pictures: how many the task has.
    """
    said = _said(task, config, pictures)
    meaning = meanings(config.labels)
    known: dict[int | None, tuple[str, ...]] = {}
    for index, words in said.items():
        meant = {word: label for word in words if (label := meaning(word)) is not None and label in usable}
        known[index] = tuple(dict.fromkeys(meant.values()))
        _tell_of_others(
            task, index, [word for word in dict.fromkeys(words) if word not in meant], known[index]
        )
    return [known.get(index, known.get(None)) for index in range(pictures)]


def task_addresses(task: Task, config: LabelConfig) -> list[str]:
    """Return the addresses of a task's pictures, in the order of their item indices; at least one.

    Args:
        task: a task, or its bare data.
        config: whose Image tag names the key.

    Raises:
        TasksFileError: the task has no address under the key.
    """
    data = _data(task)
    value = data.get(config.data_key)
    addresses = value if isinstance(value, list) and config.value_list else [value]
    if addresses and all(isinstance(address, str) and address for address in addresses):
        return list(addresses)
    wanted = "a list of addresses" if config.value_list else "one address"
    raise TasksFileError(
        f"Task {task.get('id', '(no id)')} has no picture: data[{quoted(config.data_key)}] is {quoted(value)}.",
        f"Put {wanted} there, or let <Image> name another key; the task has: {', '.join(map(str, data))}.",
    )


def read_prompt(context: object, config: LabelConfig) -> Prompt | None:
    """Return what was drawn last with a smart tool, None without a context.

    Where nothing was drawn that can be understood, the whole picture is meant.
    """
    results = context.get("result") if isinstance(context, Mapping) else None
    for region in reversed(results if isinstance(results, list) else []):
        prompt = _prompt(region, config) if isinstance(region, Mapping) else None
        if prompt is not None:
            return prompt
    return Prompt() if isinstance(context, Mapping) and context else None


def _said(task: Task, config: LabelConfig, pictures: int) -> dict[int | None, list[str]]:
    """Return what is said about pictures by their item indices, None: about all; nothing where nobody said."""
    words = _in_data(task, config)
    if words is not None:
        return {None: words}
    question = config.question
    if question is None:
        return {}
    name = question.from_name
    annotation = counting_annotation(task.get("annotations"), lambda one: bool(_chosen(one, name)))
    said: dict[int | None, list[str]] = {}
    for index, texts in _chosen(annotation, name):
        if index < pictures or not question.per_item:
            said.setdefault(index if question.per_item else None, []).extend(texts)
    return said


def _in_data(task: Task, config: LabelConfig) -> list[str] | None:
    """Return what the key of the data says that `model_labels` names, None where it says nothing."""
    key = config.attributes.labels_key
    value = _data(task).get(key) if key else None
    if isinstance(value, str) and "," in value and meanings(config.labels)(value) is None:
        return _texts(value.split(","))
    words = _texts(value)
    if words is None and value is not None and not isinstance(value, str):
        log.warning("%s: data[%s] is %s, which names no label", _called(task), quoted(key), quoted(value))
    return words


def _chosen(annotation: Mapping[str, Any] | None, from_name: str) -> list[tuple[int, list[str]]]:
    """Return the item indices and choices of an annotation's answers to a question."""
    results = _get(annotation, "result")
    return [
        (_item_index(region), texts)
        for region in (results if isinstance(results, list) else [])
        if isinstance(region, Mapping) and region.get("from_name") == from_name
        if (texts := _texts(_get(region.get("value"), "choices"))) is not None
    ]


def _tell_of_others(task: Task, index: int | None, others: Sequence[str], known: Sequence[str]) -> None:
    """Say in the log which words mean no label that can be looked for."""
    if others:
        named = ", ".join(map(quoted, others[:_MOST_WORDS]))
        more = f" and {len(others) - _MOST_WORDS} more" if len(others) > _MOST_WORDS else ""
        where = "" if index is None else f", picture {index}"
        rest = "" if known else "; so nothing is looked for"
        log.warning("%s%s: no label with a class is meant by %s%s%s", _called(task), where, named, more, rest)


def _called(task: Task) -> str:
    number = task.get("id")
    return f"task {number}" if type(number) is int and number < _MOST_NUMBER else "a task without a number"


def _texts(value: object) -> list[str] | None:
    """Return one text or a list of texts as a list; None where there is nothing, so that nothing is known."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else None
    if isinstance(value, list):
        texts = (text if isinstance(text, str) else quoted(text) for text in value if text is not None)
        return [text.strip() for text in texts if text.strip()]
    return None


def _prompt(region: Mapping[str, Any], config: LabelConfig) -> Prompt | None:
    kind, value = region.get("type"), region.get("value")
    if kind not in _PROMPTS or not isinstance(value, Mapping):
        return None
    x, y, width, height = (_percent(value.get(side)) for side in ("x", "y", "width", "height"))
    if x is None or y is None:
        return None
    named = _texts(value.get(kind)) or [""]
    label = meanings(config.labels)(named[0])
    if kind.startswith("keypoint"):
        return Prompt(_item_index(region), label, point=(x, y))
    if not width or not height or x >= _WHOLE or y >= _WHOLE:
        return None
    return Prompt(_item_index(region), label, within=(x, y, min(width, _WHOLE - x), min(height, _WHOLE - y)))


def _item_index(region: Mapping[str, Any]) -> int:
    index = region.get("item_index")
    return index if type(index) is int and index >= 0 else 0


def _percent(value: object) -> float | None:
    """Return a number clipped to [0, 100], None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None
    return min(max(float(min(max(value, -1), _WHOLE + 1)), 0.0), _WHOLE)


def _data(task: Task) -> Mapping[str, Any]:
    return task["data"] if isinstance(task.get("data"), Mapping) else task


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None
