"""A project's label config in XML: what Label Studio can show, under which labels, on which picture.

Protocol: https://labelstud.io/tags/rectanglelabels, polygonlabels, brushlabels, choices, keypointlabels and image;
`predicted_values` and `model_*` (see `heatbox.labelling.attributes`) as in the official ML backend examples. It comes
from outside and is read while Label Studio waits: no DTD, no entities, at most `MAX_CONFIG_BYTES`, and each tag is
looked at a fixed number of times.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from heatbox.errors import LabelConfigError
from heatbox.labelling.attributes import called, label_attributes, project_attributes
from heatbox.labelling.quoting import quoted
from heatbox.labelling.tags import Control, Kind, LabelConfig, LabelTag

__all__ = ["MAX_CONFIG_BYTES", "make_label_config", "parse_label_config"]

MAX_CONFIG_BYTES = 1_000_000
MAX_TAGS = 30_000
MAX_LABELS = 5_000  # of one control
MAX_PREDICTED_VALUES = 25_000  # of one control; ImageNet-21k has 21,841 classes
MAX_NAME = 500  # characters of a control, a key, a label and a predicted value

EXAMPLE = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/></RectangleLabels></View>'
)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_LABELS = {
    "rectanglelabels": "label",
    "polygonlabels": "label",
    "brushlabels": "label",
    "keypointlabels": "label",
    "choices": "choice",
}
"""The tag in which each control names its labels."""

_KINDS: tuple[Kind, ...] = ("rectanglelabels", "polygonlabels", "brushlabels", "choices")
_MOST_NAMED = 20


def parse_label_config(text: str) -> LabelConfig:
    """Read a label config.

    Args:
        text: the XML, as in Label Studio's labeling interface, `/setup` or `/predict`.

    Raises:
        LabelConfigError: not XML, too large, names or labels twice, no control that heatbox fills, or a `model_*`
            attribute with a value that cannot be.
    """
    root = _parse(text)
    elements = list(root.iter())
    if len(elements) > MAX_TAGS:
        raise LabelConfigError(
            f"The label config has {len(elements)} tags; the limit is {MAX_TAGS}.", "Give it fewer labels."
        )
    _check_unique((element.get("name", "") for element in elements), "tag names")
    images = {element.get("name", ""): element for element in elements if _is(element, "image")}
    if not images:
        raise LabelConfigError(
            "The label config has no <Image> tag.", f"heatbox boxes pictures; for example: {EXAMPLE}"
        )
    parts = _parts(root)
    usable = [control for control, own in parts.items() if _is_usable(control, own, images)]
    controls = _chosen([_control(element, parts[element], images) for element in usable])
    if not controls:
        raise LabelConfigError(
            f"The label config has no control that heatbox fills; it cannot fill {_controls_named(elements)}.",
            f"Add <RectangleLabels>, <PolygonLabels>, <BrushLabels> or <Choices>; for example: {EXAMPLE}",
        )
    filled = {control.from_name for control in controls}
    attributes, remarks = project_attributes(
        {element: own for element, own in parts.items() if element.get("name") in filled}
    )
    key, value_list = _data_key(images[controls[0].to_name])
    notes = (*_notes(elements, filled), *remarks)
    return LabelConfig(controls, key, value_list, attributes, notes)


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


def _parts(root: Element) -> dict[Element, list[Element]]:
    """Return the tags inside each control, both in the order of the config; inside two, they are the inner one's."""
    parts: dict[Element, list[Element]] = {}
    waiting: list[tuple[Element, Element | None]] = [(root, None)]
    while waiting:
        element, control = waiting.pop()
        if element.get("toName") or any(_is(element, tag) for tag in _LABELS):
            parts[element] = []
            control = element
        elif control is not None:
            parts[control].append(element)
        waiting.extend((child, control) for child in reversed(element))
    return parts


def _kind(element: Element) -> Kind | None:
    tag = element.tag.lower() if isinstance(element.tag, str) else ""
    of_region = element.get("perRegion", "").lower() == "true"  # a question about a region that people drew
    return (
        next((kind for kind in _KINDS if kind == tag), None)
        if element.get("toName") and not of_region
        else None
    )


def _is_usable(element: Element, own: Sequence[Element], images: Collection[str]) -> bool:
    """Return whether a control is to be filled; of questions only one about a picture, with fixed, plain answers."""
    kind = _kind(element)
    if kind != "choices" or element.get("model_skip") == "true":
        return kind is not None and element.get("model_skip") != "true"
    answers = [answer for answer in own if _is(answer, "choice")]
    names = [answer.get("alias") or answer.get("value") or "$" for answer in answers]
    nested = any(_is(inner, "choice") for answer in answers for inner in answer)
    fixed = bool(names) and not any(name.startswith("$") for name in names)
    return fixed and not nested and any(target in images for target in _targets(element))


def _targets(element: Element) -> list[str]:
    return [target.strip() for target in element.get("toName", "").split(",")]


