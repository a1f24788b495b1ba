"""What background runs and the queue cost beside the bare work.

overhead    share of a run's time that is not spent on pictures, with an explainer that waits so that a picture takes
            20 ms: one worker over Redis, and a job process without Redis. Goal: under 2 %.
latency     median of POST /predict for one picture over the median of the same call without web service, queue and
            worker. Goal: under 10 ms.
throughput  pictures per second with mobilenet_v2: a loop in one process, a run with one worker, with two.
enqueue     100,000 items: seconds to write them, bytes of the ledger, bytes that Redis needs when the first chunks
            are on the queue.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import httpx
import numpy as np
import torch
import uvicorn
from PIL import Image
from torchvision.models import mobilenet_v2

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.models import ModelStore, make_card
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline, pipeline_for
from heatbox.processes import stop
from heatbox.queueing.queues import connect, listening_pids
from heatbox.queueing.redis_server import private_redis
from heatbox.runs.conducting import make_conductor
from heatbox.runs.records import Runs
from heatbox.runs.tables import NewItem, NewRun, RunState
from heatbox.service.app import create_app
from heatbox.settings import Settings, as_environment
from heatbox.supervisor import listen
from heatbox_workers.annotate import make_annotator
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.process import prepare_process
from heatbox_workers.tiny import TinyNet

LABELS = ("cat", "dog")
PICTURES = 1500
THROUGHPUT = 400
WAITING = '''
import time
from dataclasses import dataclass
import torch
from heatbox.contract import Evidence

@dataclass(frozen=True)
class Wait:
    """Takes its time."""
    seconds: float = 0.0

    def __call__(self, classifier, images, targets):
        time.sleep(self.seconds * len(images))
        maps = torch.zeros(len(targets), 8, 8)
        maps[:, :3, :3] = 1
        return Evidence(heatmaps=maps)
'''


@dataclass(frozen=True)
class Bench:
    """A home with two models and pictures."""

    settings: Settings
    pictures: tuple[Path, ...]

    @property
    def store(self) -> ModelStore:
        """The models `tiny` and `mobilenet`."""
        return ModelStore(self.settings.store_path)

    def pipeline(self, model: str, **choices: object) -> Pipeline:
        """Return a pipeline that explains one class of each picture."""
        return pipeline_for(self.store.find(model), min_probability=0.0, max_labels=1, **choices)


def main() -> None:
    """Measure and print."""
    prepare_process(1, 1)  # as a worker does: the loop in this process has the same memory and threads
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = _make(Path(folder))
        server = stack.enter_context(private_redis(bench.settings.home))
        over = bench.settings.model_copy(update={"redis_url": server.url})
        _enqueue(over)
        _overhead("local", bench, bench.settings)
        with _worker(over):
            _overhead("redis", bench, over)
            _latency(bench, over)
            one = _throughput(bench, over)
            with _worker(over):
                two = _throughput(bench, over)
        loop = _loop(bench)
        print(
            f"throughput  loop {loop:.1f} pictures/s; one worker {one / loop:.2f}, two {two / loop:.2f} of it"
        )


def _make(home: Path) -> Bench:
    settings = Settings(
        home=home, local_roots=(home,), threads=1, model="tiny", min_probability=0.0, max_labels=1
    )
    store = ModelStore(settings.store_path)
    torch.manual_seed(0)
    fields = {"labels": LABELS, "input_size": 64}
    register(store, make_card(name="tiny", architecture="heatbox/tiny", **fields), TinyNet(2).state_dict())
    card = make_card(name="mobilenet", architecture="torchvision/mobilenet_v2", labels=LABELS, input_size=224)
    register(store, card, mobilenet_v2(num_classes=2).state_dict())
    plugin = home / "plugin"
    (plugin / "waiting-1.0.dist-info").mkdir(parents=True)
    (plugin / "waiting.py").write_text(WAITING)
    (plugin / "waiting-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: waiting\nVersion: 1.0\n"
    )
    (plugin / "waiting-1.0.dist-info" / "entry_points.txt").write_text(
        "[heatbox.explainers]\nwait = waiting:Wait\n"
    )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH")]))
    (home / "pictures").mkdir()
    noise = np.random.default_rng(0)
    for number in range(PICTURES):
        small = noise.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 240)).save(home / "pictures" / f"{number:04}.jpg")
    return Bench(settings, tuple(sorted((home / "pictures").iterdir())))


def _enqueue(over: Settings) -> None:
    """Write a hundred thousand items and put the first chunks on the queue."""
    own = over.model_copy(update={"home": over.home / "enqueue"})
    ledger = Ledger(own.ledger_url)
    conductor = make_conductor(own, Runs(ledger), os.environ)
    content = (NewItem(f"{n}.jpg", (f"/pictures/a-folder-of-usual-length/{n}.jpg",)) for n in range(100_000))
    began = time.perf_counter()
    number = conductor.runs.create(NewRun("bench", Pipeline("tiny@0"), make_label_config(LABELS)), content)
    seconds = time.perf_counter() - began
    with connect(own.redis_url) as redis:
        before = redis.info("memory")["used_memory"]
        conductor.step()
        memory = redis.info("memory")["used_memory"] - before
        redis.flushall()
    size = sum(path.stat().st_size for path in own.home.glob("ledger.sqlite*"))
    began = time.perf_counter()
    conductor.runs.counts(number)
    looked = time.perf_counter() - began
    conductor.close()
    ledger.close()
    print(
        f"enqueue     100,000 items: {seconds:.2f} s, ledger {size / 2**20:.0f} MiB, Redis {memory / 2**10:.0f} KiB, "
        f"a look at the run {looked * 1000:.0f} ms"
    )


def _overhead(name: str, bench: Bench, settings: Settings) -> None:
    pipeline = bench.pipeline("tiny", explainer="wait", explainer_options={"seconds": 0.0185})
    wall, spent, count = _run(settings, pipeline, bench.pictures)
    print(
        f"overhead    {name}: {100 * (1 - spent / wall):.1f} % of {wall:.1f} s for {count} pictures "
        f"at {1000 * spent / count:.1f} ms"
    )


def _throughput(bench: Bench, over: Settings) -> float:
    wall, _, count = _run(over, bench.pipeline("mobilenet"), bench.pictures[:THROUGHPUT])
    return count / wall


def _run(settings: Settings, pipeline: Pipeline, pictures: tuple[Path, ...]) -> tuple[float, float, int]:
    """Return the seconds of a run, the seconds spent on pictures in them, and the number of these.

    The clock runs from the first chunk that has come back to the last: what starting and ending cost is not in it.
    """
    ledger = Ledger(settings.ledger_url)
    conductor = make_conductor(settings, Runs(ledger), os.environ)
    runs = conductor.runs
    try:
        warm = runs.create(NewRun("warm", pipeline, make_label_config(LABELS)), _items(pictures[:60]))
        while runs.find(warm).state is RunState.RUNNING:
            conductor.lane.wait(0.1 if conductor.step() else 0.2)
        number = runs.create(NewRun("bench", pipeline, make_label_config(LABELS)), _items(pictures))
        seen: list[tuple[float, float, int]] = []
        while runs.find(number).state is RunState.RUNNING:
            conductor.lane.wait(0.02)
            conductor.step()
            counts = runs.counts(number)
            if counts.timed and (not seen or counts.timed > seen[-1][2]):
                spent = (counts.seconds_per_picture or 0.0) * counts.timed
                seen.append((time.perf_counter(), spent, counts.timed))
        first, last = seen[0], seen[-1]
        return last[0] - first[0], last[1] - first[1], last[2] - first[2]
    finally:
        conductor.close()
        ledger.close()


def _items(pictures: tuple[Path, ...]) -> list[NewItem]:
    return [NewItem(path.name, (str(path),)) for path in pictures]


def _latency(bench: Bench, over: Settings) -> None:
    own = over.model_copy(update={"explainer": "fused_cam"})
    classifier = load_classifier(bench.store, bench.store.find("tiny"))
    annotator = make_annotator(bench.pipeline("tiny"), classifier, Limits())
    direct = _median([lambda path=path: list(annotator.annotate([path])) for path in bench.pictures[:60]])
    with _served(own) as client:
        called = _median([lambda path=path: _predict(client, path) for path in bench.pictures[:60]])
    print(
        f"latency     /predict {1000 * called:.1f} ms, direct {1000 * direct:.1f} ms: "
        f"{1000 * (called - direct):.1f} ms more"
    )


def _predict(client: httpx.Client, path: Path) -> None:
    (result,) = client.post("/predict", json={"tasks": [{"data": {"image": str(path)}}]}).json()["results"]
    if not result:
        raise SystemExit("no prediction")


def _median(calls: list[Callable[[], object]]) -> float:
    """Return the median seconds of the calls but the first ten, which warm up."""
    times = []
    for call in calls:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times[10:])


def _loop(bench: Bench) -> float:
    torch.set_num_threads(1)
    classifier = load_classifier(bench.store, bench.store.find("mobilenet"))
    annotator = make_annotator(bench.pipeline("mobilenet"), classifier, Limits())
    list(annotator.annotate(bench.pictures[:60]))
    began = time.perf_counter()
    list(annotator.annotate(bench.pictures[:THROUGHPUT]))
    return THROUGHPUT / (time.perf_counter() - began)


@contextmanager
def _served(settings: Settings) -> Iterator[httpx.Client]:
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


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "heatbox", "work"], env={**os.environ, **as_environment(settings)}
    )
    try:
        while worker.pid not in listening_pids(settings.redis_url):
            time.sleep(0.1)
        yield
    finally:
        stop(worker, 10)


if __name__ == "__main__":
    main()
