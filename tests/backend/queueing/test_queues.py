import os
import signal
import subprocess
import sys

import pytest
import redis
from rq import Callback
from rq.exceptions import DequeueTimeout

from heatbox.errors import RedisUnavailableError
from heatbox.pipeline import Pipeline
from heatbox.queueing.queues import (
    BATCH,
    INTERACTIVE,
    AllowedJob,
    HeatboxQueue,
    connect,
    enqueue,
    listening_pids,
    listening_workers,
    open_queue,
)

PIPELINE = Pipeline("tiny@0")
SECONDS = {"timeout": 60, "queued_seconds": None, "result_seconds": 60, "failure_seconds": 60}


@pytest.fixture
def queues(redis_server):
    """The queues of a worker, the most urgent first."""
    with connect(redis_server.url) as connection:
        yield [open_queue(connection, INTERACTIVE), open_queue(connection, BATCH)]


def take(queues, timeout=1):
    found = HeatboxQueue.dequeue_any(queues, timeout, queues[0].connection)
    return found and (found[0].id, found[1].name)


def test_a_job_of_one_id_is_on_the_queue_once(queues):
    assert enqueue(queues[0], "x", PIPELINE, ["/a"], **SECONDS)
    assert not enqueue(queues[0], "x", PIPELINE, ["/a"], **SECONDS)
    assert queues[0].job_ids == ["x"]


def test_the_urgent_queue_comes_first(queues):
    enqueue(queues[1], "later", PIPELINE, ["/a"], **SECONDS)
    enqueue(queues[0], "now", PIPELINE, ["/a"], **SECONDS)
    assert [take(queues), take(queues)] == [("now", INTERACTIVE), ("later", BATCH)]


def test_a_job_that_was_taken_is_noted_until_it_begins(queues):
    enqueue(queues[1], "x", PIPELINE, ["/a"], **SECONDS)
    take(queues)
    assert queues[1].intermediate_queue.get_job_ids() == ["x"]


def test_a_job_whose_content_is_gone_is_passed_over(queues):
    for job_id in ("gone", "there"):
        enqueue(queues[1], job_id, PIPELINE, ["/a"], **SECONDS)
    queues[1].connection.delete("rq:job:gone")
    assert take(queues) == ("there", BATCH)


@pytest.mark.parametrize("timeout", [None, 1])
def test_empty_queues_yield_nothing_in_time(queues, timeout):
    if timeout is None:
        assert take(queues, None) is None
    else:
        with pytest.raises(DequeueTimeout):
            take(queues, timeout)


WAIT_AND_TAKE = """
import os, sys
from heatbox.queueing.queues import *
queues = [open_queue(connect(sys.argv[1]), name) for name in (INTERACTIVE, BATCH)]
print("waits", flush=True)
HeatboxQueue.dequeue_any(queues, 60, queues[0].connection)
os.kill(os.getpid(), 9)
"""


def test_a_worker_that_is_killed_after_it_took_a_job_does_not_lose_it(queues, redis_server):
    command = [sys.executable, "-c", WAIT_AND_TAKE, redis_server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as worker:
        worker.stdout.readline()
        enqueue(queues[1], "x", PIPELINE, ["/a"], **SECONDS)
    assert worker.returncode == -signal.SIGKILL
    assert queues[1].intermediate_queue.get_job_ids() == ["x"]


def test_nobody_listens_at_first(queues, redis_server):
    assert listening_workers(queues[0].connection) == 0
    assert listening_pids(redis_server.url) == set()


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis://127.0.0.1:notaport"])
def test_a_url_that_names_no_redis_is_refused_with_a_remedy(url):
    with pytest.raises(RedisUnavailableError, match="HEATBOX_REDIS_URL"):
        connect(url)


def test_a_redis_that_does_not_answer_is_told_as_such(tmp_path):
    with pytest.raises(RedisUnavailableError, match="does not answer"):
        listening_pids(f"unix://{tmp_path}/none.sock")


def test_a_job_takes_no_functions_from_redis(redis_server):
    with redis.Redis.from_url(redis_server.url) as connection:
        abort = Callback("os.abort")
        job = AllowedJob.create("os.getcwd", connection=connection, on_success=abort, on_failure=abort)
    assert (job.success_callback, job.failure_callback) == (None, None)
    with pytest.raises(PermissionError, match=r"os\.getcwd"):
        job.perform()
