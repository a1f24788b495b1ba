"""`heatbox calibrate` against a real Label Studio: predictions and corrections in, a version with other scores out."""

import os
import subprocess
import sys
from contextlib import closing

import httpx
import numpy as np
import pytest
from fixtures_redis import served

from heatbox.calibration import calibrated
from heatbox.labelling.config import make_label_config, parse_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.queueing.redis_server import private_redis
from heatbox.serving import serve_project
from heatbox.settings import Settings, as_environment
from heatbox.studio.client import Studio
from heatbox.studio.corrections import answered_tasks

pytestmark = pytest.mark.studio

CONFIG = make_label_config(["cat", "dog"])
TASKS = 40
OLDER = "heatbox-cam-test-abcdef0123"


def box(x, score=None, label="cat", **more):
    value = {"x": x, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [label]}
    size = {"original_width": 100, "original_height": 100, "image_rotation": 0}
    where = {"type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    return {**where, **size, "value": value, **({} if score is None else {"score": score}), **more}


def raw_score(place):
    """Return the score of a task's first box; its second has half of it."""
    return 0.2 + 0.75 * (place * 17 % 43) / 43


class Home:
    """A heatbox without workers, and one command of it."""

    def __init__(self, settings, server, client):
        self.settings, self.client = settings, client
        studio = {"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": server.token}
        self.environment = {**os.environ, **as_environment(settings), **studio}

    def version(self, project=None):
        """Return what /setup says, as Label Studio asks."""
        body = {"schema": CONFIG, **({} if project is None else {"project": f"{project}.1700000000"})}
        return self.client.post("/setup", json=body).json()["model_version"]

    def calibrate(self, project, *options, code=0):
        return self.run("calibrate", "--project", str(project), *options, code=code)

    def run(self, *words, code=0):
        ran = subprocess.run(
            [sys.executable, "-m", "heatbox", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        assert "Traceback" not in ran.stderr
        return " ".join((ran.stdout + ran.stderr).split())

    def pairs(self, project):
        """Return what the ledger has for the project."""
        store, config = ModelStore(self.settings.store_path), parse_label_config(CONFIG)
        with closing(Ledger(self.settings.ledger_url)) as ledger:
            pipeline = serve_project(self.settings, store, ledger, config).pipeline
            return calibrated(ledger, project, pipeline).calibration


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_store, studio_server):
    folder = tmp_path_factory.mktemp("calibrate") / "home"
    with private_redis(folder) as redis:
        settings = Settings(
            home=folder, store=tiny_store, model="tiny", redis_url=redis.url, min_probability=0
        )
        with served(settings) as client:
            yield Home(settings, studio_server, client)


@pytest.fixture(scope="module")
def api(studio_server):
    with httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as api:
        yield api


def made(api, address, content):
    answer = api.post(address, json=content)
    assert answer.is_success, answer.text
    return answer.json()


def new_project(api, answers):
    """Make a project with a task for each result that a person submitted; None: nobody did."""
    project = made(api, "/api/projects/", {"title": "Calibrate", "label_config": CONFIG})["id"]
    content = [
        {
            "data": {"image": f"http://photos.example/{place}.jpg"},
            "annotations": [] if result is None else [{"result": result}],
        }
        for place, result in enumerate(answers)
    ]
    return project, made(api, f"/api/projects/{project}/import?return_task_ids=true", content)["task_ids"]


@pytest.fixture(scope="module")
def corrected(api, home):
    """A project that people have corrected: every fourth task lost its first box, most their second."""

    def answer(place):
        first = [box(12)] if place % 4 else []
        return first + ([box(60, label="cat" if raw_score(place) > 0.6 else "dog")] if place % 2 else [])

    project, tasks = new_project(api, [*map(answer, range(TASKS)), None, None, None])
    version = home.version(project)
    predictions = [
        {
            "task": task,
            "model_version": version,
            "score": raw_score(place) / 2,
            "result": [box(10, raw_score(place), id="a"), box(60, raw_score(place) / 2, id="b")],
        }
        for place, task in enumerate(tasks)
    ]
    older = {"task": tasks[0], "model_version": OLDER, "score": 0.9, "result": [box(10, 0.9, id="o")]}
    assert made(api, f"/api/projects/{project}/import/predictions", [*predictions, older])["created"] == 44
    made(api, f"/api/tasks/{tasks[TASKS]}/annotations/", {"result": [], "was_cancelled": True})
    return project


def annotations(api, project):
    found = api.get(f"/api/projects/{project}/export", params={"exportType": "JSON"}).json()
    return {
        task["id"]: [(one["id"], one["updated_at"], one["result"]) for one in task["annotations"]]
        for task in found
    }


def test_corrections_make_a_version_whose_scores_say_what_people_keep(api, home, corrected):
    before, people = home.version(corrected), annotations(api, corrected)
    assert "kept 39 of 80 boxes in 40 tasks" in home.calibrate(corrected, "--dry-run")
    assert home.version(corrected) == before

    told = home.calibrate(corrected)
    after = home.version(corrected)
    assert after != before
    assert f"The version is {after}" in told
    assert "1 predictions of other versions do not count" in told
    assert home.version() == home.version(corrected + 1000) == before
    assert annotations(api, corrected) == people

    assert f"Nothing new: the version stays {after}" in home.calibrate(corrected)
    assert home.version(corrected) == after
    assert after in home.run("labels", "--project", str(corrected))
    assert after in home.run("run", "--project", str(corrected), "--dry-run")
    pairs = home.pairs(corrected)
    scores, shares = zip(*pairs, strict=True)
    firsts = [raw_score(place) for place in range(TASKS)]
    seconds = [score / 2 for score in firsts]
    calibrated_scores = np.interp([*firsts, *seconds], scores, shares)
    assert calibrated_scores.mean() == pytest.approx(39 / 80, abs=0.02)
    assert np.interp(0.15, scores, shares) < 0.2
    assert np.interp(0.9, scores, shares) == pytest.approx(0.75, abs=0.1)

    assert f"Scores are raw again. The version is {before}" in home.calibrate(corrected, "--forget")
    assert home.version(corrected) == before


def test_predictions_with_calibrated_scores_are_learnt_from_by_their_raw_ones(api, home):
    project, tasks = new_project(api, [[box(10)] if place % 3 else [] for place in range(TASKS)])
    raw = home.version(project)

    def predict(version, score_of):
        content = [
            {
                "task": task,
                "model_version": version,
                "score": score_of(place),
                "result": [
                    box(
                        10, score_of(place), id=f"r{place}", meta={"heatbox": {"raw_score": raw_score(place)}}
                    )
                ],
            }
            for place, task in enumerate(tasks)
        ]
        assert made(api, f"/api/projects/{project}/import/predictions", content)["created"] == TASKS

    predict(raw, raw_score)
    home.calibrate(project)
    calibrated_version, pairs = home.version(project), home.pairs(project)
    predict(calibrated_version, lambda _: 0.01)
    assert "Nothing new" in home.calibrate(project)
    assert home.pairs(project) == pairs


def test_label_studio_sorts_the_most_doubtful_tasks_first(api, home, corrected):
    chosen = {"model_version": home.version(corrected)}
    assert api.patch(f"/api/projects/{corrected}/", json=chosen).is_success
    query = '{"ordering": ["tasks:predictions_score"]}'
    params = {"project": corrected, "page_size": 100, "query": query, "fields": "all"}
    listed = api.get("/api/tasks/", params=params).json()["tasks"]
    scores = [one["predictions_score"] for one in listed]
    assert scores == pytest.approx(sorted(raw_score(place) / 2 for place in range(TASKS + 3)))
    assert [one["id"] for one in listed] != sorted(one["id"] for one in listed)


def test_label_studio_gives_out_the_most_doubtful_task_first(api, home):
    project, tasks = new_project(api, [None] * 5)
    version = home.version(project)
    scores = [0.9, 0.4, 0.2, 0.3, 0.8]
    content = [
        {"task": task, "model_version": version, "score": score, "result": [box(10, score)]}
        for task, score in zip(tasks, scores, strict=True)
    ]
    made(api, f"/api/projects/{project}/import/predictions", content)
    chosen = {"model_version": version, "sampling": "Uncertainty sampling"}
    assert api.patch(f"/api/projects/{project}/", json=chosen).is_success
    given_out = []
    for _ in tasks:
        given_out.append(api.get(f"/api/projects/{project}/next").json()["id"])
        made(api, f"/api/tasks/{given_out[-1]}/annotations/", {"result": []})
    assert given_out == [tasks[place] for place in np.argsort(scores)]


def test_tasks_are_read_by_pages_and_those_without_an_answer_are_not(studio_server, corrected):
    with Studio(studio_server.url, studio_server.token) as studio:
        pages = list(answered_tasks(studio, corrected, page_size=7))
    assert len(pages) == TASKS
    assert [one.id for one in pages] == sorted({one.id for one in pages})


def test_a_project_that_nobody_has_corrected_is_refused_and_keeps_its_version(api, home):
    project, _ = new_project(api, [None])
    before = home.version(project)
    told = home.calibrate(project, code=3)
    assert "calibration: People have judged 0 predicted boxes in 0 tasks" in told
    assert "what to do: Correct more predictions" in told
    assert home.version(project) == before
