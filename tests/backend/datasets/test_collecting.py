"""Corrected pictures become examples: pixels for parts of sides, one example for one content, each bad one alone."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatbox.boxes import Box
from heatbox.corrections.corrected import Corrected, Placed
from heatbox.datasets.collecting import collect, with_classes
from heatbox.datasets.examples import Example, Marked, RejectedExample
from heatbox.datasets.yolo import yolo_box
from heatbox.errors import PictureFetchError
from heatbox.pictures.images import Limits

CORNERS = 0.25, 8 / 48, 0.625, 0.5
sides = st.integers(1, 65_500)
parts = st.floats(0, 1).map(lambda part: round(part, 8))


def rejected(items):
    return [(one.name, one.code) for one in items if isinstance(one, RejectedExample)]


def examples(items):
    return [one for one in items if isinstance(one, Example)]


def test_an_example_has_the_upright_size_the_hash_of_the_file_and_boxes_in_pixels(photos):
    one = photos.add("a.jpg", orientation=6)
    (found,) = photos.collect()
    assert found.sha256 == hashlib.sha256(Path(one.address).read_bytes()).hexdigest()
    assert (found.name, found.width, found.height, found.is_upright) == ("a.jpg", 64, 48, False)
    assert found.boxes == (Marked("cat", Box(16, 8, 40, 24)),)
    assert found.predicted == (Marked("cat", Box(16, 8, 40, 24), 0.75),)
    assert (found.task, found.annotation, found.version) == (1, 1, one.version)


def test_a_bad_picture_loses_only_itself(photos):
    photos.add("good.jpg")
    cut = photos.save("cut.jpg")
    cut.write_bytes(cut.read_bytes()[:-200])
    photos.say(cut)
    (photos.folder / "text.png").write_text("no picture")
    photos.say(photos.folder / "text.png")
    photos.say(photos.folder / "gone.jpg")
    found = list(photos.collect())
    assert [one.name for one in examples(found)] == ["good.jpg"]
    assert rejected(found) == [
        ("gone.jpg", "picture-not-found"),
        ("text.png", "picture-unreadable"),
        ("cut.jpg", "picture-unreadable"),
    ]
    assert [one.task for one in found if isinstance(one, RejectedExample)] == [4, 3, 2]


def test_a_picture_that_cannot_be_fetched_is_told_with_the_reason_and_without_its_secret(photos):
    def fetch(_, task):
        raise PictureFetchError(f"task {task} has no answer.", "Try again.")

    photos.say("https://pictures.example/shelf/cat.jpg?X-Amz-Signature=secret")
    (found,) = collect(photos.corrected, fetch, Limits())
    assert found == RejectedExample("cat.jpg", "picture-fetch", "task 1 has no answer.", 1)


def test_of_one_content_under_two_names_the_later_annotation_counts(photos):
    older = photos.add("a.jpg", "cat", annotation=9)
    copy = photos.folder / "b.jpg"
    copy.write_bytes(Path(older.address).read_bytes())
    photos.say(copy, "dog", annotation=8)
    found = list(photos.collect())
    assert [(one.name, one.labels) for one in examples(found)] == [("a.jpg", ("cat",))]
    assert rejected(found) == [("b.jpg", "same-content")]


def test_an_older_annotation_that_was_changed_last_counts(photos):
    older = photos.add("a.jpg", changed="2026-03-02T00:00:00.000000+00:00")
    copy = photos.folder / "b.jpg"
    copy.write_bytes(Path(older.address).read_bytes())
    photos.say(copy, changed="2026-03-01T00:00:00.000000+00:00")
    assert [one.name for one in examples(photos.collect())] == ["a.jpg"]


def test_the_order_in_which_corrections_come_changes_nothing(photos):
    for name in ("a.jpg", "b/a.jpg", "c/a.png", "d.png"):
        photos.add(name)
    once = list(photos.collect())
    photos.corrected.reverse()
    assert list(photos.collect()) == once


def test_a_box_with_nothing_of_the_picture_in_it_is_left_out_alone_and_told(photos):
    outside = Placed("cat", (1.0, 0.2, 1.2, 0.4))
    photos.add("a.jpg", boxes=(outside, Placed("cat", CORNERS)), predicted=(outside,))
    found = list(photos.collect())
    (example,) = examples(found)
    assert [one.box for one in example.boxes] == [Box(16, 8, 40, 24)]
    assert example.predicted == ()
    assert rejected(found) == [("a.jpg", "box-empty")] * 2


def test_a_picture_that_nobody_looked_for_boxes_in_has_none_and_not_no_boxes(photos):
    photos.add("a.jpg", boxes=None)
    photos.add("b.jpg", boxes=())
    assert [one.boxes for one in photos.collect()] == [(), None]


def test_a_label_that_is_no_class_is_left_out_and_a_picture_of_nothing_else_too(photos):
    both = (Placed("cat", CORNERS), Placed("bird", CORNERS))
    photos.add("both.jpg", labels=("bird", "cat"), boxes=both, predicted=both)
    photos.add("bird.jpg", "bird")
    photos.add("empty.jpg", labels=(), boxes=(), predicted=())
    found = list(with_classes(photos.collect(), ("cat",)))
    kept = {one.name: one for one in examples(found)}
    assert rejected(found) == [("bird.jpg", "label-unknown"), ("both.jpg", "label-unknown")]
    assert set(kept) == {"both.jpg", "empty.jpg"}
    assert {one.label for one in (*kept["both.jpg"].boxes, *kept["both.jpg"].predicted)} == {"cat"}
    assert kept["both.jpg"].labels == ("cat",)


def test_one_picture_is_taken_at_a_time(photos):
    for name in ("a.jpg", "b.jpg"):
        photos.add(name)
    asked = []
    found = collect(photos.corrected, lambda address, _: asked.append(address) or Path(address), Limits())
    next(found)
    assert len(asked) == 1


@given(width=sides, height=sides, x=st.tuples(parts, parts), y=st.tuples(parts, parts))
def test_corners_in_parts_become_pixels_inside_the_picture_and_back(width, height, x, y):
    (x1, x2), (y1, y2) = sorted(x), sorted(y)
    box = Box.clipped((x1 * width, y1 * height, x2 * width, y2 * height), width, height)
    if box is None:
        assert x1 == x2 or y1 == y2
        return
    assert 0 <= box.x1 < box.x2 <= width
    assert 0 <= box.y1 < box.y2 <= height
    cx, cy, w, h = map(float, yolo_box(box, width, height).split())
    back = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    assert back == pytest.approx((x1, y1, x2, y2), abs=1.1e-8)


def test_an_address_of_several_kinds_is_no_hindrance(photos):
    path = photos.save("a b.jpg")
    one = Corrected(1, 1, "data:image/png;base64,AAAA", ("cat",), ())
    other = Corrected(1, 2, "/data/local-files/?d=shelf/a%20b.jpg", ("cat",), ())
    second = photos.folder / "second.png"
    photos.corrected.append(one)
    photos.save("second.png")
    files = {one.address: path, other.address: second}
    found = collect([one, other], lambda address, _: files[address], Limits())
    assert [example.name for example in found] == ["a_b.png", "picture.jpg"]
