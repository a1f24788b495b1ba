"""Fixtures of the service: a real Redis, a registered tiny model, pictures, settings, a real worker.

A pytest plugin (`pytest_plugins = ["fixtures_redis"]` in tests/conftest.py).
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from heatbox.models import Card, ModelStore
from heatbox.processes import stop
from heatbox.queueing.queues import listening_pids
from heatbox.queueing.redis_server import PrivateRedis, private_redis
from heatbox.service.app import create_app
from heatbox.settings import Settings, as_environment
from heatbox.supervisor import listen

LABELS = ("cat", "dog", "bird")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A real Redis of its own."""
    with private_redis(tmp_path / "home") as server:
        yield server


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one model, `tiny`: random weights, three classes."""
    import torch

    from heatbox_workers.loading import register
    from heatbox_workers.tiny import TinyNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = TinyNet(len(LABELS)).state_dict()
    folder = tmp_path_factory.mktemp("store")
    register(
        ModelStore(folder),
        Card(name="tiny", architecture="heatbox/tiny", labels=LABELS, input_size=64),
        weights,
    )
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve pictures of noise, 0.png to 11.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def settings(tmp_path: Path, tiny_store: Path, pictures: Path, redis_server: PrivateRedis) -> Settings:
    """Settings of a service on that Redis, model and pictures; every class is explained."""
    return Settings(
        home=tmp_path / "home",
        store=tiny_store,
        model="tiny",
        redis_url=redis_server.url,
        local_roots=(pictures,),
        min_probability=0,
        predict_deadline=60,
        threads=1,
    )


@pytest.fixture
def start_worker_on() -> Iterator[Callable[[Settings], "subprocess.Popen[bytes]"]]:
    """Start real workers with these settings and wait until they listen."""
    started = []

    def start(settings: Settings) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **as_environment(settings)}
        worker = subprocess.Popen([sys.executable, "-m", "heatbox", "work"], env=environment)
        started.append(worker)
        wait_until(lambda: worker.pid in listening_pids(settings.redis_url), "the worker listens")
        return worker

    yield start
    for worker in started:
        stop(worker, 10)


@pytest.fixture
def start_worker(
    settings: Settings, start_worker_on: Callable[[Settings], "subprocess.Popen[bytes]"]
) -> Callable[[], "subprocess.Popen[bytes]"]:
    """Start real workers with the test's settings and wait until they listen."""
    return lambda: start_worker_on(settings)


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """Serve the real application from a thread, and yield a client of it."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, ws="none"))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    """Look again and again until the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
