"""`heatbox tune` as a person meets it: a profile out of a COCO folder, and a worker that annotates with it."""

import json
from contextlib import closing

import pytest
import typer
from typer.testing import CliRunner

from heatbox.errors import HeatboxError
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.profiles import Profile, list_profiles, profile_of, store_profile, use_profile
from heatbox.serving import serve_project
from heatbox.settings import Settings, as_environment
from heatbox_workers.commands.tune import keep
from heatbox_workers.commands.tune import tune as tune_command
from heatbox_workers.jobs import Annotators
from heatbox_workers.tune.values import Measured, Tuned

STUDIO = "http://127.0.0.1:8080"


@pytest.fixture
def settings(tmp_path, colours, monkeypatch):
    chosen = Settings(
        home=tmp_path / "home",
        store=tmp_path / "models",
        model="colours",
        explainer="grad_cam",
        threshold=0.95,
        studio_url=STUDIO,
        local_roots=(colours.data,),
    )
    for name, value in as_environment(chosen).items():
        monkeypatch.setenv(name, value)
    return chosen


@pytest.fixture
def tune(colours, settings):
    assert settings.threshold == 0.95
    app = typer.Typer()
    app.command()(tune_command)

    def tune(*words):
        fast = ["--data", str(colours.data), "--explainer", "layer_cam", "--folds", "2"]
        return CliRunner().invoke(app, [*fast, *words])

    return tune


def profiles(settings):
    with closing(Ledger(settings.ledger_url)) as ledger:
        return [one.name for one in list_profiles(ledger)]


def test_a_dry_run_tells_and_stores_nothing(tune, settings):
    ran = tune("--dry-run")
    assert ran.exit_code == 0, ran.output
    assert "Expected over all labels" in ran.output
    assert profiles(settings) == []


def test_a_profile_is_stored_and_a_worker_annotates_a_project_with_it(tune, settings, colours):
    told = json.loads(tune("--name", "squares", "--json").stdout)
    assert told["profile"]["expected"]["after"] > told["profile"]["expected"]["before"] + 0.2
    config = parse_label_config(make_label_config(["red", "blue"]))
    with closing(Ledger(settings.ledger_url)) as ledger:
        before = serve_project(settings, colours.store, ledger, config, project=7).pipeline
        use_profile(ledger, STUDIO, 7, "squares")
        pipeline = serve_project(settings, colours.store, ledger, config, project=7).pipeline
    assert [label for label, _ in pipeline.label_ways] == ["blue", "red"]
    picture = str(colours.data / "images" / "01.png")
    with closing(Annotators(settings)) as annotators:
        found = [
            entry["annotation"]["regions"][0]["box"]
            for each in (before, pipeline)
            for entries, _ in annotators.annotate(each, [picture], lambda **_: None)
            for entry in entries
        ]
    assert found[0] != found[1]


@pytest.mark.parametrize("words", [[], ["--project", "7", "--data", "."]])
def test_a_project_or_a_folder_is_needed_and_not_both(words):
    app = typer.Typer()
    app.command()(tune_command)
    assert CliRunner().invoke(app, words).exit_code == 2


@pytest.mark.usefixtures("settings")
def test_a_folder_that_is_no_data_set_is_an_error(tmp_path):
    app = typer.Typer()
    app.command()(tune_command)
    ran = CliRunner().invoke(app, ["--data", str(tmp_path / "nowhere")])
    assert isinstance(ran.exception, HeatboxError)


def test_an_older_profile_is_put_aside_where_nothing_is_better_any_more(settings, capsys):
    nothing = Tuned(Profile("tuned", "colours@1"), Measured(0.5, 0.5), ())
    with closing(Ledger(settings.ledger_url)) as ledger:
        store_profile(ledger, Profile("older", "colours@1", label_min_probabilities=(("red", 0.5),)))
        use_profile(ledger, STUDIO, 7, "older")
        keep(settings, ledger, nothing, 7)
        assert profile_of(ledger, STUDIO, 7) is None
        keep(settings, ledger, nothing, 7)
    told = capsys.readouterr().err
    assert told.count("no profile was made") == 2
    assert told.count("older is put aside: project 7") == 1
