"""The label map: which class of the classifier stands for which label of the project.

A label takes the classes of the first rule that finds any:

1. explicit: its `predicted_values` name them; such a label is never looked up by its own name,
2. equal: the label (its value or its alias) and the class are the same text,
3. casefold: they differ in upper and lower case only,
4. normalised: they differ in punctuation, spaces, underscores and diacritics, or the label is one of the
   synonyms of an ImageNet class such as `tench, Tinca tinca`.

An earlier rule beats a later one; two labels that claim one class by the same rule are an error. Nothing is
dropped silently: every label without a class is named, with the closest classes.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from heatbox.errors import LabelAmbiguousError, LabelUnknownError
from heatbox.labelling.config import Control

__all__ = ["LabelMap", "map_labels"]

MOST_NAMES = 5
MOST_SUGGESTIONS = 50  # looking one up takes milliseconds, and Label Studio waits three seconds for /setup


@dataclass(frozen=True)
class LabelMap:
    """The classes that stand for the labels of one control.

    Attributes:
        pairs: (class, label), for `Pipeline.label_map`; sorted, so that their order changes no version.
        unmapped_labels: labels that never get a box.
        unmapped_classes: number of classes that stand for no label.
        suggestions: the closest classes of each unmapped label, best first.
        warnings: what a person should read, one sentence each.
    """

    pairs: tuple[tuple[str, str], ...]
    unmapped_labels: tuple[str, ...]
    unmapped_classes: int
    suggestions: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...]


def map_labels(classes: Sequence[str], control: Control) -> LabelMap:
    """Find the classes that stand for the labels of a control.

    Args:
        classes: class names of the classifier.
        control: of the project's label config.

    Raises:
        LabelAmbiguousError: two labels claim one class by the same rule.
        LabelUnknownError: no label has a class.
    """
    indices = {rule: _index(classes, rule) for rule in RULES}
    owners = _owners(control, indices)
    pairs = tuple(sorted(owners.items()))
    mapped = {label for _, label in pairs}
    unmapped = tuple(label for label in control.label_names if label not in mapped)
    suggestions = {
        label: _close(label, indices) if rank < MOST_SUGGESTIONS else ()
        for rank, label in enumerate(unmapped)
    }
    if not pairs:
        close = _closest([name for names in suggestions.values() for name in names])
        raise LabelUnknownError(
            f"The classifier has no class for {_listed(unmapped)}.",
            f"Name its classes in the predicted_values of each <Label>; {close}.",
        )
    warnings = (
        *_missing_values(control, indices),
        *_broad_labels(control, owners),
        *(
            f"Label {label!r} has no class and gets no box; {_closest(suggestions[label])}."
            for label in unmapped
        ),
    )
    return LabelMap(pairs, unmapped, len(set(classes)) - len(owners), suggestions, warnings)


@dataclass(frozen=True)
class _Rule:
    """One way to compare a label with a class: their forms are equal."""

    name: str
    form: Callable[[str], str]
    synonyms: bool = False


_Index = Mapping[str, Sequence[str]]


def _normalise(name: str) -> str:
    """Return a name without case, diacritics, punctuation and doubled spaces."""
    letters = (
        " " if unicodedata.category(letter)[0] in "PZC" else letter
        for letter in unicodedata.normalize("NFKD", name.casefold())
        if not "\u0300" <= letter <= "\u036f"
    )
    return " ".join("".join(letters).split())


RULES = (
    _Rule("equal", str),
    _Rule("casefold", str.casefold),
    _Rule("normalised", _normalise, synonyms=True),
)


def _index(classes: Sequence[str], rule: _Rule) -> _Index:
    """Return the classes by each form that the rule gives their names."""
    index: dict[str, dict[str, None]] = {}
    for name in classes:
        for synonym in (name, *name.split(",")) if rule.synonyms else (name,):
            index.setdefault(rule.form(synonym), {})[name] = None
    return {form: tuple(names) for form, names in index.items() if form}


def _find(names: Sequence[str], rule: _Rule, index: _Index) -> list[str]:
    return [found for name in dict.fromkeys(map(rule.form, names)) for found in index.get(name, ())]


def _predicted(value: str, indices: Mapping[_Rule, _Index]) -> list[str]:
    """Return the classes that one of the `predicted_values` names, by the first rule that finds any."""
    found = (_find([value], rule, index) for rule, index in indices.items())
    return next(filter(None, found), [])


def _owners(control: Control, indices: Mapping[_Rule, _Index]) -> dict[str, str]:
    """Return the label of each class that has one."""
    owners: dict[str, str] = {}
    explicit = {
        label.name: [name for value in label.predicted_values for name in _predicted(value, indices)]
        for label in control.labels
    }
    _claim(owners, explicit, "predicted_values")
    waiting = [label for label in control.labels if not label.predicted_values]
    for rule, index in indices.items():
        found = {label.name: _find([label.value, label.name], rule, index) for label in waiting}
        free = {label: [name for name in names if name not in owners] for label, names in found.items()}
        _claim(owners, free, rule.name)
        waiting = [label for label in waiting if not free[label.name]]
    return owners


def _claim(owners: dict[str, str], claims: Mapping[str, Sequence[str]], rule: str) -> None:
    """Enter each label as the owner of the classes that it claims."""
    for label, names in claims.items():
        for name in names:
            if owners.setdefault(name, label) != label:
                raise LabelAmbiguousError(
                    f"The labels {owners[name]!r} and {label!r} both claim the class {name!r} ({rule}).",
                    "Name each class in the predicted_values of one <Label> only.",
                )


def _missing_values(control: Control, indices: Mapping[_Rule, _Index]) -> Iterator[str]:
    for label in control.labels:
        for value in label.predicted_values:
            if not _predicted(value, indices):
                close = _closest(_close(value, indices))
                yield f"Label {label.name!r} names {value!r} in predicted_values, which is no class; {close}."


def _broad_labels(control: Control, owners: Mapping[str, str]) -> Iterator[str]:
    classes: dict[str, list[str]] = {}
    for name, label in owners.items():
        classes.setdefault(label, []).append(name)
    for tag in control.labels:
        names = classes.get(tag.name, [])
        if len(names) > 1 and not tag.predicted_values:
            yield f"Label {tag.name!r} stands for {_listed(names)}; predicted_values would narrow it."


def _close(name: str, indices: Mapping[_Rule, _Index]) -> tuple[str, ...]:
    """Return the classes whose names are close to a name, best first."""
    index = indices[RULES[-1]]
    forms = get_close_matches(_normalise(name), index, n=3, cutoff=0.5)
    return tuple(dict.fromkeys(found for form in forms for found in index[form]))[:3]


def _closest(names: Sequence[str]) -> str:
    return f"closest: {_listed(names)}" if names else "no class has a similar name"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(map(repr, names[:MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
