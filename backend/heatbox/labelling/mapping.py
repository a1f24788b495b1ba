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
from functools import lru_cache

from heatbox.errors import LabelAmbiguousError, LabelUnknownError
from heatbox.labelling.tags import LabelTag

__all__ = ["LabelMap", "map_labels", "meanings"]

MOST_NAMES = 5
MOST_WARNINGS = 200  # of a kind
MOST_SUGGESTIONS = 20  # one takes 15 ms among 1000 classes, and Label Studio waits three seconds for /setup


@dataclass(frozen=True)
class LabelMap:
    """The classes that stand for the labels of a project.

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


def map_labels(classes: Sequence[str], labels: Sequence[LabelTag]) -> LabelMap:
    """Find the classes that stand for the labels of a project.

    Args:
        classes: class names of the classifier.
        labels: of the project's label config.

    Raises:
        LabelAmbiguousError: two labels claim one class by the same rule.
        LabelUnknownError: no label has a class.
    """
    indices = {rule: _index(classes, rule) for rule in RULES}
    owners = _owners(labels, indices)
    pairs = tuple(sorted(owners.items()))
    mapped = {label for _, label in pairs}
    unmapped = tuple(label for label in (tag.name for tag in labels) if label not in mapped)
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
        *_missing_values(labels, indices),
        *_broad_labels(labels, owners),
        *(
            f"Label {label!r} has no class and gets no box; {_closest(suggestions[label])}."
            for label in unmapped[:MOST_WARNINGS]
        ),
        *_rest(len(unmapped), "labels have no class and get no box"),
    )
    return LabelMap(pairs, unmapped, len(set(classes)) - len(owners), suggestions, warnings)


def meanings(labels: tuple[LabelTag, ...]) -> Callable[[str], str | None]:
    """Return what finds the label that a text means, by its value, alias or a predicted value, however written.

    Looking the labels up takes longer than a text, so it is done once for all texts of a task.
    """
    indices = _label_indices(labels)

    def meant(text: str) -> str | None:
        return next(filter(None, (index.get(rule.form(text)) for rule, index in indices)), None)

    return meant


@lru_cache(32)  # asked for each task; projects may have a thousand labels
def _label_indices(labels: tuple[LabelTag, ...]) -> list[tuple["_Rule", Mapping[str, str]]]:
    """Return the labels' names by the forms of what they are called, the strictest rule first."""
    called: tuple[Callable[[LabelTag], Sequence[str]], ...] = (
        lambda label: (label.value, label.name, *label.other_names),
        lambda label: label.predicted_values,
    )
    indices: list[tuple[_Rule, Mapping[str, str]]] = []
    for names in called:
        for rule in RULES:
            forms = ((rule.form(name), label.name) for label in labels for name in names(label))
            indices.append((rule, {form: label for form, label in reversed(list(forms)) if form}))
    return indices


@dataclass(frozen=True)
class _Rule:
    """One way to compare a label with a class: their forms are equal."""

    name: str
    form: Callable[[str], str]
    synonyms: bool = False


_Index = Mapping[str, Sequence[str]]


class _Letters(dict[int, str]):
    """What becomes of each letter by its code; common ones are remembered, which makes long names ten times faster."""

    def __missing__(self, code: int) -> str:
        """Return a space for punctuation and the like, nothing for a diacritic, else the letter."""
        letter = chr(code)
        plain = "" if "\u0300" <= letter <= "\u036f" else letter
        found = " " if unicodedata.category(letter)[0] in "PZC" else plain
        return self.setdefault(code, found) if code <= _COMMON else found


_COMMON = 0xFFFF
_LETTERS = _Letters()


def _normalise(name: str) -> str:
    """Return a name without case, diacritics, punctuation and doubled spaces."""
    return " ".join(unicodedata.normalize("NFKD", name.casefold()).translate(_LETTERS).split())


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


def _owners(labels: Sequence[LabelTag], indices: Mapping[_Rule, _Index]) -> dict[str, str]:
    """Return the label of each class that has one."""
    owners: dict[str, str] = {}
    explicit = {
        label.name: [name for value in label.predicted_values for name in _predicted(value, indices)]
        for label in labels
    }
    _claim(owners, explicit, "predicted_values")
    waiting = [label for label in labels if not label.predicted_values]
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


def _missing_values(labels: Sequence[LabelTag], indices: Mapping[_Rule, _Index]) -> Iterator[str]:
    missing = [
        (label, value)
        for label in labels
        for value in label.predicted_values
        if not _predicted(value, indices)
    ]
    for rank, (label, value) in enumerate(missing[:MOST_WARNINGS]):
        close = f"; {_closest(_close(value, indices))}" if rank < MOST_SUGGESTIONS else ""
        yield f"Label {label.name!r} names {value!r} in predicted_values, which is no class{close}."
    yield from _rest(len(missing), "values in predicted_values are no classes")


def _rest(count: int, what: str) -> Iterator[str]:
    if count > MOST_WARNINGS:
        yield f"{count - MOST_WARNINGS} more {what}."


def _broad_labels(labels: Sequence[LabelTag], owners: Mapping[str, str]) -> Iterator[str]:
    classes: dict[str, list[str]] = {}
    for name, label in owners.items():
        classes.setdefault(label, []).append(name)
    for tag in labels:
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
