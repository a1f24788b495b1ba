"""The error tree: as it is drawn, with its codes, through pickle and as JSON."""

import inspect
import json
import pickle
import re

import pytest

from heatbox import errors
from heatbox.errors import HeatboxError, ModelNotFoundError

CLASSES = [
    value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, HeatboxError)
]


def drawn_tree():
    """Yield (name, parent, code) of each line of the tree in the module's docstring; groups have no code there."""
    above = {}
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r" {4}([│├└─ ]*)([A-Z]\w+)(?: +([a-z-]+))?", line)
        if match:
            branch, name, code = match.groups()
            depth = len(branch) // 4
            above[depth] = name
            yield name, above.get(depth - 1), code


def test_the_drawn_tree_is_the_real_tree():
    real = {error.__name__: error.__base__.__name__ for error in CLASSES if error is not HeatboxError}
    assert {name: parent for name, parent, _ in drawn_tree()} == {"HeatboxError": None, **real}


def test_the_drawn_codes_are_the_real_codes():
    leaves = {error.__name__: error.code for error in CLASSES if not error.__subclasses__()}
    assert {name: code for name, _, code in drawn_tree() if code} == leaves


def test_each_error_has_a_code_of_its_own_that_is_a_slug():
    codes = [error.__dict__["code"] for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_each_error_is_public_and_says_in_a_sentence_when_it_is_raised():
    assert sorted(error.__name__ for error in CLASSES) == sorted(errors.__all__)
    assert all(error.__doc__.endswith(".") for error in CLASSES)


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_survives_pickle(error):
    back = pickle.loads(pickle.dumps(error("No file 'a.jpg'.", "Check the path.")))  # noqa: S301 - our own bytes
    assert type(back) is error
    assert (back.code, back.sentence, back.remedy) == (error.code, "No file 'a.jpg'.", "Check the path.")
    assert str(back) == f"{error.code}: No file 'a.jpg'. Check the path."


def test_an_error_as_json_has_code_message_and_remedy():
    told = ModelNotFoundError("No model 'a'.", "Add one.").as_dict()
    assert json.loads(json.dumps(told)) == {
        "code": "model-not-found",
        "message": "No model 'a'.",
        "remedy": "Add one.",
    }
