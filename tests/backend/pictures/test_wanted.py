"""Pictures that are asked for travel as one text: there and back the same, and no address can forge another field."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heatbox.pictures.wanted import Wanted

PERCENT = st.floats(0, 100)
WANTED = st.builds(
    Wanted,
    address=st.text(),
    task=st.none() | st.integers(0, 2**31),
    labels=st.none() | st.lists(st.text()).map(tuple),
    within=st.none() | st.tuples(PERCENT, PERCENT, PERCENT, PERCENT),
    point=st.none() | st.tuples(PERCENT, PERCENT),
    evidence=st.booleans(),
)


@given(WANTED)
def test_what_is_wanted_is_there_and_back_the_same(wanted):
    assert Wanted.from_text(wanted.text) == wanted


@given(WANTED, WANTED)
def test_two_that_differ_have_two_texts(first, second):
    assert (first.text == second.text) == (first == second)


@given(st.text() | WANTED.map(lambda wanted: wanted.text) | st.text().map(lambda text: "{" + text))
@example('{"address":"/etc/passwd","task":7}')
@example('{"address":"a","evidence":true}')
@example("{")
def test_an_address_says_nothing_but_itself(address):
    assert Wanted.from_text(Wanted(address).text) == Wanted(address)


def test_a_plain_picture_travels_as_its_address():
    assert Wanted("/photos/a.jpg").text == "/photos/a.jpg"


@pytest.mark.parametrize("labels", [(), ("cat", "dog")])
def test_nothing_is_known_and_known_to_be_nothing_are_two_things(labels):
    assert Wanted.from_text(Wanted("a.jpg", labels=labels).text).labels == labels
    assert Wanted.from_text(Wanted("a.jpg").text).labels is None
