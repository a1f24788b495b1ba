import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures_redis import is_alive, served, wait_until
from rq import SimpleWorker
from rq.job import JobStatus

from heatbox.errors import RedisUnavailableError
from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.queueing.queues import (
    BATCH,
    CHILD_DEATHS,
    AllowedJob,
    connect,
    enqueue,
    listening_pids,
    open_queue,
)
from heatbox.queueing.requests import Batch, RequestQueue
from heatbox.serving import serve_project
from heatbox_workers.jobs import tell_wrong_options
from heatbox_workers.worker import make_worker


@pytest.fixture
def pipeline(settings):
    return serve_project(
        settings, ModelStore(settings.store_path), Ledger(settings.ledger_url), None
    ).pipeline


@pytest.fixture
def queue(settings):
    return RequestQueue(settings.redis_url)


@pytest.fixture
def jobs(settings):
    """The queue as a worker sees it."""
    with connect(settings.redis_url) as connection:
        yield open_queue(connection)


def fail_one(jobs):
    """Let one queued job fail: this worker has no job process."""
    worker = SimpleWorker(
        [jobs], connection=jobs.connection, serializer=jobs.serializer, job_class=AllowedJob
    )
    worker.work(burst=True, max_jobs=1, logging_level="CRITICAL")


def work_all(settings):
    """Run all queued jobs from this process."""
    make_worker(settings, os.environ).work(burst=True, logging_level="ERROR")


def submit(queue, pipeline, *addresses):
    return queue.submit(pipeline, Batch(tuple(map(str, addresses))))


async def result_of(queue, job_id):
    try:
        return (await queue.wait([job_id], 60))[job_id].result  # torch may still be loading
    finally:
        await queue.aclose()


def test_each_address_gets_its_annotation_or_its_error_in_order(settings, pipeline, queue, pictures):
    job_id = submit(queue, pipeline, pictures / "0.png", "/etc/passwd", pictures / "1.png")
    work_all(settings)
    entries = asyncio.run(result_of(queue, job_id)).entries
    assert [next(iter(entry)) for entry in entries] == ["annotation", "error", "annotation"]


def test_a_finished_job_is_found_again_and_one_with_an_error_only_for_seconds(
    settings, pipeline, queue, jobs, pictures
):
    good = submit(queue, pipeline, pictures / "0.png")
    bad = submit(queue, pipeline, pictures / "none.png")
    work_all(settings)
    assert submit(queue, pipeline, pictures / "0.png") == good
    assert jobs.connection.ttl(f"rq:job:{good}") > 30
    assert jobs.connection.ttl(f"rq:job:{bad}") <= 5


def test_a_function_that_somebody_wrote_into_redis_does_not_run(settings, jobs, tmp_path):
    job = jobs.enqueue("os.mkdir", str(tmp_path / "made"))
    work_all(settings)
    assert job.get_status() is JobStatus.FAILED
    assert not (tmp_path / "made").exists()


def test_what_was_not_ready_in_time_is_there_when_it_is_asked_for_again(settings, pictures):
    hurried = settings.model_copy(update={"predict_deadline": 0.2})
    tasks = [{"id": number, "data": {"image": str(pictures / f"{number}.png")}} for number in range(5)]
    body = {"tasks": tasks, "label_config": make_label_config(["cat", "dog", "bird"])}
    with served(hurried) as client:
        version = client.post("/setup", json={"schema": body["label_config"]}).json()["model_version"]
        assert client.post("/predict", json=body).json()["results"] == [[]] * 5
        work_all(settings)
        results = client.post("/predict", json=body).json()["results"]
    assert [prediction["model_version"] for prediction in results] == [version] * 5
    assert all(prediction["result"] for prediction in results)


def test_the_pictures_of_a_job_that_failed_are_tried_one_by_one(settings, jobs, pictures):
    body = {"tasks": [{"data": {"image": str(pictures / f"{number}.png")}} for number in range(3)]}
    with served(settings) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.post, "/predict", json=body)
        wait_until(lambda: len(jobs) == 1, "one job for three pictures")
        fail_one(jobs)
        wait_until(lambda: len(jobs) == 3, "one job for each")
        work_all(settings)
        assert all(prediction["result"] for prediction in answer.result().json()["results"])


@pytest.mark.parametrize(("threads", "workers", "expected"), [(3, 2, 3), (0, 1, "cores"), (0, 10_000, 1)])
def test_a_worker_takes_its_share_of_the_cores(monkeypatch, threads, workers, expected):
    from heatbox_workers.process import available_cores, prepare_process

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "1")
    wanted = available_cores() if expected == "cores" else expected
    assert prepare_process(threads, workers) == wanted
    assert os.environ["OMP_NUM_THREADS"] == str(wanted)


def test_a_worker_without_a_redis_says_what_to_do(settings, redis_server):
    redis_server.stop()
    with pytest.raises(RedisUnavailableError, match="heatbox up"):
        make_worker(settings, os.environ)


