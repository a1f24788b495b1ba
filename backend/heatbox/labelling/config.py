"""A project's label config: which boxes Label Studio can show, under which labels, on which picture.

Protocol: https://labelstud.io/tags/rectanglelabels and https://labelstud.io/tags/image; `predicted_values` as
in the official ML backend examples. It comes from outside: no DTD, no entities, at most `MAX_CONFIG_BYTES`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from heatbox.errors import LabelConfigError

__all__ = [
    "MAX_CONFIG_BYTES",
    "Control",
    "LabelConfig",
    "LabelTag",
    "every_class",
    "make_label_config",
    "parse_label_config",
]

MAX_CONFIG_BYTES = 1_000_000

EXAMPLE = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/></RectangleLabels></View>'
)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class LabelTag:
    """One `<Label>`: a label of the project.

    Attributes:
        value: what people read.
        alias: what is stored instead of the value, where given.
        predicted_values: classes of the classifier that count as this label; empty = found by name.
    """

    value: str
    alias: str | None = None
    predicted_values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a region carries: the alias, else the value."""
        return self.alias or self.value


@dataclass(frozen=True)
class Control:
    """One control that heatbox can fill, and the picture it draws on.

    Attributes:
        from_name: name of the control.
        to_name: name of the Image tag.
        labels: in the order of the config, names unique.
        data_key: key of `task["data"]` that holds the picture's address.
        value_list: the key holds a list of addresses (`valueList`), and regions have an `item_index`.
        kind: type of its regions.
    """

    from_name: str
    to_name: str
    labels: tuple[LabelTag, ...]
    data_key: str
    value_list: bool = False
    kind: Literal["rectanglelabels"] = "rectanglelabels"

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that a region may carry."""
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True)
class LabelConfig:
    """What heatbox understands of a label config; never without a control.

    Attributes:
        controls: in the order of the config.
        notes: what heatbox leaves to people, one sentence each.
    """

    controls: tuple[Control, ...]
    notes: tuple[str, ...] = ()

    @property
    def control(self) -> Control:
        """The control that heatbox fills: the first."""
        return self.controls[0]


def parse_label_config(text: str) -> LabelConfig:
    """Read a label config.

    Args:
        text: the XML, as in Label Studio's labeling interface, `/setup` or `/predict`.

    Raises:
        LabelConfigError: not XML, too large, names or labels twice, no RectangleLabels on an Image.
    """
    elements = list(_parse(text).iter())
    _check_unique((element.get("name", "") for element in elements), "tag names")
    images = {element.get("name", ""): element for element in elements if _is(element, "image")}
    if not images:
        raise LabelConfigError(
            "The label config has no <Image> tag.", f"heatbox boxes pictures; for example: {EXAMPLE}"
        )
    controls = tuple(_control(element, images) for element in elements if _is(element, "rectanglelabels"))
    if not controls:
        raise LabelConfigError(
            f"The label config has no <RectangleLabels>; heatbox cannot fill {_controls_named(elements)}.",
            f"Add one beside the other controls; for example: {EXAMPLE}",
        )
    return LabelConfig(controls, tuple(_notes(elements, controls)))


def every_class(names: Sequence[str], data_key: str = "image") -> Control:
    """Return the control of a project that has every class as a label."""
    return Control("label", "image", tuple(LabelTag(name) for name in names), data_key)


def make_label_config(labels: Sequence[str], data_key: str = "image") -> str:
    """Return a label config for pictures under a key of the task's data with these labels.

    Raises:
        LabelConfigError: no label, a label twice, or one that XML or Label Studio cannot hold.
    """
    if not labels:
        raise LabelConfigError(
            "A label config needs at least one label.", "Name the labels that people shall box."
        )
    for label in labels:
        _check_label(label)
    _check_unique(labels, "labels")
    rows = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    return (
        f'<View>\n  <Image name="image" value={quoteattr("$" + data_key)}/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{rows}  </RectangleLabels>\n</View>\n'
    )


def _parse(text: str) -> Element:
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_CONFIG_BYTES:
        raise LabelConfigError(
            f"The label config has {size} bytes; the limit is {MAX_CONFIG_BYTES}.", "Give it fewer labels."
        )
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (ParseError, UnicodeEncodeError) as error:
        raise LabelConfigError(
            f"The label config is not XML: {error}.",
            "Copy it from the project's labeling interface, Code view.",
        ) from error
    except DefusedXmlException as error:
        raise LabelConfigError(
            "The label config has a DTD or an entity declaration.",
            "Remove everything before the first <View>.",
        ) from error
    return root


def _control(element: Element, images: dict[str, Element]) -> Control:
    name = element.get("name", "")
    targets = [target.strip() for target in element.get("toName", "").split(",")]
    image = next((images[target] for target in targets if target in images), None)
    if not name or image is None:
        raise LabelConfigError(
            f"<RectangleLabels> {name!r} has toName {targets}; the images are {list(images)}.",
            f"Give it a name, and the name of an <Image> as toName; for example: {EXAMPLE}",
        )
    labels = tuple(_label(label) for label in element.iter() if _is(label, "label"))
    if not labels:
        raise LabelConfigError(
            f"<RectangleLabels> {name!r} has no <Label>.",
            "Write its labels into the config; heatbox needs fixed ones.",
        )
    _check_unique((label.name for label in labels), f"labels in <RectangleLabels> {name!r}")
    key, value_list = _data_key(image)
    return Control(name, image.get("name", ""), labels, key, value_list)


def _label(element: Element) -> LabelTag:
    value, alias = element.get("value", ""), element.get("alias") or None
    _check_label(alias or value)
    predicted = (part.strip() for part in element.get("predicted_values", "").split(","))
    return LabelTag(value or alias or "", alias, tuple(dict.fromkeys(part for part in predicted if part)))


def _data_key(image: Element) -> tuple[str, bool]:
    """Return the key of the task's data that an Image tag shows, and whether it holds a list."""
    value = image.get("valueList") or image.get("value") or ""
    if not re.fullmatch(r"\$[^$, ]+", value):
        raise LabelConfigError(
            f"<Image> {image.get('name')!r} has the value {value!r}.",
            'Write one key of the task\'s data, such as value="$image".',
        )
    return value[1:], bool(image.get("valueList"))


def _notes(elements: Sequence[Element], controls: Sequence[Control]) -> Iterable[str]:
    others = [
        element for element in elements if element.get("toName") and not _is(element, "rectanglelabels")
    ]
    if others:
        yield f"Left to people: {_controls_named(others)}."
    if len(controls) > 1:
        first, *rest = (repr(control.from_name) for control in controls)
        yield f"Only <RectangleLabels> {first} is filled, the first; left to people: {', '.join(rest)}."


def _controls_named(elements: Iterable[Element]) -> str:
    found = [f"<{element.tag}> {element.get('name')!r}" for element in elements if element.get("toName")]
    return ", ".join(found) or "anything else"


def _check_label(label: str) -> None:
    wrong = NOT_XML.search(label)
    if wrong or not label.strip() or label.startswith("$"):
        reason = f"has the character U+{ord(wrong[0]):04X}" if wrong else "is empty or a variable"
        raise LabelConfigError(f"The label {label!r} {reason}.", "Give it a plain, fixed name.")


def _check_unique(names: Iterable[str], what: str) -> None:
    twice = [repr(name) for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise LabelConfigError(f"These {what} occur twice: {', '.join(twice)}.", "Use each name once.")


def _is(element: Element, tag: str) -> bool:
    """Return whether the element has the tag; Label Studio ignores case."""
    return isinstance(element.tag, str) and element.tag.lower() == tag
