"""Label configs, tasks and regions as strangers might write them: understood, or refused with a remedy; never else.

What comes out for Label Studio is always valid: ids unique, 0 <= x and x + width <= 100, labels of the config, scores
in [0, 1].
"""

import json
from collections import Counter
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from heatbox.annotation import Annotation, Found, Region, region_id
from heatbox.boxes import Box
from heatbox.errors import HeatboxError, LabelConfigError, LabelError, TasksFileError
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.labelling.mapping import map_labels
from heatbox.labelling.predictions import prediction
from heatbox.labelling.tasks import read_prompt, wanted_pictures
from heatbox.masks import Mask
from heatbox.pictures.wanted import Wanted

FUZZING = settings(derandomize=True, database=None, deadline=None, max_examples=200)
CLASSES = ("cat", "Dog", "tench, Tinca tinca", "dog", "été", "a", "")

PLAIN = st.characters(min_codepoint=32, max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cn"])
NAMES = st.sampled_from(
    ["image", "img", "label", "box", "x y", "a,b", "", "é", "\N{FACE WITH TEARS OF JOY}"]
) | st.text(PLAIN, max_size=6)
LABELS = st.sampled_from([*CLASSES, "CAT", " cat ", "$cat", "Tinca tinca", "zebra", "cat dog"]) | st.text(
    PLAIN, max_size=6
)
TAGS = [
    "RectangleLabels",
    "rectanglelabels",
    "PolygonLabels",
    "BrushLabels",
    "Choices",
    "KeyPointLabels",
    "Labels",
]
ODD = st.sampled_from(
    ["true", "false", "0", "1", "0.5", "-1", "nan", "inf", "1e9", "", "$image", "gradcam", "tiny", "$"]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        [
            "smart",
            "choice",
            "perRegion",
            "perItem",
            "model_skip",
            "model_name",
            "model_explainer",
            "model_fitter",
            "model_score_threshold",
            "model_box_threshold",
            "model_max_labels",
            "model_labels",
            "model_path",
            "model_",
            "predicted_values",
        ]
    ),
    ODD | st.just("multiple") | st.text(PLAIN, max_size=6),
    max_size=2,
)


@st.composite
def label_configs(draw):
    """Draw XML that looks like a label config: known tags, any names, some attributes."""
    root = Element(draw(st.sampled_from(["View", "view", "Root"])))
    images = draw(st.lists(NAMES, max_size=2))
    for name in images:
        value = draw(
            st.sampled_from(["$image", "$image", "$image", "$images", "image", "$a$b", "$", "", "$im age"])
        )
        key = draw(st.sampled_from(["value", "value", "valueList", "valuelist"]))
        SubElement(root, "Image", {"name": name, key: value})
    for _ in range(draw(st.integers(0, 3))):
        _draw_control(draw, root, images)
    return tostring(root, encoding="unicode")


def _draw_control(draw, root, images):
    names = st.sampled_from(images) if images else NAMES
    control = SubElement(
        root,
        draw(st.sampled_from(TAGS)),
        {"name": draw(NAMES), "toName": draw(names | NAMES), **draw(ATTRIBUTES)},
    )
    parent = SubElement(control, "View") if draw(st.booleans()) else control
    for value in draw(st.lists(LABELS, max_size=4)):
        alias = {"alias": draw(LABELS)} if draw(st.booleans()) else {}
        more = {name: text for name, text in draw(ATTRIBUTES).items() if draw(st.booleans())}
        SubElement(
            parent, draw(st.sampled_from(["Label", "Label", "Choice"])), {"value": value, **alias, **more}
        )


@st.composite
def good_configs(draw):
    """Draw a label config that heatbox fills: unique names, at least one label that a class stands for."""
    values = draw(st.lists(LABELS.filter(_is_usable), min_size=1, max_size=4, unique_by=str.strip))
    root = Element("View")
    key = draw(st.sampled_from(["value", "valueList"]))
    SubElement(root, "Image", {"name": "image", key: "$image"})
    kinds = draw(st.lists(st.sampled_from(TAGS[1:5]), min_size=1, max_size=4, unique=True))
    for number, tag in enumerate(kinds):
        odd = {"choice": "multiple", "perItem": "true"} if tag == "Choices" and draw(st.booleans()) else {}
        control = SubElement(root, tag, {"name": f"control {number}", "toName": "image", **odd})
        for rank, value in enumerate(values):
            predicted = {"predicted_values": CLASSES[0]} if rank == 0 else {}
            alias = {"alias": f"{value}-{number}"} if draw(st.booleans()) else {}
            SubElement(
                control, "Choice" if tag == "Choices" else "Label", {"value": value, **alias, **predicted}
            )
    return tostring(root, encoding="unicode")


