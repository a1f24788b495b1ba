"""`heatbox run` and a real Label Studio: what is told before a run starts, and that its result is imported again."""

import json
import os
import subprocess
import sys

import pytest

from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.remote_store import open_store
from heatbox.runs.records import Runs
from heatbox.runs.tables import RunState
from heatbox.serving import serve_project
from heatbox.settings import Settings

pytestmark = pytest.mark.studio

CONFIG = make_label_config(["Cat", "zebra"])


@pytest.fixture
def settings(tmp_path, tiny_store, pictures):
    """Settings of a person's machine without Redis."""
    own = {"model": "tiny", "min_probability": 0, "threads": 1, "local_roots": (pictures,)}
    return Settings(home=tmp_path / "home", store=tiny_store, **own)


@pytest.fixture
def heatbox(settings, studio_server, tmp_path):
    """Run a command that knows Label Studio."""
    environment = {
        **os.environ,
        "HEATBOX_HOME": str(settings.home),
        "HEATBOX_STORE": str(settings.store),
        "HEATBOX_LOCAL_ROOTS": str(settings.local_roots[0]),
        "HEATBOX_MODEL": "tiny",
        "HEATBOX_MIN_PROBABILITY": "0",
        "HEATBOX_THREADS": "1",
        "LABEL_STUDIO_URL": studio_server.url,
        "LABEL_STUDIO_API_KEY": studio_server.token,
    }

    def heatbox(*arguments, **variables):
        command = [sys.executable, "-m", "heatbox", *map(str, arguments)]
        answer = subprocess.run(
            command,
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in answer.stderr, answer.stderr
        assert studio_server.token not in answer.stdout + answer.stderr
        return answer

    return heatbox


@pytest.fixture
def project(studio, pictures):
    """A project with the twelve pictures as tasks."""
    made = studio.post("/api/projects/", json={"title": "Twelve [pets]", "label_config": CONFIG}).json()["id"]
    tasks = [{"image": str(pictures / f"{number}.png")} for number in range(12)]
    assert studio.post(f"/api/projects/{made}/import", json=tasks).is_success
    return made


@pytest.fixture
def runs(settings):
    ledger = Ledger(settings.ledger_url)
    yield Runs(ledger)
    ledger.close()


def predictions(studio, project):
    """Return the model versions of each task's predictions."""
    answer = studio.get("/api/tasks/", params={"project": project, "fields": "all", "page_size": 100}).json()
    return {task["id"]: [one["model_version"] for one in task["predictions"]] for task in answer["tasks"]}


def test_a_dry_run_tells_version_labels_and_counts_and_writes_nothing(
    heatbox, studio, settings, runs, project
):
    answer = heatbox("run", "--project", project, "--limit", 5, "--dry-run")
    assert answer.returncode == 0, answer.stderr
    ledger = Ledger(settings.ledger_url)
    config = parse_label_config(CONFIG)
    version = serve_project(settings, open_store(settings), ledger, config).pipeline.version
    ledger.close()
    for told in (version, "Twelve [pets]", "Cat: cat", "zebra: no class, so no box", "12, 5 are taken"):
        assert told in answer.stdout
    assert "'zebra' has no class and gets no box" in answer.stderr
    assert runs.newest() == []
    assert not any(predictions(studio, project).values())


def test_the_filter_is_counted_before_and_holds_in_the_run(heatbox, studio, runs, project):
    first = min(predictions(studio, project))
    asked = ("run", "--project", project, "--filter", f"ids={first}-{first + 3}")
    assert "12, 4 are taken" in heatbox(*asked, "--dry-run").stdout
    answer = heatbox(*asked)
    assert answer.returncode == 0, answer.stderr
    assert "4 annotated, 0 left as they were, 0 failed" in answer.stdout
    (run,) = runs.newest()
    assert (run.state, run.title, run.project) == (RunState.DONE, "Twelve [pets]", project)
    stored = predictions(studio, project)
    assert [task for task, versions in stored.items() if versions] == list(range(first, first + 4))
    assert "4 have a prediction of this version" in heatbox("run", "--project", project, "--dry-run").stdout
    assert "1 have a prediction" in heatbox("run", "-p", project, "--limit", 1, "--dry-run").stdout


def test_a_second_run_writes_nothing_and_replace_removes_the_older_version_only(heatbox, studio, project):
    older = heatbox("run", "-p", project, "--limit", 2)
    assert "2 annotated" in older.stdout, older.stderr
    before = predictions(studio, project)
    assert "0 annotated, 2 left as they were" in heatbox("run", "-p", project, "--limit", 2).stdout
    assert predictions(studio, project) == before
    task, (version,) = next(item for item in before.items() if item[1])
    foreign = {"task": task, "result": [], "score": 0.5, "model_version": "yolo"}
    assert studio.post("/api/predictions/", json=foreign).is_success
    assert studio.post(f"/api/tasks/{task}/annotations/", json={"result": []}).is_success
    answer = heatbox("run", "-p", project, "--limit", 2, "--threshold", 0.6, "--replace")
    assert "2 annotated" in answer.stdout, answer.stderr
    assert "Corrections were pulled first: 1 new" in answer.stderr
    (new,) = {one for versions in predictions(studio, project).values() for one in versions} - {"yolo"}
    assert new != version
    assert sorted(predictions(studio, project)[task]) == sorted([new, "yolo"])


@pytest.mark.parametrize(
    ("arguments", "token", "code"),
    [
        (["--project", 999_999], None, "label-studio-refused"),
        ([], "f" * 40, "label-studio-refused"),
        ([], "", "label-studio-refused"),
        (["--filter", "unlabeled"], None, "request"),
        (["--filter", "view=999999"], None, "label-studio-refused"),
        (["--explainer", "nosuch"], None, "plugin-not-found"),
    ],
    ids=["project", "token", "no token", "filter", "view", "explainer"],
)
def test_what_cannot_work_is_told(heatbox, project, arguments, token, code):
    chosen = arguments if "--project" in arguments else ["--project", project, *arguments]
    answer = heatbox("run", *chosen, **({} if token is None else {"LABEL_STUDIO_API_KEY": token}))
    assert answer.returncode == 3
    assert f"error {code}: " in answer.stderr
    assert "No run yet" in heatbox("runs").stdout


def test_a_project_without_a_label_that_the_model_knows_is_told(heatbox, studio, runs):
    body = {"title": "zebras", "label_config": make_label_config(["zebra"])}
    answer = heatbox("run", "-p", studio.post("/api/projects/", json=body).json()["id"])
    assert answer.returncode == 3
    assert "error label-unknown: " in answer.stderr
    assert runs.newest() == []


def test_the_lines_without_an_error_are_imported_with_the_label_config_beside_them(
    heatbox, studio, pictures, tmp_path
):
    assert heatbox("run", pictures, "nowhere.png", "--limit", 13, "--out", "out.jsonl").returncode == 1
    body = {"title": "lines", "label_config": (tmp_path / "out.config.xml").read_text()}
    project = studio.post("/api/projects/", json=body).json()["id"]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    good = [line for line in lines if "error" not in line]
    assert (len(lines), len(good)) == (13, 12)
    answer = studio.post(f"/api/projects/{project}/import", json=good)
    assert (answer.status_code, answer.json()["prediction_count"]) == (201, 12)
    sent = [[one["model_version"] for one in line["predictions"]] for line in good]
    assert list(predictions(studio, project).values()) == sent
