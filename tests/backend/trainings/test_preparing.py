"""What is asked for is looked at before anything is learnt: names, explainers, models, labels."""

import json
import shutil
from contextlib import closing

import pytest
from fixtures_corrections import annotated, box, listing

from heatbox.errors import ModelInvalidError, ModelNotFoundError, PluginNotFoundError, TooLittleError
from heatbox.fitted import HEADER, publish_state
from heatbox.ledger import Ledger
from heatbox.models import WEIGHTS, Card, ModelStore
from heatbox.settings import Settings
from heatbox.studio.client import Studio
from heatbox.trainings.preparing import prepare
from heatbox.trainings.request import TrainingRequest


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


@pytest.fixture
def settings(tmp_path, store):
    return Settings(home=tmp_path, store=store.folder, studio_url="http://studio.example")


@pytest.fixture
def ledger(settings):
    with closing(Ledger(settings.ledger_url)) as ledger:
        yield ledger


def register(store, name, labels=("cat", "dog"), trained_from="", weights=b"1"):
    """Register a version whose weights nobody reads."""
    about = {"architecture": "heatbox/tiny", "input_size": 64, "trained_from": trained_from}
    with store.incoming() as folder:
        (folder / WEIGHTS).write_bytes(weights)
        return store.publish(folder, Card(name=name, labels=labels, **about)).id


@pytest.fixture
def tiny(store, ledger):
    """The active model."""
    model = register(store, "tiny")
    ledger.activate(model)
    return model


@pytest.fixture
def ask(settings, ledger):
    """Prepare a training of folders, or of the project of a small server."""

    def ask(server=None, settings=settings, **wish):
        def studio():
            return Studio(server.url, "key", delays=())

        where = {"project": 7} if server else {"data": ("flowers",)}
        own = settings.model_copy(update={"studio_url": server.url}) if server else settings
        return prepare(own, ledger, TrainingRequest(**{**where, **wish}), studio)

    return ask


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["../tiny", "a b", "tiny@1", "x" * 101])
def test_a_name_that_no_model_may_have_is_told_before_anything_is_learnt(ask, name):
    with pytest.raises(ModelInvalidError, match="letters, digits"):
        ask(name=name)


@pytest.mark.usefixtures("tiny")
def test_an_explainer_that_nobody_knows_is_told_before_anything_is_learnt(ask):
    with pytest.raises(PluginNotFoundError, match="'nonsense'"):
        ask(fit=("grad_cam", "nonsense"))


def test_a_new_model_does_not_take_the_name_of_one_that_was_registered_by_hand(ask, tiny, store):
    register(store, "flowers", ("rose",))
    with pytest.raises(
        ModelInvalidError, match="'flowers' is the name of a model that was registered by hand"
    ):
        ask(name="flowers")
    register(store, "birds", trained_from=tiny)
    assert ask(name="birds").order.name == "birds"
    assert ask(name="tiny").order.base == tiny


def test_an_active_model_that_was_deleted_is_told(ask, tiny, store):
    shutil.rmtree(store.folder / "tiny")
    with pytest.raises(ModelNotFoundError, match=tiny):
        ask()


@pytest.mark.usefixtures("tiny")
def test_a_plain_name_in_the_settings_is_champion_and_base_and_its_challengers_are_not(ask, store, settings):
    birds = register(store, "birds")
    register(store, "birds", trained_from=birds, weights=b"2")
    found = ask(settings=settings.model_copy(update={"model": "birds"}))
    assert (found.order.champion, found.order.base, found.new.reference) == (birds, birds, "birds")


def corrected(server, count=8, label="cat"):
    for number in range(1, count + 1):
        server.put(number, [annotated(box(label=label), number=number)])


@pytest.mark.usefixtures("tiny")
def test_boxes_let_the_box_head_learn_unless_somebody_says_what_does(ask):
    with listing() as server:
        corrected(server)
        assert ask(server).order.fit == ("box_regression",)
        assert ask(server, fit=()).order.fit == ()
        assert ask(server, fit=("anomaly",)).order.fit == ("anomaly",)


def test_explainers_that_have_learnt_about_the_champion_learn_about_the_next(ask, tiny, store):
    assert ask().order.fit == ()
    about = json.dumps({"explainer": "anomaly", "options": {}, "label": "", "examples": 3})
    header = json.dumps({"__metadata__": {HEADER: about}}).encode()
    written = len(header).to_bytes(8, "little") + header
    publish_state(store, store.find(tiny), "anomaly", lambda path: path.write_bytes(written))
    assert ask().order.fit == ("anomaly",)


@pytest.mark.usefixtures("tiny")
def test_too_few_corrections_are_told_and_folders_make_up_for_them(ask):
    with listing() as server:
        corrected(server, 7)
        with pytest.raises(TooLittleError, match="Project 7 has 7 corrected pictures"):
            ask(server)
        assert len(ask(server, data=("flowers",)).order.corrected) == 7


@pytest.mark.usefixtures("tiny")
def test_labels_that_the_named_model_does_not_know_are_begun_from_it_and_compared_with_nothing(
    ask, store, settings
):
    named = register(store, "birds", ("tit", "owl"))
    with listing() as server:
        corrected(server)
        found = ask(server, settings=settings.model_copy(update={"model": "birds"}))
    assert (found.order.base, found.order.champion, found.order.labels) == (named, "", ("cat", "dog"))
