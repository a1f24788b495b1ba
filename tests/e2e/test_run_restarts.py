"""Runs over what is gone for a while as a whole: heatbox, Label Studio, a Redis that forgets, the disk; or no Redis."""

import random
import signal
import subprocess
from contextlib import contextmanager

import httpx
import pytest
from fixtures_redis import wait_until
from fixtures_runs import JOB, REDIS, WEB, WORKER, Project

from heatbox.queueing.redis_server import find_redis_server
from heatbox.runs.tables import ItemState

pytestmark = pytest.mark.studio

SLOWLY = {"explainer_options": ("seconds=0.25",)}


@pytest.fixture
def own(make_heatbox, studio_server, tmp_path):
    """A home of one test."""
    return make_heatbox(tmp_path, studio_server, **SLOWLY)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "told to end"])
def test_a_run_goes_on_when_all_of_heatbox_is_started_again(own, make_project, number):
    project = make_project(24)
    first = own.start_up()
    run = own.run(project)
    own.wait(run, ended=3)
    first.process.send_signal(number)
    first.process.wait(12)
    assert own.ended(run) < 24
    with own.up():
        own.wait(run)
    project.assert_each_once(own, run)


def test_a_storm_of_kills_loses_and_doubles_nothing(own, make_project):
    project = make_project(60)
    with own.up() as up:
        number = own.run(project)
        rng = random.Random(4)  # noqa: S311 - no secret
        for ended, name in zip(range(1, 50, 6), rng.sample([WORKER, JOB, WEB, REDIS] * 2, 8), strict=False):
            own.wait(number, ended=ended)
            up.kill(name)
        own.wait(number)
        failed = {item.task: item.code for item in own.items(number, ItemState.FAILED)}
        assert set(failed.values()) <= {"worker-died"}  # it may be that one picture was in hand twice
        project.assert_each_once(own, number, failed)
        if failed:
            own.command("retry", number)
            own.wait(number)
            project.assert_each_once(own, number)


@contextmanager
def forgetful_redis(path):
    """A Redis that keeps nothing on the disk."""
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([find_redis_server(), *options], cwd=path.parent, stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, "Redis listens")
        yield process
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


def test_a_redis_that_forgets_and_stays_away_for_a_while_loses_nothing(own, make_project, tmp_path):
    project = make_project(24)
    path = tmp_path / "redis.sock"
    with forgetful_redis(path) as server, own.up(redis_url=f"unix://{path}") as up:
        run = own.run(project)
        own.wait(run, ended=3)
        server.kill()
        wait_until(lambda: "Redis does not answer" in up.output, "it is missed")
        path.unlink()
        with forgetful_redis(path):
            own.wait(run)
    project.assert_each_once(own, run)


def test_a_label_studio_that_is_started_again_is_waited_for(make_heatbox, own_studio, tmp_path):
    own = make_heatbox(tmp_path, own_studio.server, **SLOWLY)
    address, headers = own_studio.server.url, own_studio.server.headers
    with httpx.Client(base_url=address, headers=headers, timeout=120) as api, own.up() as up:
        project = Project(api, [f"{number:02}.png" for number in range(24)])
        run = own.run(project)
        own.wait(run, ended=3)
        own_studio.kill()
        wait_until(lambda: "label-studio" in own.find(run).note, "the run tells that it waits")
        assert own.ended(run) < 24
        own_studio.start()
        own.wait(run)
        assert "label-studio" in up.output
        project.assert_each_once(own, run)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here: a full disk is not tried")
    yield folder
    subprocess.run(["/bin/umount", "--lazy", folder], check=True)


def fill(folder):
    """Write until nothing more fits in, and return the file."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            return filler


def test_a_full_disk_is_waited_for(make_heatbox, studio_server, make_project, small_disk, tmp_path):
    own = make_heatbox(tmp_path, studio_server, home=small_disk, **SLOWLY)
    project = make_project(24)
    with own.up() as up:
        run = own.run(project)
        own.wait(run, ended=3)
        filler = fill(small_disk)
        wait_until(lambda: "The ledger cannot be written" in up.output, "the log tells why nothing goes on")
        stuck = own.ended(run)
        assert stuck < 24
        filler.unlink()
        own.wait(run)
        project.assert_each_once(own, run)


@pytest.fixture
def _hear_interrupts():
    """Undo what a shell does to programs that it starts in the background: they ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_hear_interrupts", "up")
def test_a_run_without_a_service_is_left_and_gone_on_with_and_gives_the_same_boxes(
    own, heatbox, make_project
):
    project, other = make_project(24), make_project(24)
    process = own.start("run", "-p", project.id)
    run = own.newest().id
    own.wait(run, ended=3)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert f"heatbox resume {run}" in told
    rested = own.ended(run)
    assert rested < 24
    process = own.start("resume", run)
    wait_until(lambda: own.ended(run) > rested, "it goes on")
    process.kill()
    process.communicate()
    assert own.ended(run) < 24
    own.command("resume", run)
    project.assert_each_once(own, run)
    heatbox.wait(heatbox.run(other, "--explainer-option", "seconds=0"))
    assert project.boxes() == other.boxes()
