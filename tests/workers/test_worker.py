import asyncio
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from fixtures_redis import served, wait_until
from rq.job import JobStatus

from heatbox.annotation import Annotation
from heatbox.contract import Examples
from heatbox.errors import RedisUnavailableError
from heatbox.label_config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.queue import JobQueue, connect, open_queue
from heatbox.serving import serve_project
from heatbox_plugins.explainers.anomaly import Anomaly
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.jobs import Annotators, tell_wrong_options, use
from heatbox_workers.loading import load_classifier
from heatbox_workers.worker import make_worker


@pytest.fixture
def pipeline(settings):
    return serve_project(
        settings, ModelStore(settings.store_path), Ledger(settings.ledger_url), None
    ).pipeline


@pytest.fixture
def queue(settings):
    return JobQueue(settings.redis_url)


@pytest.fixture
def jobs(settings):
    """The queue as a worker sees it."""
    with connect(settings.redis_url) as connection:
        yield open_queue(connection)


def fail_one(settings):
    """Let one queued job fail: there are no annotators."""
    make_worker(settings.redis_url).work(burst=True, max_jobs=1, logging_level="CRITICAL")


def work_all(settings):
    """Run all queued jobs in this process."""
    with use(Annotators(settings)):
        make_worker(settings.redis_url).work(burst=True, logging_level="ERROR")


async def outcome_of(queue, job_id):
    try:
        return (await queue.wait([job_id], 5))[job_id]
    finally:
        await queue.aclose()


def test_each_address_gets_its_annotation_or_its_error_in_order(settings, pipeline, queue, pictures):
    addresses = [str(pictures / "0.png"), "/etc/passwd", str(pictures / "none.png"), str(pictures / "1.png")]
    job_id = queue.submit(pipeline, addresses)
    work_all(settings)
    value = asyncio.run(outcome_of(queue, job_id)).value
    assert [next(iter(entry)) for entry in value] == ["annotation", "error", "error", "annotation"]
    assert [entry["error"]["code"] for entry in value[1:3]] == ["address-refused", "picture-not-found"]


def test_a_model_that_is_not_there_is_the_error_of_each_address(settings, pipeline, queue):
    job_id = queue.submit(type(pipeline)("gone@0"), ["/a", "/b"])
    work_all(settings)
    value = asyncio.run(outcome_of(queue, job_id)).value
    assert [entry["error"]["code"] for entry in value] == ["model-not-found"] * 2


def test_what_an_explainer_has_learnt_is_used_by_its_id(settings, pipeline, pictures, tmp_path):
    store = ModelStore(shutil.copytree(settings.store_path, tmp_path / "own"))
    classifier = load_classifier(store, store.find("tiny"))
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) / 9
    nothing = Examples(images, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4))
    states = [fit_explainer(store, classifier, "anomaly", Anomaly(seed=seed), [nothing]) for seed in (0, 1)]
    annotators = Annotators(settings.model_copy(update={"store": store.folder}))
    unlearnt = replace(pipeline, explainer="anomaly", own_label="anomaly")
    found = [
        annotators.annotate(replace(unlearnt, state=state), [str(pictures / "0.png")])[0]
        for state in (states[0].id, states[1].id, "0123456789ab", "")
    ]
    assert [type(one) for one in found[:2]] == [Annotation] * 2
    assert {region.label for region in found[0].regions} == {"anomaly"}
    assert found[0].regions != found[1].regions
    assert [one.code for one in found[2:]] == ["explainer-not-fitted"] * 2


def test_a_finished_job_is_found_again_and_one_with_an_error_only_for_seconds(
    settings, pipeline, queue, jobs, pictures
):
    good = queue.submit(pipeline, [str(pictures / "0.png")])
    bad = queue.submit(pipeline, [str(pictures / "none.png")])
    work_all(settings)
    assert queue.submit(pipeline, [str(pictures / "0.png")]) == good
    assert jobs.connection.ttl(f"rq:job:{good}") > 500
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
        fail_one(settings)
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
        make_worker(settings.redis_url)


def test_options_that_no_task_can_be_annotated_with_are_logged_at_the_start(settings, caplog):
    tell_wrong_options(settings)
    assert not caplog.records
    tell_wrong_options(settings.model_copy(update={"explainer_options": ("layr=features",)}))
    assert "no task can be annotated: plugin-option: " in caplog.text
    assert "Did you mean 'layer'?" in caplog.text


def test_a_worker_that_is_asked_to_end_finishes_its_job(start_worker, pipeline, queue, jobs, pictures):
    worker = start_worker()
    job_id = queue.submit(pipeline, [str(pictures / f"{number % 12}.png") for number in range(200)])
    wait_until(lambda: jobs.fetch_job(job_id).get_status() is not JobStatus.QUEUED, "the job has begun")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert jobs.fetch_job(job_id).get_status() is JobStatus.FINISHED


def test_the_job_of_a_killed_worker_fails_within_seconds(settings, start_worker, pipeline, jobs, pictures):
    worker = start_worker()
    addresses = [str(pictures / f"{number % 12}.png") for number in range(2000)]
    job_id = JobQueue(settings.redis_url).submit(pipeline, addresses)
    wait_until(lambda: jobs.fetch_job(job_id).get_status() is JobStatus.STARTED, "the job has begun")
    worker.kill()
    wait_until(lambda: work_all(settings) or jobs.fetch_job(job_id).is_failed, "it has failed", seconds=25)
