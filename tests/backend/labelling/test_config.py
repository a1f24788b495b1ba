"""Label configs: what is read, what is made, and what is refused with a reason."""

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatbox.errors import LabelConfigError, LabelError
from heatbox.labelling.config import MAX_CONFIG_BYTES, make_label_config, parse_label_config
from heatbox.labelling.mapping import map_labels
from heatbox.labelling.tags import LabelTag

IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="cat"/><Label value="dog"/>'


PLAIN_LABELS = st.text(
    st.characters(exclude_categories=["Cc", "Cn", "Cs"], include_characters="\t\n\r")
).filter(lambda label: label.strip() and not label.startswith("$"))


def rectangles(labels=LABELS, name="label", to_name="image"):
    return f'<RectangleLabels name="{name}" toName="{to_name}">{labels}</RectangleLabels>'


def choices(*answers, more="", to_name="image"):
    written = "".join(f'<Choice value="{answer}"/>' for answer in answers)
    return f'<Choices name="kind" toName="{to_name}" {more}>{written}</Choices>'


def view(*parts):
    return f"<View>{''.join(parts)}</View>"


def test_a_config_is_read_into_a_control_with_its_labels_and_its_picture():
    config = parse_label_config(view(IMAGE, rectangles()))
    (control,) = config.controls
    assert (control.from_name, control.to_name, control.kind) == ("label", "image", "rectanglelabels")
    assert (config.data_key, config.value_list) == ("image", False)
    assert (config.label_names, config.notes) == (("cat", "dog"), ())


def test_the_attributes_of_a_label_are_kept():
    label = '<Label value="Cat" alias="cat" predicted_values=" tabby, tiger cat,,tabby "/>'
    (tag,) = parse_label_config(view(IMAGE, rectangles(label))).labels
    assert tag == LabelTag("Cat", alias="cat", predicted_values=("tabby", "tiger cat"))


def test_a_region_carries_the_alias_where_there_is_one():
    assert [LabelTag("Cat", "cat").name, LabelTag("Cat").name] == ["cat", "Cat"]


def test_a_list_of_pictures_is_recognised():
    config = parse_label_config(view('<Image name="image" valueList="$images"/>', rectangles()))
    assert (config.data_key, config.value_list) == ("images", True)


def test_labels_may_stand_in_nested_views_and_tags_in_any_case():
    nested = "<View><Style>.a{}</Style><label value='cat'/><!-- note --></View>"
    config = parse_label_config(view(IMAGE.replace("Image", "image"), rectangles(nested).replace("L", "l")))
    assert config.label_names == ("cat",)


def test_a_control_takes_the_picture_that_it_names():
    other = '<Image name="second" value="$other"/>'
    assert parse_label_config(view(IMAGE, other, rectangles(to_name="second"))).data_key == "other"


def test_what_is_left_to_people_is_noted():
    config = parse_label_config(view(IMAGE, rectangles(), choices("a"), rectangles(name="parts")))
    assert [control.from_name for control in config.controls] == ["label"]
    assert config.notes == ("Left to people: <Choices> 'kind', <RectangleLabels> 'parts'.",)


def test_the_first_control_of_each_kind_on_the_same_picture_is_filled():
    labels = f"toName='image'>{LABELS}</"
    shapes = (
        f"<PolygonLabels name='p' {labels}PolygonLabels>",
        f"<BrushLabels name='b' {labels}BrushLabels>",
    )
    other = '<Image name="other" value="$other"/>' + rectangles(to_name="other", name="elsewhere")
    config = parse_label_config(view(IMAGE, choices("cat"), rectangles(), *shapes, other))
    assert [(control.kind, control.from_name) for control in config.controls] == [
        ("choices", "kind"),
        ("rectanglelabels", "label"),
        ("polygonlabels", "p"),
        ("brushlabels", "b"),
    ]
    assert config.kinds == ("brushlabels", "choices", "polygonlabels", "rectanglelabels")
    assert config.notes == ("Left to people: <RectangleLabels> 'elsewhere'.",)


def test_a_control_with_model_skip_is_left_to_people():
    skipped = rectangles(name="drawn").replace(" toName", ' model_skip="true" toName')
    config = parse_label_config(view(IMAGE, skipped, rectangles()))
    assert [control.from_name for control in config.controls] == ["label"]


@pytest.mark.parametrize(
    ("question", "filled"),
    [
        (choices("Cat", "none"), True),
        (choices("good", "bad"), False),
        (choices("good").replace("value", 'predicted_values="tabby" value'), True),
        (choices("cat", more='perRegion="true"'), False),
        (choices("cat", to_name="caption"), False),
        (choices("$kind"), False),
        (choices(more='value="$kinds"'), False),
        (choices("cat").replace("/>", '><Choice value="tabby"/></Choice>'), False),
        (choices("cat").replace(" toName", ' model_skip="true" toName'), False),
    ],
)
def test_beside_boxes_a_question_is_filled_that_asks_which_of_their_labels_is_there(question, filled):
    text = '<Text name="caption" value="$caption"/>'
    config = parse_label_config(view(IMAGE, text, question, rectangles()))
    assert (config.question is not None) == filled
    assert ("Left to people: <Choices> 'kind'." in config.notes) != filled


