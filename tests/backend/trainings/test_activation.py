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


def test_each_step_back_goes_further_and_says_where_it_ended(ledger):
    for model in ("a@1", "b@2", "b@2", "c@3"):
        ledger.activate(model)
    assert roll_back(ledger) == ("c@3", "b@2")
    assert ledger.active_model() == "b@2"
    assert roll_back(ledger) == ("b@2", "a@1")
    with pytest.raises(ModelNotFoundError, match="No other model was active before \\(now: a@1\\)"):
        roll_back(ledger)
    assert ledger.active_model() == "a@1"


def test_what_was_rolled_back_is_no_way_back_from_the_next_model(ledger):
    for model in ("a@1", "b@2"):
        ledger.activate(model)
    roll_back(ledger)
    ledger.activate("c@3")
    assert [one.model for one in history(ledger)] == ["a@1", "c@3"]
    assert roll_back(ledger) == ("c@3", "a@1")


def test_a_rollback_before_the_first_activation_is_an_error(ledger):
    with pytest.raises(ModelNotFoundError, match="now: none"):
        roll_back(ledger)


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
    assert roll_back_name(ledger, "tiny") == (second, first)
    assert find_model(store, ledger, "tiny").id == first
    with pytest.raises(ModelNotFoundError, match="No training has given the name 'tiny'"):
        roll_back_name(ledger, "tiny")


def test_an_activated_challenger_is_accepted_until_it_is_rolled_back(ledger, store):
    first = register(store, "tiny", b"1")
    second = register(store, "tiny", b"2", trained_from=first)
    ledger.activate(first)
    ledger.activate(second)
    assert find_model(store, ledger, "tiny").id == second
    roll_back(ledger)
    assert accepted_models(ledger) == {first}
    assert find_model(store, ledger, "tiny").id == first


def test_a_name_that_only_challengers_have_says_how_to_use_one(ledger, store):
    challenger = register(store, "birds", b"1", trained_from="tiny@1")
    with pytest.raises(ModelNotFoundError, match="No version of 'birds' was accepted") as caught:
        find_model(store, ledger, "birds")
    assert challenger in caught.value.remedy
