"""The doctor's checks of queues and runs, on a real Redis with jobs that were lost."""

import pytest
from rq import SimpleWorker

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock
from heatbox.pipeline import Pipeline
from heatbox.queueing.queues import BATCH, AllowedJob, HeatboxQueue, connect, enqueue, open_queue
from heatbox.runs.checks import queues, runs
from heatbox.runs.records import Runs
from heatbox.runs.tables import NewItem, NewRun
from heatbox.settings import Settings

SECONDS = {"timeout": 60, "queued_seconds": None, "result_seconds": 60, "failure_seconds": 60}


@pytest.fixture
def own(tmp_path, redis_server):
    return Settings(home=tmp_path / "home", redis_url=redis_server.url)


@pytest.fixture
def batch(redis_server):
    """A queue that a worker of this process listens on, without working."""
    with connect(redis_server.url) as connection:
        queue = open_queue(connection, BATCH)
        worker = SimpleWorker(
            [queue], connection=connection, serializer=queue.serializer, job_class=AllowedJob
        )
        worker.register_birth()
        yield queue
        worker.register_death()


def put(queue, job_id):
    enqueue(queue, job_id, Pipeline("tiny@0"), ["/a"], **SECONDS)


def test_workers_that_listen_are_counted(own, batch):
    put(batch, "x")
    found = queues(own)
    assert found.state == "ok"
    assert "1 workers listen" in found.found
    assert "hb-batch: 1 jobs wait" in found.found


def test_without_a_worker_it_says_how_to_start_one(own):
    found = queues(own)
    assert (found.state, found.remedy) == ("warning", "Start `heatbox up`, or `heatbox work` on any machine.")


@pytest.mark.parametrize(
    "lose",
    [
        lambda queue: queue.connection.delete(queue.key),
        lambda queue: HeatboxQueue.dequeue_any([queue], 1, queue.connection)[0].set_status("started"),
    ],
    ids=["on no list", "started and silent"],
)
def test_jobs_in_nobodys_hands_are_counted(own, batch, lose):
    put(batch, "x")
    lose(batch)
    found = queues(own)
    assert found.state == "warning"
    assert "1 jobs are in nobody's hands" in found.found


def test_the_redis_of_a_running_heatbox_up_is_found(tmp_path, redis_server):
    assert redis_server.folder == tmp_path / "home" / "redis"
    assert "0 workers listen" in queues(Settings(home=tmp_path / "home")).found


def test_a_run_that_nobody_conducts_is_told(own):
    ledger = Ledger(own.ledger_url)
    number = Runs(ledger).create(
        NewRun("x", Pipeline("tiny@0"), make_label_config(["cat"])), [NewItem("a", ("/a",))]
    )
    assert f"heatbox resume {number}" in runs(own).remedy
    with LedgerLock(ledger, own.home, of_services=True) as lock:
        assert lock.take()
        assert runs(own).state == "ok"
    ledger.close()


def test_what_a_run_waits_for_is_told(own):
    ledger = Ledger(own.ledger_url)
    known = Runs(ledger)
    number = known.create(
        NewRun("x", Pipeline("tiny@0"), make_label_config(["cat"])), [NewItem("a", ("/a",))]
    )
    known.trouble(number, "label-studio: it does not answer.")
    ledger.close()
    assert f"run {number}: label-studio: it does not answer." in runs(own).found
