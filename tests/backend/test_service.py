import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import httpx
import pytest
from fixtures_redis import served, wait_until
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from heatbox.labelling.config import make_label_config
from heatbox.labelling.tasks import wanted_pictures
from heatbox.ledger import Ledger
from heatbox.queueing.job_process import JobResult
from heatbox.queueing.queues import AllowedJob, carried_out_by, connect, open_queue
from heatbox.queueing.requests import Batch, RequestQueue
from heatbox.remote_store import open_store
from heatbox.service.body_limit import MAX_BODY_BYTES
from heatbox.service.predict import Studio

CONFIG = make_label_config(["Cat", "Dog", "Bird"])


@pytest.fixture
def client(settings):
    """The real application on a real Redis; no worker listens."""
    with served(settings) as client:
        yield client


@pytest.fixture
def impatient(settings):
    """The same with a short deadline."""
    hurried = settings.model_copy(update={"predict_deadline": 0.1})
    with served(hurried) as client:
        yield client


def tasks_for(*addresses):
    return [{"id": number, "data": {"image": str(address)}} for number, address in enumerate(addresses)]


def predict(client, *addresses):
    answer = client.post("/predict", json={"tasks": tasks_for(*addresses), "label_config": CONFIG})
    assert answer.status_code == 200
    return answer.json()["results"]


@pytest.mark.parametrize("path", ["/health", "/"])
def test_it_says_that_it_is_up(client, path):
    assert client.get(path).json()["status"] == "UP"


@pytest.mark.parametrize("extra_params", [{"a": 1}, '{"a": 1}', "", None, 7])
def test_setup_names_the_version_whatever_the_extra_params_are(client, extra_params):
    body = {"project": "1.17", "schema": CONFIG, "access_token": "x", "extra_params": extra_params}
    answer = client.post("/setup", json=body)
    assert answer.status_code == 200
    assert answer.json()["model_version"].startswith("heatbox-fused_cam-tiny-")
    assert client.get("/versions").json() == {"versions": [answer.json()["model_version"]]}


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("<View/>", "label-config"),
        ("no XML", "label-config"),
        (make_label_config(["zebra"]), "label-unknown"),
    ],
)
def test_setup_says_why_a_project_cannot_be_served(client, config, code):
    answer = client.post("/setup", json={"schema": config})
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert answer.json()["remedy"]


def test_setup_without_a_model_says_how_to_get_one(settings):
    with served(settings.model_copy(update={"model": ""})) as client:
        answer = client.post("/setup", json={"schema": CONFIG})
    assert (answer.status_code, answer.json()["code"]) == (422, "model-not-found")


@pytest.mark.parametrize("body", [b"", b"{bad", b"[]", b'{"tasks": 7}', b'{"tasks": null}', b"\xff"])
def test_a_predict_that_is_no_request_is_refused_with_a_remedy(client, body):
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "message", "remedy"}


@pytest.mark.parametrize("path", ["/nothing", "/predict"])
def test_an_address_that_is_not_there_is_answered_in_the_same_form(client, path):
    assert set(client.get(path).json()) == {"code", "message", "remedy"}


def test_no_tasks_are_no_results(client):
    assert predict(client) == []


def test_tasks_that_are_not_ready_in_time_are_empty(impatient, pictures):
    assert predict(impatient, pictures / "0.png", pictures / "1.png") == [[], []]


@pytest.mark.parametrize("label_config", ["<View/>", "no XML", make_label_config(["zebra"])])
def test_a_label_config_that_cannot_be_used_gives_empty_results(client, label_config):
    body = {"tasks": tasks_for("/a", "/b"), "label_config": label_config}
    answer = client.post("/predict", json=body)
    assert (answer.status_code, answer.json()) == (200, {"results": [[], []]})


def test_a_prompt_that_cannot_be_answered_gets_an_object_without_regions(client):
    params = {"context": {"result": [{"type": "rectanglelabels", "value": {}}]}}
    body = {"tasks": tasks_for("/a"), "label_config": "<View/>", "params": params}
    (answer,) = client.post("/predict", json=body).json()["results"]
    assert answer["result"] == []


def test_an_entry_that_cannot_be_read_costs_only_its_own_task(settings, redis_server, caplog):
    entries = [{"annotation": {"width": 9}}, {"annotation": {"width": 9, "height": 9, "regions": []}}, {}]
    with served(settings) as client, closing(Ledger(settings.ledger_url)) as ledger:
        queue = RequestQueue(redis_server.url)
        serving = Studio(settings, open_store(settings), ledger, queue).serving(CONFIG)
        tasks = tasks_for("/a", "/b", "/c")
        wanted = [wanted_pictures(task, serving.config, serving.labels)[0].text for task in tasks]
        queue.submit(serving.pipeline, Batch(tuple(wanted)))
        finish(redis_server.url, JobResult(tuple(entries)).as_dict())
        first, second, third = predict(client, "/a", "/b", "/c")
        asyncio.run(queue.aclose())
    assert (first, third) == ([], [])
    assert second["result"] == []
    assert "task 0: its answer cannot be read: KeyError in annotation.py" in caplog.text


def finish(redis_url, result):
    """Do what a worker of another version does: carry out what is queued, with this result."""
    with connect(redis_url) as connection, carried_out_by(lambda _: result):
        queues = [open_queue(connection)]
        worker = SimpleWorker(queues, connection=connection, serializer=JSONSerializer, job_class=AllowedJob)
        worker.work(burst=True, logging_level="ERROR")


