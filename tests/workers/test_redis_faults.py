"""Redis at its worst: replies that are lost after the command was carried out, jobs that are delivered twice."""

import os
import time

import pytest
from fixtures_redis import LABELS

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.pipeline import pipeline_for
from heatbox.queueing.queues import BATCH, connect, open_queue
from heatbox.runs.conducting import make_conductor
from heatbox.runs.records import Runs
from heatbox.runs.tables import ItemState, NewItem, NewRun, RunState

pytestmark = pytest.mark.usefixtures("poisoned")

PICTURES = 24


@pytest.fixture
def settings(settings, tmp_path):
    return settings.model_copy(update={"local_roots": (tmp_path,)})


@pytest.fixture
def conductor(settings):
    """A conductor of an own ledger, connected to Redis itself."""
    ledger = Ledger(settings.ledger_url)
    made = []

    def make(url=settings.redis_url):
        own = settings.model_copy(update={"redis_url": url})
        made.append(make_conductor(own, Runs(ledger), os.environ))
        return made[-1]

    yield make
    for one in made:
        one.close()
    ledger.close()


@pytest.fixture
def start(settings, make_pictures):
    """Write a run over some pictures that take a moment each."""
    card = ModelStore(settings.store_path).find("tiny")
    pipeline = pipeline_for(card, explainer="poison", min_probability=0, explainer_options={"seconds": 0.02})

    def make(conductor):
        items = [NewItem(path.name, (str(path),)) for path in sorted(make_pictures(PICTURES).iterdir())]
        return conductor.runs.create(NewRun("pictures", pipeline, make_label_config(LABELS)), items)

    return make


def finish(conductor, number):
    deadline = time.monotonic() + 90
    while conductor.runs.find(number).state is RunState.RUNNING:
        conductor.lane.wait(0.02 if conductor.step() else 0.1)
        assert time.monotonic() < deadline, conductor.runs.counts(number)
    assert conductor.runs.counts(number).by_state == {ItemState.DONE: PICTURES}
    assert conductor.runs.open_chunks() == []


@pytest.mark.parametrize("command", [rb"EVALSHA|EVAL\b", rb"HGETALL", rb"SMEMBERS", rb"XREVRANGE|DEL\b"])
def test_a_reply_that_the_conductor_never_gets_loses_and_doubles_nothing(
    conductor, cutting_proxy, start, start_worker, command
):
    cut = conductor(cutting_proxy.url)
    number = start(cut)
    start_worker()
    cutting_proxy.cut_after(command)
    finish(cut, number)
    assert cutting_proxy.cuts == 1


@pytest.mark.parametrize("command", [rb"\$5\r\nLMOVE", rb"EXEC", rb"hb:alive"])
def test_a_reply_that_the_worker_never_gets_loses_and_doubles_nothing(  # noqa: PLR0913, PLR0917 - both sides
    settings, conductor, cutting_proxy, start, start_worker_on, command
):
    straight = conductor()
    start_worker_on(settings.model_copy(update={"redis_url": cutting_proxy.url}))
    cutting_proxy.cut_after(command)
    finish(straight, start(straight))
    assert cutting_proxy.cuts == 1


def test_a_job_that_is_delivered_twice_has_its_effect_once(settings, conductor, start, start_worker):
    moving = conductor()
    number = start(moving)
    moving.step()
    with connect(settings.redis_url) as connection:
        queue = open_queue(connection, BATCH)
        connection.rpush(queue.key, *queue.job_ids)  # as a worker's repeated enqueue would
        assert len(queue.job_ids) == 2 * len(moving.runs.open_chunks())
    start_worker()
    finish(moving, number)


def test_results_of_a_chunk_that_was_given_up_are_not_taken(conductor, start, start_worker):
    moving = conductor()
    number = start(moving)
    moving.step()
    given_up = moving.runs.open_chunks()[0]
    moving.runs.settle(given_up, [])
    start_worker()
    finish(moving, number)
