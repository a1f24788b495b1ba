"""Profiles: what the ledger keeps, which project is served with what, and what goes before what."""

import json
import shutil
from contextlib import closing
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from heatbox.cli.profiles import app
from heatbox.corrections.records import Corrections
from heatbox.errors import ProfileNotFoundError
from heatbox.fitted import HEADER, publish_state
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pipeline import Way
from heatbox.profiles import Profile, list_profiles, profile_of, profile_uses, store_profile, use_profile
from heatbox.serving import serve_project
from heatbox.settings import Settings, as_environment

STUDIO, OTHER_STUDIO = "http://127.0.0.1:8080", "http://127.0.0.1:9999"
WAY = Way("layer_cam", {"layers": ["features.4"]}, "enclosing", {"threshold": 0.35})
PROFILE = Profile(
    "cats", "tiny@1", "heatbox/tiny", (("cat", WAY),), (("dog", 0.6),), {"before": 0.3, "after": 0.4}
)


@pytest.fixture
def ledger(ledger_url):
    with closing(Ledger(ledger_url)) as ledger:
        yield ledger


@pytest.fixture
def near(tmp_path):
    """A ledger of this machine."""
    with closing(Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")) as ledger:
        yield ledger


@pytest.fixture
def store(tiny_store, tmp_path):
    """A store of this test alone: states are added to it."""
    return ModelStore(shutil.copytree(tiny_store, tmp_path / "models"))


@pytest.fixture
def serve(tmp_path, store, near):
    """Serve project 7 with this label config, these settings and these given by hand."""

    def serve(config=None, given=(), project=7, **settings):
        chosen = Settings(
            home=tmp_path, **{"store": tmp_path / "models", "model": "tiny", "studio_url": STUDIO, **settings}
        )
        text = config or make_label_config(["cat", "dog"])
        return serve_project(chosen, store, near, parse_label_config(text), given, project)

    return serve


@pytest.fixture
def use(near, store):
    """Store a profile for the store's model, and let project 7 use it."""

    def use(profile=PROFILE, **changes):
        card = store.find("tiny")
        made = {"model": card.id, "architecture": card.architecture, **changes}
        stored = store_profile(near, replace(profile, **made))
        use_profile(near, STUDIO, 7, stored.name)
        return stored

    return use


def learnt(store, explainer="box_regression", content=b"one", **options):
    """Publish a state of an explainer for the store's model; its tensors do not matter here."""
    about = {"explainer": explainer, "options": options, "label": "", "examples": 3}
    header = json.dumps({"__metadata__": {HEADER: json.dumps(about)}}).encode()
    return publish_state(
        store,
        store.find("tiny"),
        explainer,
        lambda path: path.write_bytes(len(header).to_bytes(8, "little") + header + content),
    )


def attributes(config, control):
    return config.replace("<RectangleLabels ", f"<RectangleLabels {control} ")


def test_a_profile_survives_the_ledger(ledger):
    stored = store_profile(ledger, PROFILE)
    (back,) = list_profiles(ledger)
    assert replace(back, id=None, created_at=None) == PROFILE
    assert (back.id, back.labels) == (stored.id, ("cat", "dog"))


def test_a_name_lists_its_newest_profile_and_a_project_stays_with_the_one_that_it_was_given(ledger):
    old = store_profile(ledger, PROFILE)
    use_profile(ledger, STUDIO, 7, "cats")
    new = store_profile(ledger, replace(PROFILE, label_ways=()))
    assert [one.id for one in list_profiles(ledger)] == [new.id]
    assert profile_of(ledger, STUDIO, 7).id == old.id
    use_profile(ledger, STUDIO, 7, "cats")
    assert profile_of(ledger, STUDIO, 7).id == new.id


def test_two_label_studios_with_the_same_project_number_do_not_share_a_profile(ledger):
    store_profile(ledger, PROFILE)
    use_profile(ledger, f"{STUDIO}/", 7, "cats")
    assert profile_of(ledger, STUDIO, 7).name == "cats"
    assert profile_of(ledger, OTHER_STUDIO, 7) is None
    assert profile_of(ledger, STUDIO, 8) is None
    assert [(one.studio_url, one.project) for one in profile_uses(ledger)] == [(STUDIO, 7)]


@pytest.mark.parametrize(
    "spelling", ["HTTP://LabelS.example:80/", "http://labels.example/", " http://labels.example"]
)
def test_one_label_studio_is_one_however_its_address_is_written(near, spelling):
    store_profile(near, PROFILE)
    use_profile(near, "http://labels.example", 7, "cats")
    assert profile_of(near, spelling, 7) is not None
    corrections = Corrections(near)
    assert corrections.place(spelling, 7) == corrections.place("http://labels.example", 7)


def test_a_dropped_profile_is_not_used_any_more(ledger):
    store_profile(ledger, PROFILE)
    use_profile(ledger, STUDIO, 7, "cats")
    use_profile(ledger, STUDIO, 7, None)
    assert profile_of(ledger, STUDIO, 7) is None
    assert profile_uses(ledger) == []


@pytest.mark.parametrize(
    ("name", "sentence"), [("dogs", "no profile 'dogs'"), (None, "Project 7 has no profile")]
)
def test_a_profile_that_is_not_there_is_an_error(ledger, name, sentence):
    with pytest.raises(ProfileNotFoundError, match=sentence):
        use_profile(ledger, STUDIO, 7, name)


def test_a_project_is_served_with_its_profile_and_other_projects_are_not(serve, use):
    before = serve().pipeline
    use()
    after = serve().pipeline
    assert after.label_ways == (("cat", WAY),)
    assert after.label_min_probabilities == (("dog", 0.6),)
    assert after.version != before.version
    assert serve(project=8).pipeline == serve(project=None).pipeline == before


def test_a_dropped_profile_gives_the_older_version_back(serve, use, near):
    before = serve().pipeline.version
    use()
    use_profile(near, STUDIO, 7, None)
    assert serve().pipeline.version == before


@pytest.mark.parametrize(
    ("control", "given", "kept"),
    [
        pytest.param("", (), (True, True), id="the profile"),
        pytest.param("", ("explainer",), (False, True), id="an explainer by hand"),
        pytest.param("", ("threshold",), (False, True), id="a threshold by hand"),
        pytest.param("", ("min_probability",), (True, False), id="a probability by hand"),
        pytest.param("", ("max_labels",), (True, True), id="something else by hand"),
        pytest.param('model_explainer="cam"', (), (False, True), id="the config's explainer"),
        pytest.param('model_box_threshold="0.4"', (), (False, True), id="the config's threshold"),
        pytest.param('model_score_threshold="0.4"', (), (True, False), id="the config's probability"),
    ],
)
def test_what_is_given_by_hand_or_by_the_label_config_goes_before_the_profile(
    serve, use, control, given, kept
):
    use()
    pipeline = serve(attributes(make_label_config(["cat", "dog"]), control), given).pipeline
    assert (bool(pipeline.label_ways), bool(pipeline.label_min_probabilities)) == kept


def test_limits_of_labels_in_the_config_go_before_the_profiles(serve, use):
    use()
    config = make_label_config(["cat", "dog"]).replace(
        'value="dog"', 'value="dog" model_score_threshold="0.9"'
    )
    assert serve(config).pipeline.label_min_probabilities == (("dog", 0.9),)


def test_labels_that_the_project_does_not_have_are_left_out(serve, use):
    use()
    pipeline = serve(make_label_config(["dog", "bird"])).pipeline
    assert (pipeline.label_ways, pipeline.label_min_probabilities) == ((), (("dog", 0.6),))


def test_a_profile_of_another_version_is_used_with_a_warning(serve, use):
    use(model="tiny@older")
    serving = serve()
    assert serving.pipeline.label_ways == (("cat", WAY),)
    assert any("was tuned for tiny@older" in warning for warning in serving.warnings)


def test_a_profile_of_another_kind_of_network_is_not_used(serve, use):
    use(architecture="torchvision/resnet18")
    serving = serve()
    assert serving.pipeline.label_ways == ()
    assert any("another kind of network" in warning for warning in serving.warnings)


def test_a_state_is_the_measured_one_for_the_same_version_and_the_newest_for_another(serve, use, store):
    measured = learnt(store, content=b"measured", views=2)
    newest = learnt(store, content=b"newest", views=4)
    way = Way("box_regression", {"views": 2}, state=measured.id)
    use(label_ways=(("cat", way),))
    assert dict(serve().pipeline.label_ways)["cat"].state == measured.id
    use(label_ways=(("cat", way),), model="tiny@older")
    other = dict(serve().pipeline.label_ways)["cat"]
    assert (other.state, other.explainer_options) == (newest.id, {"views": 4})


def test_a_way_whose_explainer_has_not_learnt_about_this_version_is_left_out_and_told(serve, use):
    use(label_ways=(("cat", Way("box_regression", state="0123456789ab")),), model="tiny@older")
    serving = serve()
    assert serving.pipeline.label_ways == ()
    assert any("box_regression has not learnt" in warning for warning in serving.warnings)


def test_the_commands_list_use_and_drop(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path, studio_url=STUDIO)
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke
    assert "There is no profile" in run(app, ["list"]).output
    with closing(Ledger(settings.ledger_url)) as ledger:
        store_profile(ledger, PROFILE)
    assert "is served with cats" in run(app, ["use", "cats", "--project", "7"]).output
    listed = json.loads(run(app, ["list", "--json"]).output)
    assert [(one["project"], one["profile"]["name"]) for one in listed["projects"]] == [(7, "cats")]
    assert "0.300 to 0.400" in run(app, ["list"]).output
    assert "has no profile any more" in run(app, ["drop", "--project", "7"]).output
    assert json.loads(run(app, ["list", "--json"]).output)["projects"] == []