def _is_usable(label):
    return bool(label.strip()) and not label.startswith("$") and label.isprintable()


def parsed(text):
    """Return the label config, or None where it is refused with a sentence and a remedy."""
    try:
        return parse_label_config(text)
    except LabelConfigError as error:
        _check_error(error)
        return None


def _check_error(error):
    assert error.sentence
    assert error.remedy
    assert json.dumps(error.as_dict(), ensure_ascii=False).encode()


@FUZZING
@given(st.text(max_size=200) | st.text(st.sampled_from("<>/&;!?-[]\"'= Vvxml\n"), max_size=60))
def test_any_text_is_a_label_config_or_refused(text):
    parsed(text)


@settings(FUZZING, max_examples=400)
@given(label_configs())
def test_any_xml_is_understood_as_controls_with_labels_or_refused(text):
    config = parsed(text)
    if config is None:
        return
    assert config.controls
    assert len({control.kind for control in config.controls}) == len(config.controls)
    for control in config.controls:
        names = [label.name for label in control.labels]
        assert names
        assert max(Counter(names).values()) == 1
    assert config.data_key
    _mapped(config)


def _mapped(config):
    """Return the label map, or None where it is refused; whatever is in it is in the config and the classifier."""
    try:
        found = map_labels(CLASSES, config.labels)
    except LabelError as error:
        _check_error(error)
        return None
    assert {name for name, _ in found.pairs} <= set(CLASSES)
    assert {label for _, label in found.pairs} | set(found.unmapped_labels) == set(config.label_names)
    return found


@FUZZING
@given(labels=st.lists(LABELS, max_size=5))
def test_a_label_config_that_heatbox_writes_can_be_read(labels):
    try:
        text = make_label_config(labels)
    except LabelConfigError:
        return
    assert list(parse_label_config(text).label_names) == labels


SIDES = st.integers(1, 65_500)
SCORES = st.floats(0, 1) | st.sampled_from([float("nan"), -0.5, 1.5, float("inf")])


@st.composite
def annotations(draw, labels, version):
    """Draw what came of a picture: boxes anywhere in it, masks, also tiny ones."""
    width, height = draw(SIDES), draw(SIDES)
    width, height = (min(width, 100), min(height, 100)) if draw(st.booleans()) else (width, height)
    regions = []
    for rank in range(draw(st.integers(0, 3))):
        corner = st.tuples(
            st.integers(0, 64 * width), st.integers(0, 64 * height)
        )  # sixty-fourths of a pixel
        (x1, y1), (x2, y2) = draw(corner), draw(corner)
        raw = (min(x1, x2) / 64, min(y1, y2) / 64, max(x1, x2) / 64, max(y1, y2) / 64)
        box = Box.clipped(raw, width, height)
        if box is None:
            continue
        label = draw(st.sampled_from(labels))
        pixels = draw(st.integers(0, 2**24 - 1))
        bits = np.array([pixels >> bit & 1 for bit in range(24)], np.bool_).reshape(4, 6)
        small = width * height <= 100 * 100
        mask = Mask.of(bits) if small and draw(st.booleans()) else None
        regions.append(Region(region_id(version, label, rank, box), label, "cat", box, draw(SCORES), mask))
    found = tuple(
        Found(label, "cat", draw(SCORES)) for label in draw(st.lists(st.sampled_from(labels), max_size=3))
    )
    return Annotation(width, height, tuple(regions), found=found, absence=None if found else draw(SCORES))


