"""Runs over HTTP and on their pages: the real service with its real ledger."""

import json
import re
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import httpx
import pytest
from fixtures_redis import served, wait_until

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, Failed, NewItem, NewRun
from heatbox.settings import as_environment
from heatbox.supervisor import listen

EVIL = "<script>alert(1)</script><b title='x\">"
PIPELINE = Pipeline(model="tiny@1", explainer="cam")


@pytest.fixture
def runs(settings):
    with closing(Ledger(settings.ledger_url)) as ledger:
        yield Runs(ledger)


@pytest.fixture
def client(settings):
    with served(settings) as client:
        yield client


def create(runs, count=8, project=3):
    new = NewRun(f"title {EVIL}", PIPELINE, make_label_config(["cat"]), project=project)
    return runs.create(new, [NewItem(f"{n} {EVIL}.png", (f"/{n}.png",), task=n) for n in range(count)])


@pytest.fixture
def run(runs):
    """A paused run, which nobody else moves: 2 tasks are done, 5 have failed, 1 is left."""
    number = create(runs)
    chunk = runs.take(number, 7)
    done = [Computed(item.id, {"result": [1]}, 0.25) for item in chunk.items[:2]]
    failed = [Failed(item.id, "picture-unreadable", f"Cut {EVIL} off.") for item in chunk.items[2:]]
    runs.settle(chunk, [*done, *failed])
    runs.confirm([one.item for one in done])
    runs.trouble(number, f"The token {EVIL} is wrong.", pause=True)
    return number


def test_a_run_can_be_looked_up(client, run):
    told = client.get(f"/v1/runs/{run}").json()
    assert {name: told[name] for name in ("id", "state", "project", "done", "failed", "left", "total")} == {
        "id": run,
        "state": "paused",
        "project": 3,
        "done": 2,
        "failed": 5,
        "left": 1,
        "total": 8,
    }
    assert told["errors"] == {"picture-unreadable": 5}
    assert client.get("/v1/runs").json() == {"runs": [told]}


@pytest.mark.parametrize(
    "path", ["/v1/runs/99", "/v1/runs/99/failed", "/v1/runs/99/events", "/runs/99", "/runs/99/events"]
)
def test_a_run_that_is_not_there_is_404_with_a_remedy(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "run-not-found",
        "message": "There is no run 99.",
        "remedy": "`heatbox runs` lists them.",
    }


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=1001", "after=x"])
def test_a_page_that_cannot_be_is_refused(client, run, query):
    answer = client.get(f"/v1/runs/{run}/failed?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "request")


def test_failed_items_come_page_by_page(client, run):
    address, names, pages = f"/v1/runs/{run}/failed", [], 0
    after = 0
    while after is not None:
        page = client.get(address, params={"after": after, "limit": 2}).json()
        names += [item["name"] for item in page["failed"]]
        after, pages = page["next"], pages + 1
    assert (pages, names) == (3, [f"{n} {EVIL}.png" for n in range(2, 7)])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/runs", "/v1/runs/1", "/runs", "/runs/1"])
def test_nothing_can_be_changed_over_http(client, method, path):
    assert client.request(method, path).status_code == 405


def events(stream):
    """Yield name and data of each event of a stream."""
    name, data = "", []
    for line in stream.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line and name:
            yield name, "\n".join(data)
            name, data = "", []


def test_events_tell_each_change_and_end_with_the_run(client, runs, run):
    with client.stream("GET", f"/v1/runs/{run}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = events(stream)
        name, first = next(told)
        runs.cancel(run)
        rest = list(told)
    assert (name, json.loads(first)["state"]) == ("run", "paused")
    assert [json.loads(data)["state"] for _, data in rest] == ["cancelled"]


def test_events_of_a_run_that_has_ended_are_one(client, runs, run):
    runs.cancel(run)
    with client.stream("GET", f"/v1/runs/{run}/events") as stream:
        assert [name for name, _ in events(stream)] == ["run"]


def test_the_list_gets_the_card_of_a_run_that_is_new_or_has_changed(client, runs, run):
    with client.stream("GET", "/runs/events") as stream:
        told = events(stream)
        assert f'id="run-{run}"' in next(told)[1]
        other = create(runs, 1)
        assert f'id="run-{other}"' in next(card for _, card in told if f'id="run-{run}"' not in card)


def test_a_runs_page_is_told_when_the_run_has_ended(client, runs, run):
    runs.cancel(run)
    with client.stream("GET", f"/runs/{run}/events") as stream:
        assert [name for name, _ in events(stream)] == ["card", "end"]


@pytest.mark.parametrize("path", ["/runs", "/runs/{run}", "/runs/{run}/events"])
def test_whatever_others_wrote_is_escaped(client, runs, run, path):
    runs.trouble(run, EVIL)
    if path.endswith("events"):
        runs.cancel(run)
    text = client.get(path.format(run=run)).text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<b title" not in text


@pytest.mark.parametrize("path", ["/runs", "/runs/{run}"])
def test_a_page_allows_its_own_script_and_style_alone_and_names_no_other_host(client, run, path):
    answer = client.get(path.format(run=run))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"(?:src|href|action)=[\"']?(?:https?:)?//", answer.text)
    assert len(re.findall(r"<script", answer.text)) == 1
    assert " style=" not in answer.text


def test_a_page_lists_what_failed_in_pages_of_a_hundred(client, runs):
    number = create(runs, 101)
    chunk = runs.take(number, 101)
    runs.settle(chunk, [Failed(item.id, "picture", "Bad.") for item in chunk.items])
    first = client.get(f"/runs/{number}").text
    following = re.search(r'href="(/runs/\d+\?after=\d+)"', first)[1]
    assert (first.count("<bdi>Bad.</bdi>"), client.get(following).text.count("<bdi>Bad.</bdi>")) == (100, 1)


def test_the_list_without_a_run_says_how_to_start_one(client):
    assert "No run yet" in client.get("/runs").text


@contextmanager
def service(settings):
    """Run `heatbox serve` in a process of its own and yield it with its address."""
    with listen("127.0.0.1", 0) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "heatbox", "serve", "--fd", str(descriptor)],
            env={"PATH": "/usr/bin:/bin", **as_environment(settings)},
            pass_fds=[descriptor],
        )
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()


@pytest.mark.usefixtures("run")
def test_open_streams_do_not_hold_up_the_end_of_the_service(settings):
    with service(settings) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        cards = []

        def look():
            with client.stream("GET", "/runs/events") as stream:
                cards.extend(events(stream))

        looking = threading.Thread(target=look)
        looking.start()
        wait_until(lambda: cards, "the stream has begun")
        process.terminate()
        assert process.wait(3.5) in {0, -15}
        looking.join()