@pytest.mark.parametrize(
    ("more", "several", "per_item"),
    [
        ("", False, False),
        ('choice="single-radio"', False, False),
        ('choice="multiple"', True, False),
        ('choice="multiple" perItem="true"', True, True),
    ],
)
def test_a_question_alone_is_enough_and_says_how_it_is_answered(more, several, per_item):
    question = parse_label_config(view(IMAGE, choices("good", "bad", more=more))).question
    assert (question.several, question.per_item) == (several, per_item)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('value="Cat"', 'value="Cat"'),
        ('value="Cat"', 'value="Cat" alias="c"'),
        ('value="Cat" alias="c"', 'value="Cat"'),
        ('value="Cat"', 'value="cat"'),
        ('value="Cat" alias="cat"', 'value="cat"'),
        ('value="Katze" alias="cat"', 'value="Cat" alias="cat"'),
    ],
)
def test_one_label_of_two_controls_is_stored_under_each_ones_own_name(first, second):
    drawn = rectangles(f"<Label {first}/>")
    asked = f'<Choices name="kind" toName="image"><Choice {second} predicted_values="tabby"/></Choices>'
    config = parse_label_config(view(IMAGE, drawn, asked))
    (label,) = config.labels
    assert label.predicted_values == ("tabby",)
    names = [re.findall('"(.*?)"', text)[-1] for text in (first, second)]
    assert [control.name_of(label) for control in config.controls] == names


def test_labels_of_one_control_that_differ_only_in_case_stay_two():
    asked = choices("cat", more='choice="multiple"')
    config = parse_label_config(view(IMAGE, rectangles('<Label value="Cat"/><Label value="cat"/>'), asked))
    assert config.label_names == ("Cat", "cat")
    assert [config.question.name_of(label) for label in config.labels] == [None, "cat"]


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
        (view(IMAGE), "no control that heatbox fills; it cannot fill anything else"),
        (view(IMAGE, '<Rectangle name="r" toName="image"/>'), "cannot fill <Rectangle> 'r'"),
        (view(IMAGE, rectangles(to_name="photo")), "toName 'photo'; the images are 'image'"),
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


def nested(depth, answers):
    opened = "".join(f'<Choices name="c{depth}" toName="image">' for depth in range(depth))
    return (
        opened + "".join(f'<Choice value="a{number}"/>' for number in range(answers)) + "</Choices>" * depth
    )


def many(count, label):
    return rectangles("<Label value='cat'/>" + "".join(label.format(number) for number in range(count)))


LONG = "\ufdfa" * 60  # each is eighteen letters once normalised


@pytest.mark.parametrize(
    "content",
    [
        nested(3000, 2000),
        nested(15_000, 1),
        "".join(rectangles(name=f"r{number}") for number in range(9000)),
        many(4900, "<Label value='tabby cat {0}x' predicted_values='tiger cat {0}y'/>"),
        many(4900, f"<Label value='{LONG}{{0}}'/>"),
        many(1, f"<Label value='many' predicted_values='{','.join(map(str, range(25_000)))}'/>"),
    ],
)
def test_a_config_of_a_thousand_kilobytes_is_read_and_mapped_while_label_studio_waits(content):
    began = time.process_time()
    with contextlib.suppress(LabelError):
        map_labels(["cat", *(f"tabby, tiger cat {number}" for number in range(1000))], config_of(content))
    assert time.process_time() - began < 2


def config_of(content):
    return parse_label_config(view(IMAGE, content)).labels


def test_a_label_inside_two_controls_is_the_inner_ones():
    inner = rectangles('<Label value="wheel"/>', name="parts")
    config = parse_label_config(view(IMAGE, rectangles(LABELS + inner)))
    assert [label.value for label in config.controls[0].labels] == ["cat", "dog"]
    assert config.notes == ("Left to people: <RectangleLabels> 'parts'.",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (view(IMAGE, "<a/>" * 30_000), "has 30002 tags; the limit is 30000"),
        (view(IMAGE, many(5000, "<Label value='l{}'/>")), "'label' has 5001 labels; the limit is 5000"),
        (
            view(IMAGE, rectangles(f"<Label value='l' predicted_values='{',' * 25_001}'/>")),
            "'label' has 25001 predicted_values; the limit is 25000",
        ),
        (view(IMAGE, rectangles(f"<Label value='{'l' * 501}'/>")), "has 501 characters; the limit is 500"),
        (view(IMAGE, rectangles(f"<Label value='l' alias='{'l' * 501}'/>")), "has 501 characters"),
        (view(IMAGE, rectangles(f"<Label value='l' predicted_values='a,{'l' * 501}'/>")), "501 characters"),
        (view(IMAGE, rectangles(name="l" * 501)), "has 501 characters"),
        (view(IMAGE.replace("$image", "$" + "l" * 500), rectangles()), "has 501 characters"),
        (view(IMAGE, rectangles(to_name="l" * 9999)), "the images are 'image'"),
        (view(IMAGE, rectangles(name="l" * 9999), rectangles(name="l" * 9999)), "occur twice"),
    ],
)
def test_what_is_too_much_is_refused_without_being_repeated(text, reason):
    with pytest.raises(LabelConfigError) as caught:
        parse_label_config(text)
    assert reason in caught.value.sentence
    assert len(caught.value.sentence) < 300


def test_of_many_controls_that_are_left_to_people_twenty_are_named():
    others = "".join(rectangles(name=f"r{number}") for number in range(30))
    (note,) = parse_label_config(view(IMAGE, rectangles(), others)).notes
    assert note.endswith("<RectangleLabels> 'r19' and 10 more.")


def test_a_config_over_the_size_limit_is_not_parsed():
    with pytest.raises(LabelConfigError, match=f"the limit is {MAX_CONFIG_BYTES}"):
        parse_label_config(view(IMAGE, rectangles(), " " * MAX_CONFIG_BYTES))


@settings(deadline=None)
@given(st.lists(PLAIN_LABELS, min_size=1, unique=True))
def test_a_made_config_reads_back_the_same_labels(labels):
    config = parse_label_config(make_label_config(labels))
    assert config.label_names == tuple(labels)
    (control,) = config.controls
    assert (control.from_name, control.to_name, config.data_key) == ("label", "image", "image")


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