def test_options_that_no_task_can_be_annotated_with_are_logged_at_the_start(settings, caplog):
    tell_wrong_options(settings)
    assert not caplog.records
    tell_wrong_options(settings.model_copy(update={"explainer_options": ("layr=features",)}))
    assert "no task can be annotated: plugin-option: " in caplog.text
    assert "Did you mean 'layer'?" in caplog.text


def put_batch(settings, pipeline, addresses, job_id="a-chunk"):
    """Put a job on the queue of background work and return a look at it."""
    batch = open_queue(connect(settings.redis_url), BATCH)
    seconds = {"timeout": 600, "queued_seconds": None, "result_seconds": 600, "failure_seconds": 600}
    enqueue(batch, job_id, pipeline, [str(address) for address in addresses], **seconds)
    return lambda: batch.fetch_job(job_id)


def many(pictures, count):
    return [pictures / f"{number % 12}.png" for number in range(count)]


def test_a_worker_that_is_asked_to_end_finishes_the_picture_and_hands_the_rest_back(
    settings, start_worker, pipeline, pictures
):
    worker = start_worker()
    job = put_batch(settings, pipeline, many(pictures, 5000))
    wait_until(lambda: job().get_status() is JobStatus.STARTED, "the job has begun")
    time.sleep(3)  # for torch
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    entries = job().return_value()["entries"]
    assert 0 < sum(entry is not None for entry in entries) < 5000


def test_somebody_who_waits_overtakes_a_batch(settings, start_worker, pipeline, queue, pictures):
    start_worker()
    job = put_batch(settings, pipeline, many(pictures, 5000))
    wait_until(lambda: job().get_status() is JobStatus.STARTED, "the batch has begun")
    submit(queue, pipeline, pictures / "0.png")  # at the latest now torch is loaded
    asyncio.run(result_of(queue, submit(queue, pipeline, pictures / "1.png")))
    assert any(entry is None for entry in job().return_value()["entries"])


def test_a_job_that_is_cancelled_ends_after_the_picture_in_hand(settings, start_worker, pipeline, pictures):
    start_worker()
    job = put_batch(settings, pipeline, many(pictures, 5000))
    wait_until(lambda: job().get_status() is JobStatus.STARTED, "it has begun")
    job().set_status(JobStatus.CANCELED)
    wait_until(lambda: job().return_value() is not None, "it has ended")
    assert any(entry is None for entry in job().return_value()["entries"])


def test_the_job_of_a_killed_worker_fails_within_seconds(settings, start_worker, pipeline, jobs, pictures):
    worker = start_worker()
    job = put_batch(settings, pipeline, many(pictures, 5000))
    wait_until(lambda: job().get_status() is JobStatus.STARTED, "the job has begun")
    worker.kill()
    wait_until(lambda: not jobs.connection.exists("hb:alive:a-chunk"), "it shows no life", seconds=12)
    wait_until(lambda: work_all(settings) or job().is_failed, "it has failed", seconds=25)


def child_of(pid):
    """Return the number of a process's only child, None while it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def test_a_killed_job_process_costs_the_picture_in_hand_and_is_counted(
    settings, start_worker, pipeline, jobs, pictures
):
    worker = start_worker()
    wait_until(lambda: child_of(worker.pid), "there is a job process")
    job = put_batch(settings, pipeline, many(pictures, 5000))
    wait_until(lambda: job().get_status() is JobStatus.STARTED, "it has begun")
    os.kill(child_of(worker.pid), signal.SIGKILL)
    wait_until(lambda: job().return_value() is not None, "it has ended")
    assert job().return_value()["reason"]["code"] == "worker-died"
    assert jobs.connection.hgetall(CHILD_DEATHS) == {b"-9": b"1"}
    assert worker.poll() is None


def test_the_job_process_of_a_killed_worker_ends_too(start_worker):
    worker = start_worker()
    wait_until(lambda: child_of(worker.pid), "there is a job process")
    child = child_of(worker.pid)
    worker.kill()
    wait_until(lambda: not is_alive(child), "it has ended", seconds=5)


def test_a_worker_is_known_again_after_redis_was_emptied(settings, start_worker, jobs):
    worker = start_worker()
    jobs.connection.flushall()
    wait_until(lambda: worker.pid in listening_pids(settings.redis_url), "it is known", seconds=10)


def test_a_redis_that_goes_away_does_not_end_the_worker(
    settings, redis_server, start_worker, pipeline, pictures
):
    worker = start_worker()
    job = put_batch(settings, pipeline, many(pictures, 1000))
    wait_until(lambda: job().get_status() is JobStatus.STARTED, "it has begun")
    redis_server.process.kill()
    redis_server.process.wait()
    time.sleep(3)
    redis_server.start()
    again = put_batch(settings, pipeline, many(pictures, 1), "another-chunk")
    wait_until(lambda: again().return_value() is not None, "the next job is done")
    assert worker.poll() is None
