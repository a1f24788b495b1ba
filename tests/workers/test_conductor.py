import os
import signal
import time

import pytest
from fixtures_redis import wait_until

from heatbox.errors import StudioRefusedError
from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock
from heatbox.models import ModelStore
from heatbox.pipeline import pipeline_for
from heatbox.queueing.job_process import JobLimits, JobProcess
from heatbox.runs.conducting import is_conducted, make_conductor, open_lane, open_studio
from heatbox.runs.conductor import Conductor
from heatbox.runs.lanes import LocalLane, RedisLane
from heatbox.runs.project_tasks import ProjectTasks
from heatbox.runs.records import Runs
from heatbox.runs.tables import ItemState, NewItem, NewRun, RunState
from heatbox.settings import Settings, as_environment

pytestmark = pytest.mark.usefixtures("poisoned")

LABELS = ("cat", "dog", "bird")


@pytest.fixture
def local_settings(tmp_path, tiny_store):
    return Settings(
        home=tmp_path / "home", store=tiny_store, local_roots=(tmp_path,), threads=1, picture_seconds=2
    )


@pytest.fixture
def runs(local_settings):
    ledger = Ledger(local_settings.ledger_url)
    yield Runs(ledger)
    ledger.close()


@pytest.fixture
def local(local_settings, runs):
    """A conductor over one job process of our own."""
    limits = JobLimits(local_settings.picture_seconds)
    process = JobProcess({**os.environ, **as_environment(local_settings)}, limits)
    conductor = Conductor(runs, LocalLane(process), ProjectTasks(runs, lambda: open_studio(local_settings)))
    yield conductor
    conductor.close()


@pytest.fixture
def start(runs, tiny_store):
    """Write a run over the pictures of a folder, with the explainer that may be poisonous."""
    card = ModelStore(tiny_store).find("tiny")

    def make(folder, *, seconds=0.0, model=None):
        options = {"explainer": "poison", "min_probability": 0, "explainer_options": {"seconds": seconds}}
        pipeline = pipeline_for(card, **options) if model is None else type(pipeline_for(card))(model)
        items = [NewItem(path.name, (str(path),)) for path in sorted(folder.iterdir())]
        return runs.create(NewRun("pictures", pipeline, make_label_config(LABELS)), items)

    return make


def finish(conductor, number, seconds=90):
    """Let the conductor work until the run is not running any more."""
    deadline = time.monotonic() + seconds
    while conductor.runs.find(number).state is RunState.RUNNING:
        conductor.lane.wait(0.05 if conductor.step() else 0.2)
        assert time.monotonic() < deadline, conductor.runs.counts(number)


def until(conductor, condition, what):
    """Let the conductor work until the condition holds."""

    def holds():
        conductor.lane.wait(0.02 if conductor.step() else 0.1)
        return condition()

    wait_until(holds, what)


def names(runs, number, state):
    return [item.name for item in runs.items(number, [state])]


def test_a_run_over_a_folder_ends_with_a_prediction_for_each_picture(local, runs, start, make_pictures):
    number = start(make_pictures(30))
    finish(local, number)
    assert runs.counts(number).by_state == {ItemState.DONE: 30}
    assert all(item.prediction["result"] for item in runs.items(number))
    assert runs.open_chunks() == []


def test_poisonous_pictures_cost_themselves_alone_and_land_in_the_dead_list(
    local, runs, start, make_pictures
):
    number = start(make_pictures(40, crash=7, hang=23))
    finish(local, number)
    counts = runs.counts(number)
    assert counts.by_state == {ItemState.DONE: 38, ItemState.FAILED: 2}
    assert counts.by_code == {"picture-timeout": 1, "worker-died": 1}
    dead = {item.name: item.reason for item in runs.items(number, [ItemState.FAILED])}
    assert set(dead) == {"00007.png", "00023.png"}
    assert "signal 11" in dead["00007.png"]


def test_a_picture_that_cannot_be_read_is_failed_with_its_code(local, runs, start, make_pictures):
    folder = make_pictures(5)
    (folder / "00002.png").write_bytes(b"no picture")
    number = start(folder)
    finish(local, number)
    assert runs.counts(number).by_code == {"picture-unreadable": 1}
    assert names(runs, number, ItemState.FAILED) == ["00002.png"]


def test_what_no_picture_can_be_annotated_with_pauses_the_run_and_says_why(local, runs, start, make_pictures):
    number = start(make_pictures(5), model="gone@0")
    finish(local, number)
    run = runs.find(number)
    assert run.state is RunState.PAUSED
    assert run.note.startswith("model-not-found: ")
    assert runs.counts(number).by_state == {ItemState.WAITING: 5}


