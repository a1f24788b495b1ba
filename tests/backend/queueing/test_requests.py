import asyncio

import pytest
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from heatbox.errors import RedisUnavailableError
from heatbox.pipeline import Pipeline
from heatbox.queueing.job_process import JobResult
from heatbox.queueing.queues import AllowedJob, carried_out_by, connect, open_queue
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


@pytest.mark.parametrize("code", ["picture-fetch", "picture-slow", "store-unavailable", "label-studio"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_failed_for_a_passing_reason_is_asked_for_anew_some_seconds_later(queue, jobs, code, whole):
    job_ids = [queue.submit(PIPELINE, A)]
    for _ in range(4):
        finish(jobs, failed(code, whole=whole))
        assert queue.submit(PIPELINE, A) == job_ids[-1]  # at the same time the answer is shared
        let_pass(jobs, job_ids[-1])
        job_ids.append(queue.submit(PIPELINE, A))
        assert queue.submit(PIPELINE, A) == job_ids[-1]
        assert jobs.job_ids == job_ids[-1:]
    assert len(set(job_ids)) == 5


@pytest.mark.parametrize("code", ["picture-unreadable", "address-refused", "model-not-found"])
def test_what_failed_for_good_is_found_again(queue, jobs, code):
    job_id = queue.submit(PIPELINE, A)
    finish(jobs, failed(code))
    let_pass(jobs, job_id)
    assert queue.submit(PIPELINE, A) == job_id


def test_a_result_is_kept_for_a_minute_because_the_content_of_an_address_may_change(queue, jobs):
    job_id = queue.submit(PIPELINE, A)
    finish(jobs, JobResult(({"annotation": {}},)).as_dict())
    left = [jobs.connection.ttl(key) for key in (f"rq:job:{job_id}", f"rq:results:{job_id}")]
    assert all(50 < seconds <= 60 for seconds in left), left


@pytest.mark.parametrize("result", [{}, {"entries": []}, {**JobResult(()).as_dict(), "unheard": 1}])
def test_a_result_that_cannot_be_read_is_a_failure_of_its_job(queue, jobs, result):
    job_id = queue.submit(PIPELINE, A)
    finish(jobs, result)
    outcome = asyncio.run(wait(queue, [job_id], 5))[job_id]
    assert "another version" in outcome.failure


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


def failed(code, *, whole=False):
    """Return the result of a job whose one picture, or whole, failed."""
    error = {"code": code, "message": "It broke.", "remedy": "Mend it."}
    return (JobResult((None,), failure=error) if whole else JobResult(({"error": error},))).as_dict()


def finish(jobs, result):
    """Do what a worker does: carry out what is queued, with this result."""
    worker = SimpleWorker([jobs], connection=jobs.connection, serializer=JSONSerializer, job_class=AllowedJob)
    with carried_out_by(lambda _: result):
        worker.perform_job(jobs.fetch_job(jobs.pop_job_id()), jobs)


def let_pass(jobs, job_id):
    """Let a result be ten seconds old."""
    jobs.connection.expire(f"rq:job:{job_id}", 50)
