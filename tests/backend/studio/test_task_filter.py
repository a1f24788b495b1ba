"""Filters of tasks: the words, what they refuse, and the numbers that a filter takes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatbox.errors import RequestError
from heatbox.studio.task_filter import TaskFilter, parse_filter

RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], TaskFilter()),
        (["unlabelled"], TaskFilter(unlabelled=True)),
        (["unpredicted", " unlabelled "], TaskFilter(unlabelled=True, unpredicted=True)),
        (["view=12"], TaskFilter(view=12)),
        (["view=12", "view=12"], TaskFilter(view=12)),
        (["ids=3,7-20"], TaskFilter(ids=((3, 3), (7, 20)))),
        (["ids=20, 3-5", "ids=4-8"], TaskFilter(ids=((3, 8), (20, 20)))),
        (["ids=1,2,3"], TaskFilter(ids=((1, 3),))),
    ],
)
def test_words_make_a_filter(texts, expected):
    assert parse_filter(texts) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("unlabeled", "Did you mean 'unlabelled'?"),
        ("id=3", "Did you mean 'ids'?"),
        ("zzz", "There are: unlabelled, unpredicted, view, ids."),
        ("", "There are: unlabelled"),
        ("unlabelled=yes", "It is: not labelled yet"),
        ("view", "It is: view=12"),
        ("view=first", "It is: view=12"),
        ("view=-1", "It is: view=12"),
        ("ids", "It is: ids=3,7-20"),
        ("ids=", "has '' where a task number belongs"),
        ("ids=3,,4", "has '' where a task number belongs"),
        ("ids=٣", "where a task number belongs"),
        ("ids=9999999999999999", "where a task number belongs"),
        ("ids=7-3", "ends before it begins"),
    ],
)
def test_what_is_no_filter_is_told_with_the_nearest_word(text, told):
    with pytest.raises(RequestError) as caught:
        parse_filter([text])
    assert repr(text) in caught.value.sentence
    assert told in str(caught.value)


def test_two_views_cannot_both_be_meant():
    with pytest.raises(RequestError, match=r"several views: \[1, 2\]"):
        parse_filter(["view=2", "view=1"])


@given(st.booleans(), st.booleans(), st.none() | st.integers(1), RANGES)
def test_a_filter_comes_back_from_json(unlabelled, unpredicted, view, ids):
    filters = TaskFilter(unlabelled, unpredicted, view, tuple(ids))
    assert TaskFilter.from_dict(json.loads(json.dumps(filters.as_dict()))) == filters


@given(RANGES.filter(bool), st.integers(0, 80))
def test_ranges_take_the_numbers_that_they_span(ranges, after):
    filters = TaskFilter(ids=tuple(ranges))
    taken = {number for first, last in ranges for number in range(first, last + 1)}
    assert {number for number in range(100) if filters.has_id(number)} == taken
    assert filters.next_id(after) == min((number for number in taken if number > after), default=None)


def test_without_numbers_every_task_may_be_taken():
    assert TaskFilter().has_id(7)
    assert TaskFilter().next_id(7) == 8
