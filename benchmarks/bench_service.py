"""How soon the service answers what Label Studio asks before each prediction.

`/health` and `/setup` of a real `heatbox up` process with one worker: the very first of each after the start, again and
again while nothing else happens, and while eight clients keep the worker busy with /predict. Goal: under 100 ms at the
95th percentile, the first included. Label Studio gives them 1 and 3 seconds.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import httpx
import numpy as np
import torch
from PIL import Image
from torchvision.models import mobilenet_v2

from heatbox.labelling.config import make_label_config
from heatbox.models import ModelStore, make_card
from heatbox.processes import stop
from heatbox.settings import Settings, as_environment
from heatbox_workers.loading import register

CLASSES = tuple(f"class {number}" for number in range(1000))
LABELS = [f"Class_{number}" for number in range(0, 1000, 25)]
STARTS = 3
TIMES = 200
CLIENTS = 8
GOAL = 0.1  # seconds


def main() -> None:
    """Measure and print."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings, pictures = _make(Path(folder))
        for start in range(STARTS):
            with _up(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
                health, setup = (lambda: client.get("/health")), (lambda: _setup(client))
                for when, calls in (("first", 1), ("idle", TIMES)):
                    _note(times, f"/setup   {when}", setup, calls)
                    _note(times, f"/health  {when}", health, calls)
                if start == STARTS - 1:
                    with _busy(address, pictures):
                        _note(times, "/setup   busy", setup, TIMES)
                        _note(times, "/health  busy", health, TIMES)
    print(f"{'':16}{'p50':>9}{'p95':>9}{'worst':>9}{'calls':>7}")
    for name, found in sorted(times.items()):
        p50, p95 = statistics.median(found), sorted(found)[max(0, -(-95 * len(found) // 100) - 1)]
        figures = "".join(f"{1000 * value:6.1f} ms" for value in (p50, p95, max(found)))
        print(f"{name:16}{figures}{len(found):>7}{'' if p95 < GOAL else '  over the goal'}")


def _make(home: Path) -> tuple[Settings, Sequence[Path]]:
    """Return the settings of a service with a thousand classes, and pictures."""
    settings = Settings(
        home=home, local_roots=(home,), threads=1, model="mobilenet", predict_deadline=20, port=_port()
    )
    card = make_card(
        name="mobilenet", architecture="torchvision/mobilenet_v2", labels=CLASSES, input_size=224
    )
    torch.manual_seed(0)
    register(ModelStore(settings.store_path), card, mobilenet_v2().state_dict())
    noise = np.random.default_rng(0)
    for number in range(64):
        small = noise.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480)).save(home / f"{number:02}.jpg")
    return settings, sorted(home.glob("*.jpg"))


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _up(settings: Settings) -> Iterator[str]:
    environment = {**os.environ, **as_environment(settings)}
    command = [sys.executable, "-m", "heatbox", "up"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        while "heatbox is up" not in (line := process.stdout.readline()):
            if not line:
                raise SystemExit("heatbox up has ended")
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        stop(process, 20)


def _setup(client: httpx.Client) -> httpx.Response:
    return client.post("/setup", json={"project": "1.17", "schema": make_label_config(LABELS)})


def _note(times: dict[str, list[float]], name: str, call: Callable[[], httpx.Response], calls: int) -> None:
    for _ in range(calls):
        began = time.perf_counter()
        call().raise_for_status()
        times.setdefault(name, []).append(time.perf_counter() - began)
        time.sleep(0.005)


@contextmanager
def _busy(address: str, pictures: Sequence[Path]) -> Iterator[None]:
    """Let clients ask for predictions of sixteen pictures without a break."""
    over = threading.Event()
    tasks = [{"id": number, "data": {"image": str(path)}} for number, path in enumerate(pictures[:16])]
    body = json.dumps({"tasks": tasks, "label_config": make_label_config(LABELS)})

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not over.is_set():
                client.post("/predict", content=body, headers={"Content-Type": "application/json"})

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(3)  # until the worker has its model
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
