import asyncio

import pytest
import redis
from rq import Callback

from heatbox.errors import RedisUnavailableError
from heatbox.pipeline import Pipeline
from heatbox.queue import AllowedJob, JobQueue, connect, listening_pids, open_queue

PIPELINE = Pipeline("tiny@0")


@pytest.fixture
def queue(redis_server):
    return JobQueue(redis_server.url)


@pytest.fixture
def jobs(redis_server):
    """The queue as a worker sees it."""
    with connect(redis_server.url) as connection:
        yield open_queue(connection)


def test_identical_requests_share_one_job(queue, jobs):
    assert queue.submit(PIPELINE, ["/a", "/b"]) == queue.submit(PIPELINE, ["/a", "/b"])
    assert len(jobs) == 1


@pytest.mark.parametrize(
    ("pipeline", "addresses"),
    [(PIPELINE, ["/b", "/a"]), (PIPELINE, ["/a"]), (Pipeline("tiny@1"), ["/a", "/b"])],
)
def test_other_requests_are_other_jobs(queue, pipeline, addresses):
    assert queue.submit(pipeline, addresses) != queue.submit(PIPELINE, ["/a", "/b"])


def test_a_job_that_failed_is_tried_again_three_times(queue, jobs):
    job_ids = []
    for _ in range(5):
        job_ids.append(queue.submit(PIPELINE, ["/a"]))
        fail(jobs, job_ids[-1])
    assert len(set(job_ids)) == 3


def test_the_log_line_of_a_job_names_no_address(queue, jobs):
    job = jobs.fetch_job(queue.submit(PIPELINE, ["/secret/picture.png"]))
    assert "secret" not in job.description
    assert job.args == (PIPELINE.as_dict(), ["/secret/picture.png"]) or job.args[1] == ["/secret/picture.png"]


def test_waiting_ends_without_an_outcome_after_its_time(queue):
    job_id = queue.submit(PIPELINE, ["/a"])
    assert asyncio.run(wait(queue, [job_id], 0.05)) == {}


def test_waiting_yields_what_is_there_and_why_a_job_failed(queue, jobs):
    failed, waiting = (queue.submit(PIPELINE, [address]) for address in ("/a", "/b"))
    fail(jobs, failed)
    outcomes = asyncio.run(wait(queue, [failed, waiting], 5))
    assert list(outcomes) == [failed]
    assert outcomes[failed].failure == "it broke"


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis://127.0.0.1:notaport"])
def test_a_url_that_names_no_redis_is_refused_with_a_remedy(url):
    with pytest.raises(RedisUnavailableError, match="HEATBOX_REDIS_URL"):
        connect(url)


@pytest.mark.parametrize(
    "call",
    [
        lambda url: JobQueue(url).submit(PIPELINE, ["/a"]),
        lambda url: asyncio.run(wait(JobQueue(url), ["x"], 1)),
        listening_pids,
    ],
)
def test_a_redis_that_does_not_answer_is_told_as_such(tmp_path, call):
    with pytest.raises(RedisUnavailableError, match="does not answer"):
        call(f"unix://{tmp_path}/none.sock")


def test_a_job_takes_no_functions_from_redis(redis_server):
    with redis.Redis.from_url(redis_server.url) as connection:
        abort = Callback("os.abort")
        job = AllowedJob.create("os.getcwd", connection=connection, on_success=abort, on_failure=abort)
    assert (job.success_callback, job.failure_callback) == (None, None)
    with pytest.raises(PermissionError, match=r"os\.getcwd"):
        job.perform()


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
