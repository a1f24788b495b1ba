"""`heatbox next` and `heatbox map` against a real Label Studio: places that it sorts by, and nothing else changed."""

import csv
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import typer
from fixtures_runs import Project
from typer.testing import CliRunner

from heatbox_workers.commands.map import data_map
from heatbox_workers.commands.next import next_up

pytestmark = pytest.mark.studio

PICTURES = 8
KEY = "heatbox_next"


@pytest.fixture(scope="module")
def home(tmp_path_factory, make_heatbox, studio_server):
    folder = tmp_path_factory.mktemp("next")
    return make_heatbox(folder, studio_server, explainer="grad_cam", explainer_options=())


@pytest.fixture
def heatbox(home, monkeypatch):
    """Run a command in this process, which has torch already; the first test starts one of its own."""
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.command("next")(next_up)
    app.command("map")(data_map)

    def heatbox(*arguments, code=0):
        ran = CliRunner().invoke(app, [str(one) for one in arguments])
        assert ran.exit_code == code, ran.output
        return " ".join(ran.output.split())

    return heatbox


@pytest.fixture
def project(make_project):
    """Eight pictures, of which three are labelled, one more skipped, and a picture that is not there."""
    project = make_project(PICTURES, "missing.png")
    project.made(f"/api/tasks/{project.tasks[3]}/annotations/", {"result": [], "was_cancelled": True})
    return project


def answers(project):
    """Return every annotation, as it is stored."""
    return [project.api.get(f"/api/tasks/{task}/annotations/").json() for task in project.tasks]


@pytest.fixture
def calls(project):
    """What Label Studio asks of a backend of the project, and tells its webhook, from now on."""
    heard = []

    class Backend(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard.append(self.path)
            content = b'{"status": "UP", "model_version": "other", "results": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    project.made("/api/ml", {"project": project.id, "url": url, "title": "other"})
    changes = {"show_collab_predictions": True, "evaluate_predictions_automatically": True}
    assert project.api.patch(f"/api/projects/{project.id}/", json=changes).is_success
    heard.clear()
    yield heard
    server.shutdown()
    server.server_close()


def listed(project, ordering="tasks:id", **more):
    """Return the tasks as the data manager lists them."""
    query = json.dumps({"ordering": [ordering], **more})
    fields = "id,data,updated_at,total_predictions"
    params = {"project": project.id, "query": query, "include": fields, "page_size": 100, "review": "true"}
    return project.api.get("/api/tasks/", params={**params, "resolve_uri": "false"}).json()["tasks"]


def places(project):
    return {task["id"]: task["data"].get(KEY) for task in listed(project)}


def test_open_tasks_get_places_that_label_studio_sorts_by_and_nothing_else_changes(
    home, project, calls, tmp_path
):
    before, people = {task["id"]: task for task in listed(project)}, answers(project)
    told = home.command("next", "-p", project.id, "--out", tmp_path / "next.csv", code=1)
    assert not calls  # listing with `review` asks for no prediction, and writing a task tells no webhook
    assert "4 tasks got a place, 0 lost theirs" in told
    found = places(project)
    assert sorted(filter(None, found.values())) == ["00001", "00002", "00003", "00004"]
    assert {task for task, place in found.items() if place} == set(project.tasks[4:8])
    order = sorted(filter(found.get, found), key=found.get)
    for more in ({}, {"columnsDisplayType": {f"tasks:data.{KEY}": "Number"}}):
        assert [task["id"] for task in listed(project, f"tasks:data.{KEY}", **more)][:4] == order
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert [int(row["task"]) for row in rows] == order
    assert rows[0]["address"].endswith(f"/projects/{project.id}/data?task={order[0]}")
    assert set(rows[0]) == {"place", "task", "doubt", "disagreement", "diversity", "address"}
    for task in listed(project):
        assert {**task["data"], KEY: None} == {**before[task["id"]]["data"], KEY: None}
        assert task["total_predictions"] == 0
    assert answers(project) == people
    columns = project.api.get("/api/dm/columns", params={"project": project.id}).json()["columns"]
    assert KEY in {column["id"] for column in columns}


def test_a_second_time_writes_nothing_and_an_annotated_task_loses_its_place(heatbox, project):
    heatbox("next", "-p", project.id, code=1)
    first, times = places(project), [task["updated_at"] for task in listed(project)]
    assert "0 tasks got a place, 0 lost theirs, 4 stay" in heatbox("next", "-p", project.id, code=1)
    assert [task["updated_at"] for task in listed(project)] == times
    best = next(task for task, place in first.items() if place == "00001")
    project.made(f"/api/tasks/{best}/annotations/", {"result": []})
    told = heatbox("next", "-p", project.id, "--by", "doubt", "--limit", 2, code=1)
    assert "2 lost theirs" in told
    assert places(project)[best] is None
    assert sum(place is not None for place in places(project).values()) == 2
    assert "0 tasks got a place, 2 lost theirs" in heatbox("next", "-p", project.id, "--forget")
    assert KEY not in {key for task in listed(project) for key in task["data"]}


def test_without_a_class_for_any_label_the_order_is_by_diversity_and_a_dry_run_writes_nothing(
    heatbox, studio
):
    project = Project(studio, [f"{number:02}.png" for number in range(5)], ["zebra"])
    told = heatbox("next", "-p", project.id, "--dry-run")
    assert "The first 2 of 2 places" in told
    assert "diversity" in told
    assert "doubt" not in told
    assert not any(places(project).values())


def test_a_project_becomes_a_map_with_what_people_said(heatbox, project, studio_server, calls, tmp_path):
    told = heatbox("map", "-p", project.id, "--out", tmp_path / "map.html", code=1)
    assert not calls  # nor does pulling corrections ask for a prediction
    assert "8 pictures" in told
    page = (tmp_path / "map.html").read_text()
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', page, re.DOTALL)[1])
    by_task = {int(one["href"].rpartition("=")[2]): one for one in payload["points"]}
    assert set(by_task) == set(project.tasks[:PICTURES])
    address = f"{studio_server.url}/projects/{project.id}/data?task={project.tasks[0]}"
    assert by_task[project.tasks[0]]["href"] == address
    assert [by_task[task]["said"] for task in project.tasks[:5]] == ["cat", "cat", "cat", None, None]
    assert "missing.png" in page
