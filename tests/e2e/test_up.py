"""`heatbox up` as a person runs it: a real process with its real children."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis
from fixtures_redis import is_alive, wait_until

from heatbox.processes import stop
from heatbox.settings import Settings, as_environment
from heatbox.supervisor import listen

WEB, WORKER, REDIS = "heatbox serve", "heatbox work", "redis-server"
TRAINER = "heatbox work --queue train"


@dataclass
class Up:
    """A running `heatbox up`."""

    process: subprocess.Popen
    log: Path

    @property
    def output(self):
        return self.log.read_text()

    @property
    def address(self):
        return re.search(r"heatbox is up\s+(http://\S+)", self.output)[1]

    def wait_until_ready(self):
        wait_until(lambda: "heatbox is up" in self.output or self.process.poll() is not None, "it is up")
        assert self.process.poll() is None, self.output

    def children(self, name=""):
        """Process ids of the children whose command line has this word."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        lines = {int(pid): command_line(int(pid)) for pid in found}
        return {
            pid for pid, line in lines.items() if name in line and (name != WORKER or TRAINER not in line)
        }

    def child(self, name):
        (pid,) = self.children(name)
        return pid

    def jobs(self):
        """Ids of the jobs that nobody has begun."""
        socket = self.log.parent / "home" / "redis" / "redis.sock"
        with redis.Redis(unix_socket_path=str(socket)) as connection:
            lists = ("rq:queue:hb-interactive", "rq:queue:hb-interactive:intermediate")
            return [job_id for name in lists for job_id in connection.lrange(name, 0, -1)]

    def predict(self, *addresses):
        tasks = [{"id": number, "data": {"image": str(address)}} for number, address in enumerate(addresses)]
        answer = httpx.post(f"{self.address}/predict", json={"tasks": tasks}, timeout=90)
        assert answer.status_code == 200
        return answer.json()["results"]


def command_line(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def start_up(folder, store, pictures, **changes):
    """Start `heatbox up` with a home and a log in this folder."""
    home = {"home": folder / "home", **changes}
    settings = Settings(store=store, model="tiny", min_probability=0, threads=1, **home)
    folder.mkdir(exist_ok=True)
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "heatbox", "up", "--root", pictures],
            env={**os.environ, **as_environment(settings)},
            stdout=output,
            stderr=output,
        )
    return Up(process, log)


@pytest.fixture
def start(tiny_store, pictures, tmp_path):
    """Start `heatbox up` in a folder of its own."""
    started = []

    def start(**changes):
        started.append(start_up(tmp_path / "own", tiny_store, pictures, **changes))
        return started[-1]

    yield start
    for up in started:
        stop(up.process, 20)


@pytest.fixture(scope="module")
def up(tiny_store, pictures, tmp_path_factory):
    """A `heatbox up` that is ready and goes on whatever becomes of its children."""
    up = start_up(tmp_path_factory.mktemp("up"), tiny_store, pictures, port=0)
    up.wait_until_ready()
    yield up
    stop(up.process, 20)


def test_two_tasks_get_boxes_and_what_cannot_be_annotated_stays_empty(up, pictures):
    results = up.predict(pictures / "0.png", "/etc/passwd", pictures / "none.png", pictures / "1.png")
    assert [bool(item) for item in results] == [True, False, False, True]
    assert results[1:3] == [[], []]
    value = results[0]["result"][0]["value"]
    assert 0 <= value["x"] < value["x"] + value["width"] <= 100


def test_only_the_job_process_loads_torch(up, pictures):
    up.predict(pictures / "0.png")
    worker = up.child(WORKER)
    (job,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    others = (worker, up.child(WEB), up.child(TRAINER))
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (job, *others)]
    assert ["libtorch" in text for text in maps] == [True, False, False, False]


def test_the_worker_for_trainings_gives_way_and_has_no_process_of_its_own(up):
    trainer = up.child(TRAINER)
    wait_until(lambda: os.getpriority(os.PRIO_PROCESS, trainer) == 10, "it gives way")
    assert os.getpriority(os.PRIO_PROCESS, up.child(WORKER)) == 0
    assert not Path(f"/proc/{trainer}/task/{trainer}/children").read_text()


def test_a_worker_that_is_killed_at_work_is_replaced_and_its_pictures_are_done(up, pictures):
    worker = up.child(WORKER)
    with ThreadPoolExecutor() as pool:
        os.kill(worker, signal.SIGSTOP)  # it waits for a job and so is given one
        answer = pool.submit(up.predict, *(pictures / f"{number}.png" for number in range(2, 4)))
        wait_until(up.jobs, "there is a job")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: up.children(WORKER) - {worker}, "another worker")
        assert all(item["result"] for item in answer.result())
    assert "worker 1 ended with code -9" in up.output


def test_the_workers_share_the_memory_with_the_one_for_trainings(up):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shares = []
    for pid in (up.child(WORKER), up.child(TRAINER)):
        lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
        shares.append(int(dict(line.partition("=")[::2] for line in lines)["HEATBOX_JOB_MEMORY"]))
    assert 0.75 * machine < sum(shares) < 0.85 * machine


@pytest.mark.parametrize("name", [WEB, REDIS, TRAINER])
def test_whatever_is_killed_is_started_again(up, pictures, name):
    killed = up.child(name)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: up.children(name) - {killed}, f"another {name}")
    wait_until(lambda: up.predict(pictures / "0.png")[0], "a prediction")


def test_a_second_one_on_the_same_home_is_told_so(up, start):
    second = start(home=up.log.parent / "home", port=0)
    assert second.process.wait(60) == 3
    assert "Another `heatbox up`" in " ".join(second.output.split())
    assert is_alive(up.process.pid)


def test_a_port_that_is_taken_is_told_before_anything_starts(start):
    with listen("127.0.0.1", 0) as listener:
        up = start(port=listener.getsockname()[1])
        assert up.process.wait(60) == 3
    assert "port-taken" in up.output
    assert not (up.log.parent / "home").exists()


def test_sigterm_takes_everything_down_and_leaves_nothing(start):
    up = start(port=0)
    up.wait_until_ready()
    children = up.children()
    assert len(children) == 4
    up.process.terminate()
    assert up.process.wait(20) == 0, up.output
    assert not any(map(is_alive, children))
    assert not list(up.log.parent.glob("home/redis/*.sock"))


def test_a_supervisor_that_is_killed_takes_its_children_with_it(start):
    up = start(port=0)
    wait_until(lambda: len(up.children()) == 4, "its children are there")
    children = up.children()
    up.process.kill()
    wait_until(lambda: not any(map(is_alive, children)), "the children are gone", seconds=20)