def test_a_process_that_cannot_even_load_blames_no_picture_and_pauses_the_run(
    local_settings, runs, start, make_pictures
):
    process = JobProcess({**os.environ, **as_environment(local_settings)}, JobLimits(memory=2**20))
    conductor = Conductor(runs, LocalLane(process), ProjectTasks(runs, lambda: open_studio(local_settings)))
    number = start(make_pictures(3))
    finish(conductor, number)
    conductor.close()
    assert runs.find(number).note.startswith("picture-memory: ")
    assert runs.counts(number).by_state == {ItemState.WAITING: 3}


def test_an_item_without_a_picture_stays_failed_and_harms_nobody(local, runs, start, make_pictures):
    pipeline = runs.find(start(make_pictures(2))).pipeline
    items = [NewItem("none", code="tasks-file", reason="No picture."), NewItem("empty")]
    number = runs.create(NewRun("odd", pipeline, make_label_config(LABELS)), items)
    assert runs.retry(number) == 0
    finish(local, number)
    assert runs.counts(number).by_code == {"tasks-file": 2}


def test_a_task_with_several_pictures_is_done_also_where_each_job_does_one(local, runs, start, make_pictures):
    folder = make_pictures(3)
    config = make_label_config(LABELS).replace('value="$image"', 'valueList="$image"')
    pipeline = runs.find(start(folder, seconds=0.3)).pipeline
    whole = NewItem("three", tuple(str(path) for path in sorted(folder.iterdir())))
    number = runs.create(NewRun("list", pipeline, config), [whole])
    local.only = number
    asked = []
    while runs.find(number).state is RunState.RUNNING:
        local.step()
        chunks = runs.open_chunks()
        if chunks and chunks[0].job not in asked and local.lane.process.has_begun:
            asked.append(chunks[0].job)
            local.lane.process.ask_to_stop()  # as for somebody who waits
        local.lane.wait(0.05)
    (item,) = runs.items(number, [ItemState.DONE])
    assert {region["item_index"] for region in item.prediction["result"]} == {0, 1, 2}
    assert len(asked) == 3


def test_of_several_pictures_a_bad_one_costs_only_itself(local, runs, start, make_pictures):
    folder = make_pictures(2)
    config = make_label_config(LABELS).replace('value="$image"', 'valueList="$image"')
    good, bad = sorted(folder.iterdir())
    bad.write_bytes(b"no picture")
    items = [NewItem("both", (str(good), str(bad))), NewItem("bad", (str(bad),))]
    number = runs.create(NewRun("list", runs.find(start(folder)).pipeline, config), items)
    local.only = number
    finish(local, number)
    both, alone = runs.items(number, [ItemState.DONE, ItemState.FAILED])
    assert {region["item_index"] for region in both.prediction["result"]} == {0}
    assert (alone.state, alone.code) == (ItemState.FAILED, "picture-unreadable")


def test_a_paused_run_gives_back_what_it_holds_and_goes_on_when_it_is_resumed(
    local, runs, start, make_pictures
):
    number = start(make_pictures(60), seconds=0.02)
    until(local, lambda: runs.counts(number).left < 60, "it moves")
    runs.pause(number)
    until(local, lambda: not runs.open_chunks(), "it rests")
    left = runs.counts(number).left
    assert 0 < left < 60
    local.step()
    assert runs.counts(number).left == left
    runs.resume(number)
    finish(local, number)
    assert runs.counts(number).by_state == {ItemState.DONE: 60}


def test_a_cancelled_run_stays_as_it_is(local, runs, start, make_pictures):
    number = start(make_pictures(60), seconds=0.02)
    until(local, lambda: runs.counts(number).left < 60, "it moves")
    runs.cancel(number)
    until(local, lambda: not runs.open_chunks(), "it ends")
    assert runs.find(number).state is RunState.CANCELLED
    assert runs.counts(number).left > 0


def test_chunks_grow_to_some_seconds_of_work(local, runs, start, make_pictures):
    number = start(make_pictures(40), seconds=0.25)
    local.step()
    assert [len(chunk.items) for chunk in runs.open_chunks()] == [1, 1]  # nothing is measured yet
    until(local, lambda: runs.counts(number).left < 30, "some are done")
    assert {len(chunk.items) for chunk in runs.open_chunks()} <= set(range(8, 13))


