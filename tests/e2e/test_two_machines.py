"""Two machines that share a Redis (TLS, ACL), a PostgreSQL and a model store, and nothing else; one of them dies.

A machine here is processes with a HEATBOX_HOME, a port and a cache of their own. The pictures are on a folder that both
see, as the documentation asks for.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fixtures_colours import LABELS as COLOURS
from fixtures_colours import draw
from fixtures_postgres import POSTGRES_PASSWORD
from fixtures_redis import wait_until
from fixtures_tls_redis import REDIS_PASSWORD, TlsRedis

from heatbox.errors import RedisUnavailableError
from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import WEIGHTS
from heatbox.processes import stop
from heatbox.queueing.queues import alive_key, connect, listening_pids, listening_workers
from heatbox.runs.conducting import is_conducted
from heatbox.runs.records import Runs
from heatbox.runs.tables import ItemState, RunState
from heatbox.settings import Settings, as_environment
from heatbox.supervisor import listen
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import TrainingState

pytestmark = pytest.mark.usefixtures("poisoned")

PICTURES = 160
SECONDS = 0.05
CONFIG = make_label_config(("cat", "dog", "bird"))


@dataclass
class Machine:
    """What runs on one machine: `heatbox serve` and `heatbox work`, each with the Redis user that it should have."""

    settings: Settings
    redis: TlsRedis
    folder: object
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def log(self):
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def environment(self, user):
        own = {**as_environment(self.settings), "HEATBOX_REDIS_URL": self.redis.url(user)}
        return {**os.environ, **own}

    def command(self, *arguments, user="heatbox-serve"):
        command = [sys.executable, "-m", "heatbox", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment(user), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name, user, *options):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "heatbox", name, *options],
                env=self.environment(user),
                stdout=log,
                stderr=log,
            )

    def start_all(self):
        self.start("serve", "heatbox-serve")
        self.start("work", "heatbox-work")
        wait_until(self.is_served, "the web service answers")
        worker = self.processes["work"].pid
        wait_until(lambda: worker in listening_pids(self.redis.url("heatbox-serve")), "the worker listens")

    def is_served(self, path="health"):
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.address}/{path}").is_success
        return False

    def get(self, path):
        answer = httpx.get(f"{self.address}/{path}")
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    def predict(self, *addresses, config=CONFIG):
        tasks = [{"id": number, "data": {"image": str(address)}} for number, address in enumerate(addresses)]
        body = {"tasks": tasks, "label_config": config}
        return httpx.post(f"{self.address}/predict", json=body, timeout=90).json()["results"]

    def kill(self):
        """Lose the power."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def has_fetched(self, name):
        return any(self.settings.home.glob(f"store-cache/*/tiny/*/{name}"))

    def version(self):
        return httpx.post(f"{self.address}/setup", json={"schema": CONFIG}).json()["model_version"]


@pytest.fixture
def machine(tmp_path, postgres_url, tls_redis, tiny_store):
    """Make machines that share what several machines share."""
    place = tmp_path / "place"
    made = []

    def make(name):
        if not place.exists():
            place.symlink_to(tiny_store)
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
        settings = Settings(
            home=tmp_path / name,
            store=f"file://{place}",
            database_url=postgres_url,
            redis_url=tls_redis.url("heatbox-serve"),
            port=port,
            explainer="poison",
            explainer_options=(f"seconds={SECONDS}",),
            min_probability=0,
            local_roots=(tmp_path,),
            threads=1,
        )
        settings.home.mkdir()
        made.append(Machine(settings, tls_redis, settings.home))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes.values():
            stop(process, 10)


@pytest.fixture
def runs(postgres_url):
    with closing(Ledger(postgres_url)) as ledger:
        yield Runs(ledger)