@settings(FUZZING, max_examples=150)
@given(data=st.data(), text=good_configs())
def test_what_label_studio_gets_is_always_valid(data, text):
    config = parsed(text)
    assume(config is not None)
    found = _mapped(config)
    assume(found is not None)
    usable = sorted({label for _, label in found.pairs})
    count = data.draw(st.integers(1, 3)) if config.value_list else 1
    some = (
        st.none() | annotations(usable, "heatbox-1")
        if config.value_list
        else annotations(usable, "heatbox-1")
    )
    made = [data.draw(some) for _ in range(count)]
    travelled = [one and Annotation.from_dict(json.loads(json.dumps(one.as_dict()))) for one in made]
    answer = json.loads(json.dumps(prediction(travelled, config, "heatbox-1"), allow_nan=False))
    assert answer["model_version"] == "heatbox-1"
    assert answer["score"] is None or 0 <= answer["score"] <= 1
    assert max(Counter(region["id"] for region in answer["result"]).values(), default=1) == 1
    for region in answer["result"]:
        _check_region(region, config, count)


def _check_region(region, config, count):
    (control,) = [one for one in config.controls if one.from_name == region["from_name"]]
    assert (region["type"], region["to_name"]) == (control.kind, "image")
    value = region["value"]
    assert value[control.kind]
    assert set(value[control.kind]) <= {label.name for label in control.labels}
    assert 0 <= region["score"] <= 1
    assert 0 <= region.get("item_index", 0) < count
    match control.kind:
        case "rectanglelabels":
            assert 0 <= value["x"] <= value["x"] + value["width"] <= 100
            assert 0 <= value["y"] <= value["y"] + value["height"] <= 100
            assert value["width"] > 0 < value["height"]
        case "polygonlabels":
            assert len(value["points"]) >= 3
            assert all(0 <= side <= 100 for point in value["points"] for side in point)
        case "brushlabels":
            assert all(0 <= byte <= 255 for byte in value["rle"])
        case _:
            assert len(value["choices"]) == 1 or control.several


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
REGIONS = st.fixed_dictionaries(
    {"type": st.sampled_from(["rectanglelabels", "keypointlabels", "choices", "rectangle"]) | JSON},
    optional={
        "value": JSON
        | st.fixed_dictionaries(
            {name: st.floats() | st.integers() | JSON for name in ("x", "y", "width", "height")},
            optional={"choices": JSON | st.just(["cat"]), "rectanglelabels": JSON | st.just(["cat"])},
        ),
        "from_name": st.just("control 0") | JSON,
        "item_index": JSON,
    },
)
TASKS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers() | JSON,
        "data": JSON
        | st.fixed_dictionaries({"image": st.text(max_size=9) | st.lists(st.text(max_size=9)) | JSON}),
        "annotations": JSON
        | st.lists(st.fixed_dictionaries({"result": st.lists(REGIONS, max_size=2) | JSON}), max_size=2),
    },
)


@settings(FUZZING, max_examples=300)
@given(task=TASKS, text=good_configs())
def test_any_task_names_its_pictures_or_says_that_it_has_none(task, text):
    config = parsed(text)
    assume(config is not None)
    try:
        wanted = wanted_pictures(task, config, set(config.label_names))
    except TasksFileError as error:
        _check_error(error)
        return
    assert wanted
    for one in wanted:
        assert one.address
        assert one.labels is None or set(one.labels) <= set(config.label_names)
        assert Wanted.from_text(one.text) == one


@settings(FUZZING, max_examples=300)
@given(
    context=JSON | st.fixed_dictionaries({"result": JSON | st.lists(REGIONS, max_size=3)}),
    text=good_configs(),
)
def test_any_context_is_a_prompt_inside_the_picture_or_none(context, text):
    config = parsed(text)
    assume(config is not None)
    prompt = read_prompt(context, config)
    if prompt is None:
        return
    assert prompt.label is None or prompt.label in config.label_names
    x, y, width, height = prompt.within or (*(prompt.point or (0, 0)), 0, 0)
    assert 0 <= x <= x + width <= 100.0000001
    assert 0 <= y <= y + height <= 100.0000001
    asked = prompt.asks(Wanted("/a.png"))
    assert Wanted.from_text(asked.text) == asked


@pytest.mark.parametrize("depth", [100, 1000, 70_000])
def test_a_deep_label_config_is_understood_or_refused(depth):
    text = "<View>" * depth + make_label_config(["cat"]) + "</View>" * depth
    try:
        assert parse_label_config(text).label_names == ("cat",)
    except HeatboxError as error:
        _check_error(error)