def test_nothing_of_a_finished_run_stays_in_redis(over_redis, start, make_pictures, start_worker):
    number = start(make_pictures(20))
    start_worker()
    finish(over_redis, number)
    kept = over_redis.lane._connection.keys("*run*")  # noqa: SLF001 - as somebody with redis-cli would
    assert [key for key in kept if not key.startswith((b"hb:alive", b"rq:worker"))] == []


def test_runs_take_turns(settings, runs, start, make_pictures):
    folder = make_pictures(40)
    first, second = start(folder), start(folder)
    lane = RedisLane(settings.redis_url)
    conductor = Conductor(runs, lane, ProjectTasks(runs, lambda: open_studio(settings)))
    conductor.step()
    assert [chunk.run for chunk in runs.open_chunks()] == [first, second, first]
    conductor.close()


def test_failed_items_are_tried_again_and_only_they(local, runs, start, make_pictures):
    folder = make_pictures(6)
    good = (folder / "00002.png").read_bytes()
    (folder / "00002.png").write_bytes(b"no picture")
    number = start(folder)
    finish(local, number)
    (folder / "00002.png").write_bytes(good)
    assert runs.retry(number) == 1
    finish(local, number)
    assert runs.counts(number).by_state == {ItemState.DONE: 6}


def test_one_conductor_at_a_time(local_settings):
    ledger = Ledger(local_settings.ledger_url)
    with LedgerLock(ledger, local_settings.home) as lock, LedgerLock(ledger, local_settings.home) as other:
        assert lock.take()
        assert not other.take()
        lock.release()
        assert other.take()
    ledger.close()


def test_a_service_is_told_from_a_command_that_conducts_one_run(local_settings):
    ledger = Ledger(local_settings.ledger_url)
    with LedgerLock(ledger, local_settings.home) as command:
        assert command.take()
        assert not is_conducted(local_settings)
        with LedgerLock(ledger, local_settings.home, of_services=True) as service:
            assert service.take()
            assert is_conducted(local_settings)
    ledger.close()


def test_without_a_label_studio_the_error_says_what_to_set(local_settings):
    with pytest.raises(StudioRefusedError, match="No Label Studio is named") as caught:
        open_studio(local_settings)
    assert "LABEL_STUDIO_URL" in caught.value.remedy


def test_a_lane_of_our_own_is_taken_where_no_redis_is_named(local_settings, settings):
    assert isinstance(open_lane(local_settings, os.environ), LocalLane)
    assert isinstance(open_lane(settings, os.environ), RedisLane)


@pytest.fixture
def over_redis(settings, runs):
    """A conductor over Redis; a worker with the plugin is started by the test."""
    conductor = make_conductor(settings, runs, os.environ)
    yield conductor
    conductor.close()


@pytest.fixture
def settings(settings, tmp_path):
    """Settings of the worker: it reads what the tests make."""
    return settings.model_copy(update={"local_roots": (tmp_path,), "picture_seconds": 2})


def test_a_run_over_redis_survives_a_flush_and_a_killed_worker(
    over_redis, runs, start, make_pictures, start_worker
):
    number = start(make_pictures(60, crash=31), seconds=0.05)
    worker = start_worker()
    until(over_redis, lambda: runs.counts(number).left < 55, "it moves")
    over_redis.lane._connection.flushall()  # noqa: SLF001 - as somebody with redis-cli would
    until(over_redis, lambda: runs.counts(number).left < 45, "it moves on")
    worker.kill()
    killed = time.monotonic()
    left = runs.counts(number).left
    start_worker()
    until(over_redis, lambda: runs.counts(number).left < left - 8, "the killed worker's chunk is done again")
    assert time.monotonic() - killed < 30
    finish(over_redis, number)
    assert runs.counts(number).by_state == {ItemState.DONE: 59, ItemState.FAILED: 1}
    assert names(runs, number, ItemState.FAILED) == ["00031.png"]


def test_a_picture_that_was_lost_with_a_worker_is_tried_alone_before_it_is_given_up(
    local, runs, start, make_pictures
):
    number = start(make_pictures(3), seconds=0.5)
    chunk = runs.take(number, 3)
    runs.settle(chunk, [], struck=[item.id for item in chunk.items])
    until(local, lambda: local.lane.process.has_begun, "a picture is in hand")
    os.kill(local.lane.process.pid, signal.SIGKILL)
    finish(local, number)
    assert runs.counts(number).by_state == {ItemState.DONE: 3}
