"""What heatbox understands of a project's label config: its labels, the controls that it fills, and all in one value.

`heatbox.labelling.config` reads it from XML.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from heatbox.labelling.attributes import Attributes

__all__ = ["Control", "Kind", "LabelConfig", "LabelTag", "every_class"]

Kind = Literal["rectanglelabels", "polygonlabels", "brushlabels", "choices"]


@dataclass(frozen=True)
class LabelTag:
    """One `<Label>` or `<Choice>`: a label of the project.

    Attributes:
        value: what people read.
        alias: what is stored instead of the value, where given.
        predicted_values: classes of the classifier that count as this label; empty = found by name.
        score_threshold: `model_score_threshold` of this label alone.
        box_threshold: `model_box_threshold` of this label alone.
        other_names: values and aliases under which other controls have it.
    """

    value: str
    alias: str | None = None
    predicted_values: tuple[str, ...] = ()
    score_threshold: float | None = None
    box_threshold: float | None = None
    other_names: tuple[str, ...] = ()

    def __hash__(self) -> int:
        """Return a hash of the value alone: thousands of labels are looked up with each task."""
        return hash(self.value)

    @property
    def name(self) -> str:
        """What a region carries: the alias, else the value."""
        return self.alias or self.value


@dataclass(frozen=True)
class Control:
    """One control that heatbox fills.

    Attributes:
        from_name: name of the control.
        to_name: name of the Image tag.
        labels: in the order of the config, names unique.
        kind: type of its regions.
        several: for choices: whether more than one may be chosen.
        per_item: for choices: whether each picture of a list has its own.
    """

    from_name: str
    to_name: str
    labels: tuple[LabelTag, ...]
    kind: Kind = "rectanglelabels"
    several: bool = False
    per_item: bool = False

    def name_of(self, label: LabelTag) -> str | None:
        """Return under which name this control stores a label, None where it does not have it."""
        values = (label.value, *label.other_names)
        return next((own.name for value in values for own in self.labels if own.value == value), None)


@dataclass(frozen=True)
class LabelConfig:
    """What heatbox understands of a label config.

    Attributes:
        controls: that heatbox fills: the first of each kind, in the order of the config; never empty.
        data_key: key of `task["data"]` that holds the picture's address.
        value_list: the key holds a list of addresses (`valueList`), and regions have an `item_index`.
        attributes: how the project wants to be annotated.
        notes: what heatbox leaves to people, one sentence each.
    """

    controls: tuple[Control, ...]
    data_key: str = "image"
    value_list: bool = False
    attributes: Attributes = field(default_factory=Attributes)
    notes: tuple[str, ...] = ()

    @cached_property
    def labels(self) -> tuple[LabelTag, ...]:
        """The labels of all controls; those that differ only in case, or are stored alike, are one."""
        found: dict[str, LabelTag] = {}
        for control in self.controls:
            own = {label.value for label in control.labels}
            others = {form: value for value, tag in found.items() if value not in own for form in _forms(tag)}
            for label in control.labels:
                same = next((others[form] for form in _forms(label) if form in others), label.value)
                known = label.value if label.value in found else same
                found[known] = _joined(found[known], label) if known in found else label
        return tuple(found.values())

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels."""
        return tuple(label.name for label in self.labels)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of regions, sorted."""
        return tuple(sorted({control.kind for control in self.controls}))

    @property
    def question(self) -> Control | None:
        """The control of image-level labels."""
        return next((control for control in self.controls if control.kind == "choices"), None)


def every_class(names: Sequence[str], data_key: str = "image") -> LabelConfig:
    """Return the label config of a project that has every class as a label."""
    control = Control("label", "image", tuple(LabelTag(name) for name in names))
    return LabelConfig((control,), data_key)


def _joined(first: LabelTag, second: LabelTag) -> LabelTag:
    """Return a label that two controls have: the first's name, and what either says about it."""
    return replace(
        first,
        predicted_values=tuple(dict.fromkeys((*first.predicted_values, *second.predicted_values))),
        score_threshold=second.score_threshold if first.score_threshold is None else first.score_threshold,
        box_threshold=second.box_threshold if first.box_threshold is None else first.box_threshold,
        other_names=tuple(dict.fromkeys((*first.other_names, second.value, second.name))),
    )


def _forms(label: LabelTag) -> tuple[tuple[str, str], ...]:
    """Return by what labels of two controls are known as one: what is stored, or what people read, in any case."""
    return ("stored", label.name), ("read", label.value.casefold())