def _control(element: Element, own: Sequence[Element], images: Mapping[str, Element]) -> Control:
    name, kind, targets = element.get("name", ""), _kind(element), _targets(element)
    image = next((images[target] for target in targets if target in images), None)
    if not name or image is None or kind is None:
        raise LabelConfigError(
            f"{called(element)} has toName {quoted(element.get('toName'))}; the images are {_listed(images)}.",
            f"Give it a name, and the name of an <Image> as toName; for example: {EXAMPLE}",
        )
    _check_length(name)
    tags = [one for one in own if _is(one, _LABELS[kind])]
    if not tags:
        raise LabelConfigError(
            f"{called(element)} has no <{_LABELS[kind].capitalize()}>.",
            "Write its labels into the config; heatbox needs fixed ones.",
        )
    _check_count(element, len(tags), MAX_LABELS, "labels")
    commas = sum(tag.get("predicted_values", "").count(",") for tag in tags)
    _check_count(element, commas, MAX_PREDICTED_VALUES, "predicted_values")
    labels = tuple(_label(tag) for tag in tags)
    _check_unique((label.name for label in labels), f"labels in {called(element)}")
    _check_unique((label.value for label in labels), f"values in {called(element)}")
    several = element.get("choice", "").lower() == "multiple"
    per_item = element.get("perItem", "").lower() == "true"
    return Control(name, image.get("name", ""), labels, kind, several, per_item)


def _chosen(controls: Sequence[Control]) -> tuple[Control, ...]:
    """Return the first control of each kind, all on one picture; questions about something else are left out."""
    shapes = [control for control in controls if control.kind != "choices"]
    first = next(iter(shapes or controls), None)
    known = {label.value.casefold() for control in shapes for label in control.labels}
    found: dict[Kind, Control] = {}
    for control in controls:
        if first is None or control.to_name != first.to_name:
            continue
        named = any(label.predicted_values or label.value.casefold() in known for label in control.labels)
        if control.kind != "choices" or named or not shapes:
            found.setdefault(control.kind, control)
    return tuple(found.values())


def _label(element: Element) -> LabelTag:
    value, alias = element.get("value", ""), element.get("alias") or None
    _check_label(alias or value)
    predicted = (part.strip() for part in element.get("predicted_values", "").split(","))
    names = tuple(dict.fromkeys(part for part in predicted if part))
    for name in (value, *names):
        _check_length(name)
    return LabelTag(value or alias or "", alias, names, *label_attributes(element))


def _data_key(image: Element) -> tuple[str, bool]:
    """Return the key of the task's data that an Image tag shows, and whether it holds a list."""
    value = image.get("valueList") or image.get("value") or ""
    if not re.fullmatch(r"\$[^$, ]+", value):
        raise LabelConfigError(
            f"{called(image)} has the value {quoted(value)}.",
            'Write one key of the task\'s data, such as value="$image".',
        )
    _check_length(value)
    return value[1:], bool(image.get("valueList"))


def _notes(elements: Sequence[Element], filled: Collection[str]) -> Iterable[str]:
    others = [element for element in elements if element.get("toName") and element.get("name") not in filled]
    if others:
        yield f"Left to people: {_controls_named(others)}."


def _controls_named(elements: Iterable[Element]) -> str:
    found = [element for element in elements if element.get("toName")]
    named = [f"<{element.tag[:80]}> {quoted(element.get('name'))}" for element in found[:_MOST_NAMED]]
    return (", ".join(named) or "anything else") + _more(found)


def _check_count(control: Element, count: int, limit: int, what: str) -> None:
    if count > limit:
        raise LabelConfigError(
            f"{called(control)} has {count} {what}; the limit is {limit}.", "Give it fewer."
        )


def _check_label(label: str) -> None:
    _check_length(label)
    wrong = NOT_XML.search(label)
    if wrong or not label.strip() or label.startswith("$"):
        reason = f"has the character U+{ord(wrong[0]):04X}" if wrong else "is empty or a variable"
        raise LabelConfigError(f"The label {quoted(label)} {reason}.", "Give it a plain, fixed name.")


def _check_length(name: str) -> None:
    if len(name) > MAX_NAME:
        raise LabelConfigError(
            f"The name {quoted(name)} has {len(name)} characters; the limit is {MAX_NAME}.", "Shorten it."
        )


def _check_unique(names: Iterable[str], what: str) -> None:
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise LabelConfigError(f"These {what} occur twice: {_listed(twice)}.", "Use each name once.")


def _listed(names: Collection[str]) -> str:
    return ", ".join(quoted(name) for name in list(names)[:_MOST_NAMED]) + _more(names)


def _more(things: Collection[object]) -> str:
    return f" and {len(things) - _MOST_NAMED} more" if len(things) > _MOST_NAMED else ""


def _is(element: Element, tag: str) -> bool:
    """Return whether the element has the tag; Label Studio ignores case."""
    return isinstance(element.tag, str) and element.tag.lower() == tag