@pytest.mark.parametrize(
    "task", [{}, {"id": 1}, {"id": 1, "data": {}}, {"data": {"image": 7}}, {"data": None}, 7, None, []]
)
def test_a_task_without_a_picture_is_empty(client, task):
    answer = client.post("/predict", json={"tasks": [task], "label_config": CONFIG})
    assert (answer.status_code, answer.json()) == (200, {"results": [[]]})


def test_a_redis_that_is_gone_gives_empty_results(client, redis_server):
    redis_server.stop()
    assert predict(client, "/a") == [[]]


@pytest.mark.parametrize(
    "event",
    [
        {"action": "ANNOTATION_CREATED", "task": {}},
        {"action": "START_TRAINING"},
        {"action": "UNHEARD_OF"},
        {},
    ],
)
def test_every_event_is_answered_with_an_object(client, event):
    answer = client.post("/webhook", json=event)
    assert answer.status_code == 200
    assert isinstance(answer.json(), dict)


def test_models_and_explainers_can_be_looked_up(client):
    assert [model["name"] for model in client.get("/v1/models").json()["models"]] == ["tiny"]
    assert "grad_cam" in [plugin["name"] for plugin in client.get("/v1/explainers").json()["explainers"]]


def test_health_answers_at_once_while_fifty_predictions_wait(settings, pictures):
    with served(settings.model_copy(update={"predict_deadline": 3})) as client:
        assert asyncio.run(slowest_health(client.base_url, tasks_for(pictures / "0.png"))) < 0.5


async def slowest_health(address, tasks):
    """Return the longest time of /health, in seconds, while fifty requests wait for a worker that is not there."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        body = {"tasks": tasks, "label_config": CONFIG}
        predictions = [asyncio.create_task(client.post("/predict", json=body)) for _ in range(50)]
        await asyncio.sleep(1)  # until all are submitted; then they only wait
        times = []
        while not any(prediction.done() for prediction in predictions):
            before = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            times.append(time.monotonic() - before)
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*predictions)
        assert {answer.text for answer in answers} == {'{"results":[[]]}'}
        return max(times)


def test_a_redis_that_is_killed_while_a_request_waits_is_asked_again(
    client, redis_server, start_worker, pictures
):
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(predict, client, pictures / "0.png")
        with connect(redis_server.url) as connection:
            wait_until(lambda: len(open_queue(connection)), "there is a job")
        redis_server.process.kill()
        redis_server.process.wait()
        redis_server.start()
        with connect(redis_server.url) as connection:
            connection.flushall()  # what it has not written yet is lost
        start_worker()
        assert answer.result()[0]["result"]


def test_a_redis_that_hangs_stops_neither_setup_nor_the_deadline(settings, redis_server):
    hurried = settings.model_copy(update={"predict_deadline": 0.5})
    with served(hurried) as client, ThreadPoolExecutor() as pool, hanging(redis_server):
        answers = [pool.submit(predict, client, f"/{number}") for number in range(4)]
        before = time.monotonic()
        assert client.post("/setup", json={"schema": CONFIG}).status_code == 200
        assert time.monotonic() - before < 1
        assert [answer.result() for answer in answers] == [[[]]] * 4
        assert time.monotonic() - before < 5


@contextmanager
def hanging(server):
    """Stop a Redis for the time of the block, as a machine does that is out of memory."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_large_request_leaves_the_queue_to_others(impatient, redis_server):
    predict(impatient, *(f"/{number}" for number in range(1000)))
    with connect(redis_server.url) as connection:
        assert 0 < len(open_queue(connection)) <= 32


def test_more_requests_wait_than_redis_py_keeps_connections_for(settings, caplog):
    with served(settings.model_copy(update={"predict_deadline": 3})) as client:
        answers = asyncio.run(predict_often(client.base_url, 120))
    assert set(answers) == {'{"results":[[]]}'}
    assert "Redis does not answer" not in caplog.text


async def predict_often(address, count):
    """Return the answers of so many requests at once."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        requests = [client.post("/predict", json={"tasks": tasks_for(f"/{n}")}) for n in range(count)]
        return [answer.text for answer in await asyncio.gather(*requests)]


def test_the_log_says_why_a_task_has_no_boxes_and_holds_no_token(client, start_worker, pictures, caplog):
    start_worker()
    secret = {"login": "a", "password": "TOKEN"}
    tasks = tasks_for(pictures / "none.png", "http://127.0.0.1:1/a.png?token=TOKEN")
    tasks.append({"id": "two\nlines", "data": {"image": ["/a?token=TOKEN"]}})
    answer = client.post("/predict", json={"tasks": tasks, "label_config": CONFIG, "params": secret})
    client.post("/setup", json={"schema": CONFIG, "access_token": "TOKEN"})
    assert answer.json() == {"results": [[], [], []]}
    assert "task 0: picture-not-found: There is no file 'none.png'. Check the address" in caplog.text
    assert "task 1: address-refused: " in caplog.text
    assert "task without a number: tasks-file: Put one address there" in caplog.text
    assert "TOKEN" not in caplog.text


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_request_that_is_too_long_is_refused_with_a_remedy(client, in_chunks):
    body = b" " * (MAX_BODY_BYTES + 1)
    answer = client.post("/predict", content=iter([body]) if in_chunks else body)
    assert answer.status_code == 413
    assert answer.json()["remedy"] == "Select fewer tasks at a time."
