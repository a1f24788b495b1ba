"""The `model_*` attributes of a label config: how a project wants to be annotated.

Known from the official ML backend examples (https://github.com/HumanSignal/label-studio-ml-backend) are
`model_score_threshold`, `model_skip` and on labels `predicted_values`; the others are heatbox's own. On a control
they hold for the project, on a `<Label>` or `<Choice>` for that label. A value that cannot be is an error with the
nearest one that can; an attribute that nobody knows is a remark.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element

from heatbox.errors import LabelConfigError
from heatbox.labelling.quoting import quoted
from heatbox.plugins import BOX_FITTERS, EXPLAINERS, plugin_names

__all__ = ["Attributes", "called", "label_attributes", "project_attributes"]

_OF_LABELS = ("model_score_threshold", "model_box_threshold")
_MOST_REMARKS = 20
_MOST_CHARACTERS = 200  # of a model's name and of a key
_SMALLEST, _LARGEST = 0.001, 0.999  # a box threshold at 0 or 1 would keep everything or nothing


@dataclass(frozen=True)
class Attributes:
    """What a project's label config chooses; None: the settings decide.

    Attributes:
        model: `model_name`, name or name@version of a registered model.
        explainer: `model_explainer`.
        fitter: `model_fitter`.
        score_threshold: `model_score_threshold`: classes below this probability are not explained.
        box_threshold: `model_box_threshold`, as part of the heatmap's maximum.
        max_labels: `model_max_labels`: at most so many classes per picture.
        labels_key: `model_labels`: key of the tasks' data that says what is in a picture.
    """

    model: str | None = None
    explainer: str | None = None
    fitter: str | None = None
    score_threshold: float | None = None
    box_threshold: float | None = None
    max_labels: int | None = None
    labels_key: str | None = None


_NAMES = {
    "model_name": "model",
    "model_explainer": "explainer",
    "model_fitter": "fitter",
    "model_score_threshold": "score_threshold",
    "model_box_threshold": "box_threshold",
    "model_max_labels": "max_labels",
    "model_labels": "labels_key",
}


def project_attributes(
    controls: Mapping[Element, Sequence[Element]],
) -> tuple[Attributes, tuple[str, ...]]:
    """Return what the controls that are filled choose, and remarks about attributes that nobody knows.

    Args:
        controls: those that are filled, each with the tags inside it.

    Raises:
        LabelConfigError: a value cannot be, or two controls choose differently.
    """
    found: dict[str, tuple[Element, Any]] = {}
    for control in controls:
        for attribute, name in _NAMES.items():
            value = _value(control, attribute)
            if value is None:
                continue
            other, chosen = found.setdefault(name, (control, value))
            if chosen != value:
                raise LabelConfigError(
                    f"{attribute} is {quoted(chosen)} in {called(other)} and {quoted(value)} in {called(control)}.",
                    "Write it once, or the same in both.",
                )
    known = {field.name: found[field.name][1] for field in fields(Attributes) if field.name in found}
    return Attributes(**known), tuple(islice(_remarks(controls), _MOST_REMARKS))


def label_attributes(label: Element) -> tuple[float | None, float | None]:
    """Return a label's own score threshold and box threshold.

    Raises:
        LabelConfigError: one cannot be.
    """
    score, box = (_value(label, attribute) for attribute in _OF_LABELS)
    return score, box


def _value(element: Element, attribute: str) -> Any:  # noqa: ANN401 - what the attribute holds
    text = element.get(attribute, "").strip()
    return _READERS[attribute](element, attribute) if text else None


def called(element: Element) -> str:
    """Return what a message calls a tag: its kind, and its name or else its value."""
    name = element.get("name") or element.get("value") or element.get("alias") or ""
    return f"<{element.tag[:80]}> {quoted(name)}"


def _text(element: Element, attribute: str) -> str:
    return element.get(attribute, "").strip()


def _name(element: Element, attribute: str) -> str:
    text = _text(element, attribute)
    if len(text) <= _MOST_CHARACTERS:
        return text
    raise _wrong(element, attribute, f"Write a name of at most {_MOST_CHARACTERS} characters.")


def _number(smallest: float, largest: float, element: Element, attribute: str) -> float:
    try:
        value = float(_text(element, attribute))
    except ValueError:
        value = float("nan")
    if smallest <= value <= largest:
        return value
    nearest = f"the nearest is {min(max(value, smallest), largest):g}" if value == value else "such as 0.25"  # noqa: PLR0124 - NaN
    raise _wrong(element, attribute, f"Write a number from {smallest:g} to {largest:g}; {nearest}.")


def _count(element: Element, attribute: str) -> int:
    text = _text(element, attribute)
    if text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0:  # noqa: PLR2004 - digits of an int
        return int(text)
    raise _wrong(element, attribute, "Write a whole number; the nearest is 1.")


def _registered(group: str, element: Element, attribute: str) -> str:
    text, known = _text(element, attribute), list(plugin_names(group))
    if text in known:
        return text
    close = get_close_matches(text[:80].lower().replace("-", "_"), known, n=1, cutoff=0.0)
    raise _wrong(
        element, attribute, f"The nearest is {close[0] if close else 'none'}; there are {', '.join(known)}."
    )


def _key(element: Element, attribute: str) -> str:
    text = _text(element, attribute)
    if text.startswith("$") and 1 < len(text) <= _MOST_CHARACTERS and not set("$, ") & set(text[1:]):
        return text[1:]
    nearest = "$" + "".join(letter for letter in text[:_MOST_CHARACTERS] if letter not in "$, ")[:80]
    raise _wrong(element, attribute, f"Write one key of the task's data; the nearest is {nearest}.")


_READERS: Mapping[str, Callable[[Element, str], Any]] = {
    "model_name": _name,
    "model_explainer": partial(_registered, EXPLAINERS),
    "model_fitter": partial(_registered, BOX_FITTERS),
    "model_score_threshold": partial(_number, 0.0, 1.0),
    "model_box_threshold": partial(_number, _SMALLEST, _LARGEST),
    "model_max_labels": _count,
    "model_labels": _key,
}


def _wrong(element: Element, attribute: str, remedy: str) -> LabelConfigError:
    return LabelConfigError(
        f"{called(element)} has {attribute}={quoted(element.get(attribute))}, which cannot be.", remedy
    )


def _remarks(controls: Mapping[Element, Sequence[Element]]) -> Iterable[str]:
    for control, own in controls.items():
        for element in (control, *own):
            known = (*_NAMES, "model_skip") if element is control else _OF_LABELS
            for attribute in element.attrib:
                if attribute.startswith("model_") and attribute not in known:
                    yield _remark(element, attribute, known)


def _remark(element: Element, attribute: str, known: Sequence[str]) -> str:
    if attribute == "model_path":
        return f"{called(element)}: model_path is not read; model_name names a registered model."
    close = get_close_matches(attribute[:80], known, n=1, cutoff=0.0)[0]
    return f"{called(element)}: {attribute[:80]} is not known; the nearest is {close}."
