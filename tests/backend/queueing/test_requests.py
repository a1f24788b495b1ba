import asyncio

import pytest

from heatbox.errors import RedisUnavailableError
from heatbox.pipeline import Pipeline
from heatbox.queueing.queues import connect, open_queue
from heatbox.queueing.requests import Batch, RequestQueue

PIPELINE = Pipeline("tiny@0")
A, B = Batch(("/a",)), Batch(("/b",))


@pytest.fixture
def queue(redis_server):
    return RequestQueue(redis_server.url)


@pytest.fixture
def jobs(redis_server):
    """The queue as a worker sees it."""
    with connect(redis_server.url) as connection:
        yield open_queue(connection)


def test_identical_requests_share_one_job(queue, jobs):
    assert queue.submit(PIPELINE, Batch(("/a", "/b"))) == queue.submit(PIPELINE, Batch(("/a", "/b")))
    assert len(jobs) == 1


@pytest.mark.parametrize(
    ("pipeline", "batch"),
    [
        (PIPELINE, Batch(("/b", "/a"))),
        (PIPELINE, A),
        (PIPELINE, Batch(("/a", "/b"), attempt=1)),
        (Pipeline("tiny@1"), Batch(("/a", "/b"))),
    ],
)
def test_other_requests_are_other_jobs(queue, pipeline, batch):
    assert queue.submit(pipeline, batch) != queue.submit(PIPELINE, Batch(("/a", "/b")))


def test_a_job_that_failed_is_tried_again_three_times(queue, jobs):
    job_ids = []
    for _ in range(5):
        job_ids.append(queue.submit(PIPELINE, A))
        fail(jobs, job_ids[-1])
    assert len(set(job_ids)) == 3


def test_the_log_line_of_a_job_names_no_address(queue, jobs):
    job = jobs.fetch_job(queue.submit(PIPELINE, Batch(("/secret/picture.png",))))
    assert "secret" not in job.description
    assert job.args[1] == ["/secret/picture.png"]


def test_waiting_ends_without_an_outcome_after_its_time(queue):
    job_id = queue.submit(PIPELINE, A)
    assert asyncio.run(wait(queue, [job_id], 0.05)) == {}


def test_waiting_yields_what_is_there_and_why_a_job_failed(queue, jobs):
    failed, waiting = (queue.submit(PIPELINE, batch) for batch in (A, B))
    fail(jobs, failed)
    outcomes = asyncio.run(wait(queue, [failed, waiting], 5))
    assert list(outcomes) == [failed]
    assert outcomes[failed].failure == "it broke"


@pytest.mark.parametrize(
    "call",
    [
        lambda url: RequestQueue(url).submit(PIPELINE, A),
        lambda url: asyncio.run(wait(RequestQueue(url), ["x"], 1)),
    ],
)
def test_a_redis_that_does_not_answer_is_told_as_such(tmp_path, call):
    with pytest.raises(RedisUnavailableError, match="does not answer"):
        call(f"unix://{tmp_path}/none.sock")


def test_jobs_that_nobody_waits_for_are_taken_off_the_queue(queue, jobs):
    first, second = queue.submit(PIPELINE, A), queue.submit(PIPELINE, B)
    queue.withdraw([first])
    assert jobs.job_ids == [second]
    assert queue.submit(PIPELINE, A) == first
    assert len(jobs) == 2


async def wait(queue, job_ids, seconds):
    try:
        return await queue.wait(job_ids, seconds)
    finally:
        await queue.aclose()


def fail(jobs, job_id):
    """Do what a worker does with a job that failed."""
    job = jobs.fetch_job(job_id)
    with jobs.connection.pipeline() as pipeline:
        job.set_status("failed", pipeline=pipeline)
        job._handle_failure("Traceback ...\nit broke", pipeline)  # noqa: SLF001 - RQ has no public way
        pipeline.execute()
