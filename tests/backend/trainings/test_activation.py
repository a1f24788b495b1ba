import shutil

import pytest

from heatbox.activation import accepted_models, add_acceptance, find_model, history, roll_back, roll_back_name
from heatbox.errors import ModelNotFoundError
from heatbox.ledger import Ledger
from heatbox.models import WEIGHTS, Card, ModelStore
from heatbox.serving import serving_model
from heatbox.settings import Settings


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield ledger
    ledger.close()


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


def register(store, name, weights, trained_from=""):
    """Register a version whose weights nobody reads."""
    card = Card(
        name=name, architecture="heatbox/tiny", labels=("a", "b"), input_size=64, trained_from=trained_from
    )
    with store.incoming() as folder:
        (folder / WEIGHTS).write_bytes(weights)
        return store.publish(folder, card).id


def accept(ledger, model, instead_of):
    with ledger.writing() as connection:
        add_acceptance(connection, model, instead_of)


def test_each_step_back_goes_further_and_says_where_it_ended(ledger, store):
    a, b, c = (register(store, name, b"1") for name in "abc")
    for model in (a, b, b, c):
        ledger.activate(model)
    assert roll_back(store, ledger) == (c, b)
    assert ledger.active_model() == b
    assert roll_back(store, ledger) == (b, a)
    with pytest.raises(ModelNotFoundError, match=f"No other model was active before \\(now: {a}\\)"):
        roll_back(store, ledger)
    assert ledger.active_model() == a


def test_what_was_rolled_back_is_no_way_back_from_the_next_model(ledger, store):
    a, b, c = (register(store, name, b"1") for name in "abc")
    for model in (a, b):
        ledger.activate(model)
    roll_back(store, ledger)
    ledger.activate(c)
    assert [one.model for one in history(ledger)] == [a, c]
    assert roll_back(store, ledger) == (c, a)


def test_a_rollback_before_the_first_activation_is_an_error(ledger, store):
    with pytest.raises(ModelNotFoundError, match="now: none"):
        roll_back(store, ledger)


def test_a_rollback_to_a_model_that_was_deleted_changes_nothing(ledger, store):
    a, b = (register(store, name, b"1") for name in "ab")
    for model in (a, b):
        ledger.activate(model)
    accept(ledger, b, a)
    shutil.rmtree(store.path(store.find(a)))
    for back in (lambda: roll_back(store, ledger), lambda: roll_back_name(store, ledger, "b")):
        with pytest.raises(ModelNotFoundError, match=f"{a}, which was used before, is not in the store"):
            back()
    assert ledger.active_model() == b
    assert find_model(store, ledger, "b").id == b


def test_a_plain_name_never_stands_for_a_challenger(ledger, store):
    first = register(store, "tiny", b"1")
    challenger = register(store, "tiny", b"2", trained_from=first)
    assert store.find("tiny").id == challenger
    assert find_model(store, ledger, "tiny").id == first
    assert find_model(store, ledger, challenger).id == challenger
    assert serving_model(Settings(model="tiny"), store, ledger).id == first


def test_a_version_that_was_added_by_hand_needs_no_acceptance(ledger, store):
    register(store, "tiny", b"1")
    second = register(store, "tiny", b"2")
    assert find_model(store, ledger, "tiny").id == second


def test_an_accepted_challenger_is_what_its_name_stands_for_until_it_is_rolled_back(ledger, store):
    first = register(store, "tiny", b"1")
    second = register(store, "tiny", b"2", trained_from=first)
    accept(ledger, second, first)
    assert find_model(store, ledger, "tiny").id == second
    assert roll_back_name(store, ledger, "tiny") == (second, first)
    assert find_model(store, ledger, "tiny").id == first
    with pytest.raises(ModelNotFoundError, match="No training has given the name 'tiny'"):
        roll_back_name(store, ledger, "tiny")


@pytest.mark.parametrize("by_name", [True, False])
def test_what_a_training_made_active_and_gave_its_name_is_taken_back_as_both(ledger, store, by_name):
    first = register(store, "tiny", b"1")
    second = register(store, "tiny", b"2", trained_from=first)
    ledger.activate(first)
    ledger.activate(second)
    accept(ledger, second, first)
    back = roll_back_name(store, ledger, "tiny") if by_name else roll_back(store, ledger)
    assert back == (second, first)
    assert ledger.active_model() == find_model(store, ledger, "tiny").id == first


def test_a_model_that_is_activated_again_after_a_rollback_serves_by_its_name_again(ledger, store):
    first = register(store, "tiny", b"1")
    second = register(store, "tiny", b"2", trained_from=first)
    accept(ledger, second, first)
    roll_back_name(store, ledger, "tiny")
    ledger.activate(second)
    assert find_model(store, ledger, "tiny").id == second


def test_an_activated_challenger_is_accepted_until_it_is_rolled_back(ledger, store):
    first = register(store, "tiny", b"1")
    second = register(store, "tiny", b"2", trained_from=first)
    ledger.activate(first)
    ledger.activate(second)
    assert find_model(store, ledger, "tiny").id == second
    roll_back(store, ledger)
    assert accepted_models(ledger) == {first}
    assert find_model(store, ledger, "tiny").id == first


def test_a_name_that_only_challengers_have_says_how_to_use_one(ledger, store):
    challenger = register(store, "birds", b"1", trained_from="tiny@1")
    with pytest.raises(ModelNotFoundError, match="No version of 'birds' was accepted") as caught:
        find_model(store, ledger, "birds")
    assert challenger in caught.value.remedy