def test_two_machines_share_a_run_and_one_goes_on_when_the_other_dies(  # noqa: PLR0913, PLR0917 - all that is shared
    machine, runs, tls_redis, postgres_server, make_pictures, tmp_path
):
    folder, out = make_pictures(PICTURES, crash=PICTURES - 20), tmp_path / "out.jsonl"
    a, b = machine("a"), machine("b")
    a.command("models", "activate", "tiny")
    a.start_all()
    wait_until(lambda: is_conducted(a.settings), "the first machine conducts")
    b.start_all()
    a.command("run", folder, "--out", out)
    (number,) = [run.id for run in runs.with_state(RunState.RUNNING)]
    wait_until(lambda: done(runs, number) > 20, "some is done")
    runs.pause(number)
    wait_until(lambda: not runs.open_chunks(), "it rests")
    runs.resume(number)
    wait_until(lambda: len(busy_workers(tls_redis, runs)) == 2, "both machines have a chunk")
    a.kill()
    killed = time.monotonic()
    left = PICTURES - done(runs, number)
    postgres_server.stop()  # it is started again while the other machine takes over
    postgres_server.start()
    wait_until(lambda: runs.find(number).state is RunState.DONE, "the other machine ends the run")
    assert left > 0
    assert time.monotonic() - killed < 30
    assert runs.counts(number).by_state == {ItemState.DONE: PICTURES - 1, ItemState.FAILED: 1}
    assert sorted(names(out)) == sorted(path.name for path in folder.iterdir())
    assert all(one.has_fetched(WEIGHTS) for one in (a, b))
    assert tls_redis.denied() == []


def test_every_machine_answers_the_same_and_needs_no_more_rights_than_are_documented(
    machine, tls_redis, pictures, tmp_path
):
    (tmp_path / "0.png").write_bytes((pictures / "0.png").read_bytes())
    a, b = machine("a"), machine("b")
    a.command("models", "activate", "tiny")
    a.start("serve", "heatbox-serve")
    b.start_all()
    wait_until(a.is_served, "the web service answers")
    (task,) = a.predict(tmp_path / "0.png")
    assert task["result"]
    assert task["model_version"] == a.version() == b.version()
    assert b.get("readyz") == {"ready": True, "workers": 1}
    assert "heatbox_workers 1.0" in b.get("metrics")
    stop(b.processes["work"], 20)
    assert tls_redis.denied() == []
    for secret in (REDIS_PASSWORD, quote(REDIS_PASSWORD, safe=""), POSTGRES_PASSWORD):
        assert secret not in a.log + b.log


def test_a_training_goes_on_on_another_machine_when_its_own_dies_and_serves_on_both(
    machine, postgres_url, tls_redis, tmp_path
):
    data = draw(tmp_path / "squares")
    a, b = (machine(name) for name in "ab")
    a.command("models", "activate", "tiny")
    a.start("serve", "heatbox-serve")
    a.start("work", "heatbox-work", "--queue", "train")
    wait_until(a.is_served, "the web service answers")
    wish = ("--data", data, "--base", "tiny", "--epochs", 30, "--patience", 30, "--name", "colours")
    a.command("train", *wish, "--no-follow", "--no-activate")
    with closing(Ledger(postgres_url)) as ledger:
        trainings = Trainings(ledger)
        wait_until(lambda: trainings.find(1).progress, "it has begun")
        a.kill()
        b.start("work", "heatbox-work", "--queue", "train")
        b.start("serve", "heatbox-serve")
        wait_until(lambda: not trainings.find(1).is_open, "the other machine ends it")
        found = trainings.find(1)
        assert found.state is TrainingState.DONE, found
        b.command("models", "activate", found.challenger)
    a.start_all()
    asked = {"config": make_label_config(COLOURS)}
    (ours,), (theirs,) = (one.predict(data / "images" / "01.png", **asked) for one in (a, b))
    assert "-colours-" in ours["model_version"]
    assert (ours["model_version"], ours["result"]) == (theirs["model_version"], theirs["result"])
    assert tls_redis.denied() == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"password": "wr@ng"}, "AuthenticationError"),
        ({"authority": "other.crt"}, "ConnectionError"),
    ],
)
def test_a_redis_that_refuses_us_is_a_sentence_without_the_password(tls_redis, changes, kind):
    with (
        connect(tls_redis.url("heatbox-serve", **changes)) as connection,
        pytest.raises(RedisUnavailableError, match=rf"\({kind}\)") as caught,
    ):
        listening_workers(connection)
    assert "wr@ng" not in str(caught.value)


def busy_workers(tls_redis, runs):
    """Names of the workers that say that they have one of the open chunks."""
    keys = [alive_key(chunk.job) for chunk in runs.open_chunks()]
    with tls_redis.admin() as connection:
        return {name for name in connection.mget(["-", *keys]) if name}


def done(runs, number):
    return runs.counts(number).by_state.get(ItemState.DONE, 0)


def names(out):
    """File names in the order of a results file."""
    return [Path(json.loads(line)["data"]["image"]).name for line in out.read_text().splitlines()]
