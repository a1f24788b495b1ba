"""Label configs: what is read, what is made, and what is refused with a reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatbox.errors import LabelConfigError
from heatbox.labelling.config import MAX_CONFIG_BYTES, LabelTag, make_label_config, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="cat"/><Label value="dog"/>'


PLAIN_LABELS = st.text(
    st.characters(exclude_categories=["Cc", "Cn", "Cs"], include_characters="\t\n\r")
).filter(lambda label: label.strip() and not label.startswith("$"))


def rectangles(labels=LABELS, name="label", to_name="image"):
    return f'<RectangleLabels name="{name}" toName="{to_name}">{labels}</RectangleLabels>'


def view(*parts):
    return f"<View>{''.join(parts)}</View>"


def test_a_config_is_read_into_a_control_with_its_labels_and_its_picture():
    control = parse_label_config(view(IMAGE, rectangles())).control
    assert (control.from_name, control.to_name, control.kind) == ("label", "image", "rectanglelabels")
    assert (control.data_key, control.value_list) == ("image", False)
    assert control.label_names == ("cat", "dog")


def test_the_attributes_of_a_label_are_kept():
    label = '<Label value="Cat" alias="cat" predicted_values=" tabby, tiger cat,,tabby "/>'
    (tag,) = parse_label_config(view(IMAGE, rectangles(label))).control.labels
    assert tag == LabelTag("Cat", alias="cat", predicted_values=("tabby", "tiger cat"))


def test_a_region_carries_the_alias_where_there_is_one():
    assert [LabelTag("Cat", "cat").name, LabelTag("Cat").name] == ["cat", "Cat"]


def test_a_list_of_pictures_is_recognised():
    control = parse_label_config(view('<Image name="image" valueList="$images"/>', rectangles())).control
    assert (control.data_key, control.value_list) == ("images", True)


def test_labels_may_stand_in_nested_views_and_tags_in_any_case():
    nested = "<View><Style>.a{}</Style><label value='cat'/><!-- note --></View>"
    config = parse_label_config(view(IMAGE.replace("Image", "image"), rectangles(nested).replace("L", "l")))
    assert config.control.label_names == ("cat",)


def test_a_control_takes_the_picture_that_it_names():
    other = '<Image name="second" value="$other"/>'
    assert parse_label_config(view(IMAGE, other, rectangles(to_name="second"))).control.data_key == "other"


def test_what_is_left_to_people_is_noted():
    choices = '<Choices name="kind" toName="image"><Choice value="a"/></Choices>'
    config = parse_label_config(view(IMAGE, rectangles(), choices, rectangles(name="parts")))
    assert [control.from_name for control in config.controls] == ["label", "parts"]
    assert config.notes == (
        "Left to people: <Choices> 'kind'.",
        "Only <RectangleLabels> 'label' is filled, the first; left to people: 'parts'.",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not XML"),
        ("<View>", "not XML"),
        ("<View>&nbsp;</View>", "not XML"),
        ("\ud800", "not XML"),
        ('<!DOCTYPE v [<!ENTITY a "b">]><View>&a;</View>', "DTD"),
        ('<!DOCTYPE v SYSTEM "file:///etc/passwd"><View/>', "DTD"),
        (view(rectangles()), "no <Image>"),
        (view(IMAGE), "no <RectangleLabels>; heatbox cannot fill anything else"),
        (view(IMAGE, '<Rectangle name="r" toName="image"/>'), "cannot fill <Rectangle> 'r'"),
        (view(IMAGE, rectangles(to_name="photo")), "toName ['photo']; the images are ['image']"),
        (view(IMAGE, "<RectangleLabels toName='image'/>"), "''"),
        (view(IMAGE, rectangles("")), "no <Label>"),
        (view(IMAGE, rectangles(LABELS + LABELS)), "occur twice: 'cat', 'dog'"),
        (view(IMAGE, rectangles('<Label value="a"/><Label value="b" alias="a"/>')), "occur twice: 'a'"),
        (view(IMAGE, rectangles(), rectangles()), "tag names occur twice: 'label'"),
        (view(IMAGE, rectangles('<Label value="$kind"/>')), "'$kind' is empty or a variable"),
        (view(IMAGE, rectangles("<Label/>")), "'' is empty"),
        (view(IMAGE.replace("$image", "a.jpg"), rectangles()), "has the value 'a.jpg'"),
    ],
)
def test_a_config_that_cannot_be_filled_is_refused_with_the_reason(text, reason):
    with pytest.raises(LabelConfigError) as caught:
        parse_label_config(text)
    assert reason in caught.value.sentence
    assert caught.value.remedy


def test_a_config_over_the_size_limit_is_not_parsed():
    with pytest.raises(LabelConfigError, match=f"the limit is {MAX_CONFIG_BYTES}"):
        parse_label_config(view(IMAGE, rectangles(), " " * MAX_CONFIG_BYTES))


@settings(deadline=None)
@given(st.lists(PLAIN_LABELS, min_size=1, unique=True))
def test_a_made_config_reads_back_the_same_labels(labels):
    control = parse_label_config(make_label_config(labels)).control
    assert control.label_names == tuple(labels)
    assert (control.from_name, control.to_name, control.data_key) == ("label", "image", "image")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "at least one"),
        (["cat", "cat"], "twice: 'cat'"),
        (["  "], "is empty"),
        (["$image"], "a variable"),
        (["a\x08b"], "U+0008"),
        (["a\ud800"], "U+D800"),
    ],
)
def test_labels_that_label_studio_cannot_hold_are_refused(labels, reason):
    with pytest.raises(LabelConfigError) as caught:
        make_label_config(labels)
    assert reason in caught.value.sentence
