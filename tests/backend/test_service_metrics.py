"""`/metrics` as Prometheus reads it, and `/readyz`: a real Redis, ledger and worker."""

import re
from contextlib import closing

import pytest
from fixtures_redis import served, wait_until
from prometheus_client.parser import text_string_to_metric_families

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger, metadata
from heatbox.pipeline import Pipeline
from heatbox.queueing.queues import BATCH, CHILD_DEATHS, connect, open_queue
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, Failed, NewItem, NewRun


@pytest.fixture
def ledger(settings):
    with closing(Ledger(settings.ledger_url)) as ledger:
        yield ledger


@pytest.fixture
def run(ledger):
    """A paused run, which nobody else moves: 2 pictures are done, 3 have failed, 1 waits."""
    runs = Runs(ledger)
    new = NewRun("secret title", Pipeline(model="tiny@1", explainer="cam"), make_label_config(["cat"]))
    number = runs.create(new, [NewItem(f"secret{n}.png", (f"/secret{n}",)) for n in range(6)])
    chunk = runs.take(number, 5)
    done = [Computed(item.id, {"result": [1]}, 0.25) for item in chunk.items[:2]]
    failed = [Failed(item.id, "picture-unreadable", "Secret.") for item in chunk.items[2:]]
    runs.settle(chunk, [*done, *failed])
    runs.pause(number)
    return number


@pytest.fixture
def client(settings):
    with served(settings) as client:
        yield client


def scraped(client):
    """Return the measures: name and labels -> value."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.mark.usefixtures("run")
def test_runs_and_their_items_are_counted(client):
    found = scraped(client)
    assert found["heatbox_up", "ledger"] == found["heatbox_up", "redis"] == 1
    items = {
        state: value
        for (name, *labels), value in found.items()
        if name == "heatbox_items"
        for state in labels
    }
    assert items == {"waiting": 1, "computed": 0, "done": 2, "failed": 3, "kept": 0}
    assert found["heatbox_items_failed", "picture-unreadable"] == 3
    assert (found["heatbox_runs", "paused"], found["heatbox_runs", "done"]) == (1, 0)
    assert found["heatbox_picture_seconds_count", "cam"] == 2
    assert found["heatbox_picture_seconds_sum", "cam"] == 0.5
    assert found["heatbox_backlog_seconds",] == 0


@pytest.mark.usefixtures("run")
def test_no_text_of_people_is_in_a_label(client):
    assert "ecret" not in client.get("/metrics").text


def test_queues_are_counted_with_the_age_of_the_next_job(client, redis_server):
    with connect(redis_server.url) as connection:
        for number in range(2):
            open_queue(connection, BATCH).enqueue("no.such.function", job_id=f"job{number}")
        connection.hset("rq:job:job0", "enqueued_at", "2020-01-01T00:00:00.000000Z")
        found = scraped(client)
    assert (found["heatbox_queue_jobs", BATCH], found["heatbox_queue_jobs", "hb-interactive"]) == (2, 0)
    assert found["heatbox_queue_oldest_seconds", BATCH] > 100_000_000
    assert found["heatbox_queue_oldest_seconds", "hb-interactive"] == 0
    assert found["heatbox_workers",] == 0


def test_deaths_of_processes_are_counted_by_exit_code_and_nothing_else(client, redis_server):
    with connect(redis_server.url) as connection:
        connection.hset(CHILD_DEATHS, mapping={"-11": 3, "1": 1, 'x"} 9 #': 1, "2": "many"})
    found = scraped(client)
    deaths = {code: value for (name, *rest), value in found.items() if "deaths" in name for code in rest}
    assert deaths == {"-11": 3, "1": 1}


@pytest.mark.usefixtures("run")
def test_what_answers_is_shown_where_redis_does_not(client, redis_server):
    redis_server.stop()
    found = scraped(client)
    assert (found["heatbox_up", "redis"], found["heatbox_up", "ledger"]) == (0, 1)
    assert found["heatbox_items", "done"] == 2
    assert not [name for name, *_ in found if "queue" in name]


def break_ledger(ledger):
    """Take the tables of runs away, as a database does that somebody else has restored."""
    with ledger.writing() as connection:
        metadata.tables["items"].drop(connection)


@pytest.mark.usefixtures("run")
def test_what_answers_is_shown_where_the_ledger_does_not(client, ledger):
    break_ledger(ledger)
    found = scraped(client)
    assert (found["heatbox_up", "redis"], found["heatbox_up", "ledger"]) == (1, 0)
    assert ("heatbox_queue_jobs", BATCH) in found
    assert not [name for name, *_ in found if "items" in name]


def test_it_is_ready_with_a_worker(client, start_worker):
    before = client.get("/readyz")
    assert (before.status_code, before.json()["missing"]) == (503, ["worker"])
    start_worker()
    wait_until(
        lambda: client.get("/readyz").status_code == 200, "the answer of half a second ago is forgotten"
    )
    after = client.get("/readyz")
    assert (after.status_code, after.json()) == (200, {"ready": True, "workers": 1})
    assert scraped(client)["heatbox_workers",] == 1


@pytest.mark.usefixtures("run")
def test_what_is_missing_is_named_with_a_remedy(client, ledger, redis_server):
    redis_server.stop()
    break_ledger(ledger)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["ledger", "redis", "worker"])
    assert answer.json()["message"] == "Missing: ledger, redis, worker."
    assert answer.json()["remedy"]


def test_it_is_alive_whatever_is_missing(client, redis_server):
    redis_server.stop()
    assert client.get("/healthz").json()["status"] == "UP"


def test_every_metric_is_documented(client, redis_server, request):
    with connect(redis_server.url) as connection:
        connection.hset(CHILD_DEATHS, "1", 1)
    page = (request.config.rootpath / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(heatbox_\w+)", page, re.MULTILINE))
    told = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
    assert documented == told
