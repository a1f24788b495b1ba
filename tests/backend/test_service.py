import asyncio
import time

import httpx
import pytest
from fixtures_redis import served

from heatbox.label_config import make_label_config

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


@pytest.mark.parametrize("extra_params", [{"a": 1}, '{"a": 1}', "", None])
def test_setup_names_the_version_whatever_the_extra_params_are(client, extra_params):
    body = {"project": "1.17", "schema": CONFIG, "access_token": "x", "extra_params": extra_params}
    answer = client.post("/setup", json=body)
    assert answer.status_code == 200
    assert answer.json()["model_version"].startswith("heatbox-grad_cam-tiny-")
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


@pytest.mark.parametrize(
    "body", [b"", b"{bad", b"[]", b'{"tasks": 7}', b'{"tasks": [7]}', b'{"tasks": null}', b"\xff"]
)
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


@pytest.mark.parametrize(
    "task", [{}, {"id": 1}, {"id": 1, "data": {}}, {"data": {"image": 7}}, {"data": None}]
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
