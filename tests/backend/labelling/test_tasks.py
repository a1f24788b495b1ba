"""What a task asks for: its pictures, the labels that are known to be in them, and what a person drew."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatbox.errors import TasksFileError
from heatbox.labelling.config import parse_label_config
from heatbox.labelling.tags import Control, LabelConfig, LabelTag
from heatbox.labelling.tasks import Prompt, read_prompt, task_addresses, wanted_pictures
from heatbox.pictures.wanted import Wanted

LABELS = (LabelTag("cat", predicted_values=("tabby",)), LabelTag("Hund", alias="dog"))
CONFIG = LabelConfig((Control("label", "photo", LABELS),))
LIST = LabelConfig((Control("label", "photo", LABELS),), "images", value_list=True)
TOLD = parse_label_config(
    '<View><Image name="photo" value="$image"/><RectangleLabels name="box" toName="photo" model_labels="$kind">'
    '<Label value="cat" predicted_values="tabby"/><Label value="Hund" alias="dog"/></RectangleLabels>'
    '<Choices name="what" toName="photo" choice="multiple"><Choice value="cat" alias="c"/>'
    '<Choice value="Hund"/></Choices></View>'
)
USABLE = ("cat", "dog")


@pytest.mark.parametrize(
    ("task", "config", "addresses"),
    [
        ({"data": {"image": "a.jpg", "text": "x"}}, CONFIG, ["a.jpg"]),
        ({"image": "a.jpg"}, CONFIG, ["a.jpg"]),
        ({"data": {"images": ["a.jpg", "b.jpg"]}}, LIST, ["a.jpg", "b.jpg"]),
        ({"data": {"images": "a.jpg"}}, LIST, ["a.jpg"]),
    ],
)
def test_the_addresses_of_a_task_are_found_under_the_key_of_the_config(task, config, addresses):
    assert task_addresses(task, config) == addresses


@pytest.mark.parametrize(
    ("data", "config", "shown"),
    [
        ({"text": "x"}, CONFIG, "is None"),
        ({"image": ""}, CONFIG, "is ''"),
        ({"image": 3}, CONFIG, "is 3"),
        ({"image": ["a.jpg"]}, CONFIG, r"is \['a.jpg'\]"),
        ({"image": ["a.jpg" * 99]}, CONFIG, r"is \['a.jpg.{1,80}\.\.\."),
        ({"images": []}, LIST, r"is \[\]"),
        ({"images": ["a.jpg", None]}, LIST, r"is \['a.jpg', None\]"),
    ],
)
def test_a_task_without_an_address_is_named_with_what_it_has(data, config, shown):
    with pytest.raises(TasksFileError, match=rf"Task 5 has no picture: data\['{config.data_key}'\] {shown}"):
        task_addresses({"id": 5, "data": data}, config)


@pytest.mark.parametrize(
    ("address", "task", "asked"),
    [
        ("s3://bucket/a.jpg", 7, 7),
        ("azure-blob://b/a.jpg", 7, 7),
        (" S3://bucket/a.jpg", 7, 7),
        ("s3://bucket/a.jpg", None, None),
        ("s3://bucket/a.jpg", True, None),
        ("/data/upload/a.jpg", 7, None),
        ("https://host/s3://a.jpg", 7, None),
    ],
)
def test_the_task_is_named_where_label_studio_must_be_asked_for_the_picture_by_it(address, task, asked):
    (wanted,) = wanted_pictures({"id": task, "data": {"image": address}}, CONFIG, USABLE)
    assert wanted == Wanted(address, asked)


def known(task, config=TOLD, usable=USABLE):
    (wanted,) = wanted_pictures({"id": 1, **task}, config, usable)
    return wanted.labels


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ("cat", ("cat",)),
        (" CAT ", ("cat",)),
        ("dog", ("dog",)),
        ("Hund", ("dog",)),
        ("tabby", ("cat",)),
        (["Hund", "cat", "hund"], ("dog", "cat")),
        (["cat", "zebra", 3, None], ("cat",)),
        ("zebra", ()),
        ("cat, Hund", ("cat", "dog")),
        ("cat,zebra", ("cat",)),
        (["cat, Hund"], ()),
        ([], ()),
        ("", None),
        (None, None),
        (3, None),
        ({"label": "cat"}, None),
    ],
)
def test_a_key_of_the_data_says_what_is_in_the_picture(written, labels):
    assert known({"data": {"image": "a.jpg", "kind": written}}) == labels


def test_a_key_that_is_missing_or_that_nobody_named_says_nothing():
    assert known({"data": {"image": "a.jpg"}}) is None
    assert known({"data": {"image": "a.jpg", "kind": "cat"}}, CONFIG) is None


def test_a_known_label_that_no_class_stands_for_is_left_out():
    assert known({"data": {"image": "a.jpg", "kind": ["cat", "Hund"]}}, usable={"dog"}) == ("dog",)


def test_a_text_with_a_comma_that_is_a_label_is_one_label():
    config = parse_label_config(
        '<View><Image name="p" value="$image"/><RectangleLabels name="b" toName="p" model_labels="$kind">'
        '<Label value="tench, Tinca"/><Label value="tench"/></RectangleLabels></View>'
    )
    assert known({"data": {"image": "a.jpg", "kind": "tench, tinca"}}, config, config.label_names) == (
        "tench, Tinca",
    )


NONE_LEFT = "; so nothing is looked for"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("zebra", f"task 1: no label with a class is meant by 'zebra'{NONE_LEFT}"),
        ("cat, zebra", "task 1: no label with a class is meant by 'zebra'"),
        (["zebra", "bird"], f"task 1: no label with a class is meant by 'zebra', 'bird'{NONE_LEFT}"),
        (["dog"], f"task 1: no label with a class is meant by 'dog'{NONE_LEFT}"),
        (list("uvwxyz"), "task 1: no label with a class is meant by 'u', 'v', 'w', 'x', 'y' and 1 more"),
        ("z\n" * 99, r"task 1: no label with a class is meant by 'z\nz\nz\n"),
        ({"label": "cat"}, "task 1: data['kind'] is {'label': 'cat'}, which names no label"),
        (3, "task 1: data['kind'] is 3, which names no label"),
    ],
)
def test_words_that_mean_no_usable_label_are_told_with_the_tasks_number(written, said, caplog):
    known({"data": {"image": "a.jpg", "kind": written}}, usable={"cat"})
    (told,) = caplog.messages
    assert told.startswith(said)
    assert "\n" not in told
    assert len(told) < 200


@pytest.mark.parametrize("written", ["cat", ["cat", "tabby"], [], "", None])
def test_where_every_word_is_a_label_nothing_is_told(written, caplog):
    known({"data": {"image": "a.jpg", "kind": written}})
    assert caplog.messages == []


def test_what_is_known_of_a_task_is_known_of_each_of_its_pictures():
    config = LabelConfig(TOLD.controls, "image", value_list=True, attributes=TOLD.attributes)
    task = {"data": {"image": ["a.jpg", "b.jpg"], "kind": "cat"}}
    assert wanted_pictures(task, config, USABLE) == [
        Wanted("a.jpg", labels=("cat",)),
        Wanted("b.jpg", labels=("cat",)),
    ]


def answer(*chosen, number=1, day="2026-01-01", **fields):
    region = {"from_name": "what", "type": "choices", "value": {"choices": list(chosen)}}
    return {"id": number, "updated_at": f"{day}T00:00:00Z", "result": [region], **fields}


def answered(*annotations, **data):
    return known({"data": {"image": "a.jpg", **data}, "annotations": list(annotations)})


@pytest.mark.parametrize(
    ("chosen", "labels"),
    [(["c"], ("cat",)), (["cat"], ("cat",)), (["Hund", "c"], ("dog", "cat")), (["zebra"], ()), ([], ())],
)
def test_an_answered_question_says_what_is_in_the_picture(chosen, labels):
    assert answered(answer(*chosen)) == labels


def per_item(*answers, more=""):
    """A list of three pictures, its question about each, and the item indices and choices of an annotation."""
    control = (
        f'<Choices name="what" toName="photo" {more}><Choice value="cat"/><Choice value="Hund"/></Choices>'
    )
    config = parse_label_config(
        '<View><Image name="photo" valueList="$images"/><RectangleLabels name="box" toName="photo">'
        f'<Label value="cat"/><Label value="Hund" alias="dog"/></RectangleLabels>{control}</View>'
    )
    result = [
        {
            "from_name": "what",
            "value": {"choices": chosen},
            **({} if index is None else {"item_index": index}),
        }
        for index, chosen in answers
    ]
    task = {"id": 1, "data": {"images": ["a.jpg", "b.jpg", "c.jpg"]}, "annotations": [{"result": result}]}
    return [one.labels for one in wanted_pictures(task, config, USABLE)]


def test_a_question_about_each_picture_says_what_is_in_that_picture_alone():
    answers = [(0, ["cat"]), (1, ["Hund"]), (1, ["cat"])]
    assert per_item(*answers, more='perItem="true"') == [("cat",), ("dog", "cat"), None]
    assert per_item(*answers) == [("cat", "dog")] * 3
    assert per_item((None, ["cat"]), more='perItem="true"') == [("cat",), None, None]


def test_a_picture_of_which_no_usable_label_is_known_is_told(caplog):
    assert per_item((0, ["cat"]), (1, ["bird"]), more='perItem="true"')[1] == ()
    assert caplog.messages == [f"task 1, picture 1: no label with a class is meant by 'bird'{NONE_LEFT}"]


def test_ground_truth_counts_before_a_newer_answer_unless_it_does_not_answer():
    truth, newer = answer("cat", ground_truth=True), answer("Hund", day="2026-05-01")
    assert answered(truth, newer) == ("cat",)
    assert answered({**truth, "result": []}, newer) == ("dog",)
    assert answered({**truth, "was_cancelled": True}, newer) == ("dog",)


def test_a_cancelled_annotation_says_nothing():
    assert answered(answer("cat"), answer("Hund", day="2026-02-01", was_cancelled=True)) == ("cat",)
    assert answered(answer("cat", was_cancelled=True)) is None


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_answer_counts_in_whatever_order_they_come(order):
    newest = answer("Hund", number=1, day="2026-03-01")
    answers = [answer("cat", number=2), newest, {"id": 3, "updated_at": "2026-04-01", "result": []}]
    assert answered(*answers[::order]) == ("dog",)
    assert answered(*[{**one, "updated_at": None} for one in answers[::order]]) == ("cat",)


def test_without_time_and_number_the_last_answer_counts():
    assert answered(*({"result": answer(name)["result"]} for name in ("cat", "Hund"))) == ("dog",)


def test_the_data_goes_before_the_answer_and_an_empty_key_leaves_it_to_the_answer():
    assert answered(answer("cat"), kind="dog") == ("dog",)
    assert answered(answer("cat"), kind="") == ("cat",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["result", "value", "type", "x", "y", "width", "choices", "from_name", "id"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_odd_annotations_say_nothing_and_break_nothing(annotations):
    assert known({"data": {"image": "a.jpg"}, "annotations": annotations}) in {None, ()}


def drawn(kind="rectanglelabels", label="cat", **fields):
    value = {"x": 10, "y": 20, "width": 30, "height": 40, kind: [label]}
    region = {"type": kind, "from_name": "box", "value": {**value, **fields.pop("value", {})}}
    return {"result": [{**region, **fields}]}


@pytest.mark.parametrize(
    ("context", "prompt"),
    [
        (drawn(), Prompt(0, "cat", within=(10, 20, 30, 40))),
        (drawn(label="Hund"), Prompt(0, "dog", within=(10, 20, 30, 40))),
        (drawn(label="zebra"), Prompt(0, None, within=(10, 20, 30, 40))),
        (drawn("rectangle"), Prompt(0, "cat", within=(10, 20, 30, 40))),
        (drawn("keypointlabels"), Prompt(0, "cat", point=(10, 20))),
        (drawn(item_index=2), Prompt(2, "cat", within=(10, 20, 30, 40))),
        (drawn(item_index=-1), Prompt(0, "cat", within=(10, 20, 30, 40))),
        (drawn(item_index=True), Prompt(0, "cat", within=(10, 20, 30, 40))),
        (drawn(value={"x": 90, "width": 30}), Prompt(0, "cat", within=(90, 20, 10, 40))),
        (drawn(value={"x": -5}), Prompt(0, "cat", within=(0, 20, 30, 40))),
        (drawn("keypointlabels", value={"x": 10**400}), Prompt(0, "cat", point=(100, 20))),
    ],
)
def test_what_was_drawn_is_a_place_and_a_label(context, prompt):
    assert read_prompt(context, CONFIG) == prompt


def test_of_several_regions_the_last_that_can_be_understood_counts():
    regions = [drawn()["result"][0], drawn("keypointlabels")["result"][0], {"type": "brushlabels"}, 7]
    assert read_prompt({"result": regions}, CONFIG) == Prompt(0, "cat", point=(10, 20))


@pytest.mark.parametrize("context", [None, {}, [], "result", 7])
def test_without_a_context_nothing_was_drawn(context):
    assert read_prompt(context, CONFIG) is None


@pytest.mark.parametrize(
    "context",
    [
        {"result": None},
        {"result": [{"type": "brushlabels", "value": {"x": 1, "y": 1}}]},
        {"result": [{"type": "rectanglelabels", "value": [1]}]},
        {"result": [{"type": {}, "value": {}}]},
        drawn(value={"x": math.nan}),
        drawn(value={"x": "10"}),
        drawn(value={"x": True}),
        drawn(value={"width": 0}),
        drawn(value={"x": 100}),
    ],
)
def test_a_context_that_cannot_be_understood_means_the_whole_picture(context):
    assert read_prompt(context, CONFIG) == Prompt()


@given(st.dictionaries(st.just("result"), JSON, min_size=1))
def test_no_context_breaks_anything(context):
    prompt = read_prompt(context, CONFIG)
    assert all(0 <= side <= 100 for side in (*(prompt.within or ()), *(prompt.point or ())))


def test_a_prompt_asks_for_its_label_only_and_leaves_a_known_one_where_it_has_none():
    wanted = Wanted("a.jpg", labels=("cat",))
    assert Prompt(label="dog", point=(1, 2)).asks(wanted) == Wanted("a.jpg", labels=("dog",), point=(1, 2))
    assert Prompt(within=(1, 2, 3, 4)).asks(wanted) == Wanted("a.jpg", labels=("cat",), within=(1, 2, 3, 4))
