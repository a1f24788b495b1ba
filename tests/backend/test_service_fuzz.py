"""Requests that the OpenAPI description allows, and such as it forbids: no 5xx, no hang, answers as described."""

import json
import logging
from contextlib import closing

import pytest
import schemathesis
from fixtures_redis import served
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.queueing.redis_server import private_redis
from heatbox.runs.records import Runs
from heatbox.runs.tables import Failed, NewItem, NewRun
from heatbox.settings import Settings

CONFIG = make_label_config(["cat", "dog"])
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
SECONDS = 10  # after which a request hangs
NOT_THERE = {"/readyz": {503}, "/v1/tasks/{number}/evidence": {503}}  # no worker, no Label Studio
FUZZING = hypothesis_settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=25,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory, tiny_store):
    """The real service on a real Redis, with a run that has ended and one failed item; no worker listens."""
    home = tmp_path_factory.mktemp("fuzz")
    with private_redis(home) as redis:
        settings = Settings(
            home=home,
            store=tiny_store,
            model="tiny",
            redis_url=redis.url,
            predict_deadline=0.05,
            min_probability=0,
        )
        with closing(Ledger(settings.ledger_url)) as ledger:
            ended(Runs(ledger))
        with served(settings) as client:
            yield client


def ended(runs):
    number = runs.create(NewRun("a", Pipeline("tiny@1"), CONFIG, project=1), [NewItem("a", ("/a",), task=1)])
    chunk = runs.take(number, 1)
    runs.settle(chunk, [Failed(chunk.items[0].id, "picture", "Bad.")])
    runs.cancel(number)


@pytest.fixture
def defects():
    """Errors in the log: one odd task must not cost its neighbours theirs."""
    found = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage() + str(record.exc_info))
    logging.getLogger("heatbox").addHandler(handler)
    yield found
    logging.getLogger("heatbox").removeHandler(handler)


@pytest.fixture(scope="module")
def operations(client):
    """What the description has: (METHOD, path) -> operation."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return {(operation.method.upper(), operation.path): operation for operation in found}


def check(case, client):
    """Send a request; assert that it is answered as described."""
    answer = case.call(base_url=str(client.base_url), timeout=SECONDS)
    allowed = NOT_THERE.get(case.operation.path, set())
    assert answer.status_code < 500 or answer.status_code in allowed, answer.text
    case.validate_response(
        answer,
        checks=[
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
            checks.response_headers_conformance,
        ],
    )


@pytest.mark.parametrize("mode", MODES, ids=["allowed", "forbidden"])
def test_every_operation_is_answered_as_described(client, operations, mode):
    tried = []
    for place, operation in operations.items():
        if mode is GenerationMode.POSITIVE or can_be_wrong(operation):
            FUZZING(given(operation.as_strategy(generation_mode=mode))(lambda case: check(case, client)))()
            tried.append(place)
    assert {("POST", "/predict"), ("POST", "/setup"), ("GET", "/v1/runs/{number}")} <= set(tried)


def can_be_wrong(operation):
    """Return whether an operation has anything that a request could get wrong."""
    return any((operation.body, operation.query, operation.path_parameters))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ADDRESSES = st.sampled_from(
    ["/a.png", "/data/upload/1/a.png", "data:,a", "s3://b/a.png", "http://[", "\0", "\ud800", ""]
)
TASKS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON | st.integers(1, 9),
        "data": JSON | st.fixed_dictionaries({"image": ADDRESSES | st.lists(ADDRESSES, max_size=3) | JSON}),
        "annotations": JSON | st.lists(st.fixed_dictionaries({"result": JSON}), max_size=2),
        "predictions": JSON,
    },
)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "result": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["rectanglelabels", "keypointlabels", "choices"]) | JSON},
                optional={
                    "value": JSON
                    | st.fixed_dictionaries(
                        {name: st.floats() | JSON for name in ("x", "y", "width", "height")},
                        optional={"rectanglelabels": JSON, "keypointlabels": JSON},
                    ),
                    "from_name": JSON,
                    "to_name": JSON,
                    "item_index": JSON,
                    "is_positive": JSON,
                },
            ),
            max_size=3,
        )
    },
)
REQUESTS = st.fixed_dictionaries(
    {"tasks": st.lists(TASKS | JSON, max_size=4)},
    optional={
        "label_config": st.sampled_from([CONFIG, "", "<View/>", "<", CONFIG.replace("$image", "$images")]),
        "project": JSON | st.sampled_from(["1.17", "x.1", ""]),
        "params": JSON | st.fixed_dictionaries({"context": CONTEXTS | JSON}),
        "model_version": JSON,
    },
)


@hypothesis_settings(FUZZING, max_examples=150)
@given(body=REQUESTS)
def test_predict_has_one_item_per_task_whatever_the_tasks_are(client, defects, body):
    answer = client.post("/predict", content=dumped(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == len(body["tasks"])
    assert all(one == [] or "result" in one for one in answer.json()["results"])
    assert not defects


@hypothesis_settings(FUZZING, max_examples=100)
@given(event=st.dictionaries(st.sampled_from(["action", "project", "task", "annotation", "tasks"]), JSON))
def test_every_event_is_taken_note_of(client, event):
    answer = client.post("/webhook", content=dumped(event), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("where", ["id", "data", "image", "annotations", "project", "params", "context"])
@pytest.mark.parametrize("depth", [300, 500, 700, 900])
def test_a_task_that_is_nested_deeply_costs_its_neighbours_nothing(client, defects, where, depth):
    nested = "[" * depth + "]" * depth
    values = {"id": "1", "data": '{"image": %s}', "image": '"/a.png"', "annotations": "[]"}
    values |= {"project": '"1.1"', "params": '{"context": %s}', "context": "null", where: nested}
    values["data"] = values["data"].replace("%s", values["image"])
    values["params"] = values["params"].replace("%s", values["context"])
    task = "{" + ",".join(f'"{name}": {values[name]}' for name in ("id", "data", "annotations")) + "}"
    rest = "".join(f',"{name}": {values[name]}' for name in ("project", "params"))
    body = f'{{"tasks": [{task}, {{"id": 2, "data": {{"image": "/b.png"}}}}]{rest}}}'
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400}
    assert not defects


ODD_ADDRESSES = [
    "\ud800",
    "\0",
    "",
    "{",
    '{"address":"/etc/passwd"}',
    "a" * 1_000_000,
    "/" + "x" * 5000,
    "/a\nb",
    "//",
    "http://[",
    "http://a:99999/",
    "http://\udfff/",
    "http://a b/",
    "data:,a",
    "s3://b/\ud800",
    "file://\ud800/x",
    "file:///%00",
    "/data/local-files/?d=%ff",
    "/data/upload/\0",
]


def test_an_odd_address_costs_its_neighbours_nothing(settings, pictures, start_worker, defects):
    start_worker()
    addresses = [*ODD_ADDRESSES, str(pictures / "0.png")]
    tasks = [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]
    with served(settings) as client:
        answer = client.post(
            "/predict", content=dumped({"tasks": tasks}), headers={"Content-Type": "application/json"}
        )
    *odd, good = answer.json()["results"]
    assert odd == [[]] * len(ODD_ADDRESSES)
    assert good["result"]
    assert not defects


def dumped(body):
    """Return JSON as Python's own clients write it: with NaN, and with half characters as escapes."""
    return json.dumps(body).encode()
