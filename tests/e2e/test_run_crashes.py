"""Whatever of heatbox is killed in mid-run: afterwards Label Studio has one prediction of each task.

One `heatbox up` is shared: it starts again whatever a test has killed. Between it and Label Studio is a proxy, so that
a request can be cut, or its sender killed, just before it arrives or just before it is answered.
"""

import time

import pytest
import redis
from fixtures_redis import wait_until
from fixtures_runs import JOB, REDIS, WEB, WORKER

from heatbox.runs.tables import ItemState

pytestmark = [pytest.mark.studio, pytest.mark.usefixtures("up")]

PAGE, PUSH = "GET /api/tasks/", "POST import/predictions"
SLOWLY = ("--explainer-option", "seconds=0.2")
RECOVERY_SECONDS = 30


def test_a_run_annotates_every_task_and_a_second_one_makes_no_job_and_writes_nothing(
    heatbox, proxy, make_project
):
    project = make_project(20, "none.png")
    no_picture = project.add([{"image": ""}])[0]
    missing = project.tasks[-1]
    first = heatbox.run(project, "--explainer-option", "seconds=0")
    heatbox.wait(first)
    project.assert_each_once(heatbox, first, {missing: "picture-fetch", no_picture: "tasks-file"})
    pushes = proxy.count(PUSH)
    second = heatbox.run(
        project, "--filter", f"ids={project.tasks[0]}-{project.tasks[19]}", "--explainer-option", "seconds=0"
    )
    heatbox.wait(second)
    assert len(heatbox.items(second, ItemState.KEPT)) == 20
    assert (heatbox.chunks(second), proxy.count(PUSH)) == (0, pushes)
    project.assert_each_once(heatbox, first, {missing: "picture-fetch", no_picture: "tasks-file"})


@pytest.mark.parametrize("name", [WORKER, JOB])
def test_the_pictures_of_a_killed_worker_are_done_again_within_half_a_minute(
    heatbox, up, make_project, name, record_testsuite_property
):
    project = make_project(24)
    number = heatbox.run(project, *SLOWLY)
    heatbox.wait(number, ended=3)
    up.kill(name)
    killed = time.monotonic()
    with heatbox.runs() as runs:
        held = {item.task for chunk in runs.open_chunks() for item in chunk.items}
    assert held
    wait_until(
        lambda: (
            not held & {item.task for item in heatbox.items(number, ItemState.WAITING, ItemState.COMPUTED)}
        ),
        "what it held is done",
    )
    took = time.monotonic() - killed
    record_testsuite_property(f"{name}: seconds until its pictures were done again", round(took, 1))
    assert took < RECOVERY_SECONDS
    heatbox.wait(number)
    project.assert_each_once(heatbox, number)


@pytest.mark.parametrize("place", [(PAGE, "asked"), (PAGE, "answered"), (PUSH, "answered")], ids=" ".join)
def test_a_web_process_that_is_killed_while_it_reads_or_writes_is_replaced(
    heatbox, up, proxy, make_project, place
):
    project = make_project(20)
    killed = proxy.once(*place, lambda: up.kill(WEB))
    number = heatbox.run(project, "--explainer-option", "seconds=0.02")
    assert killed.wait(60)
    heatbox.wait(number)
    project.assert_each_once(heatbox, number)
    assert proxy.count(PUSH) >= 1


def test_what_a_killed_web_process_had_sent_may_arrive_seconds_later(heatbox, up, proxy, make_project):
    project = make_project(12)

    def kill_and_hold():
        up.kill(WEB)
        time.sleep(6)  # Label Studio is slow; by now another web process conducts

    held = proxy.once(PUSH, "asked", kill_and_hold)
    number = heatbox.run(project, "--explainer-option", "seconds=0.01")
    assert held.wait(60)
    heatbox.wait(number)
    wait_until(lambda: not proxy.under_way, "what was held has been answered")
    project.assert_each_once(heatbox, number)


def test_connections_that_are_cut_while_predictions_are_written_leave_each_once(heatbox, proxy, make_project):
    projects = {moment: make_project(12) for moment in ("asked", "answered")}
    cuts = [
        proxy.once(f"POST {project.id}/import/predictions", moment, cut=True)
        for moment, project in projects.items()
    ]
    numbers = [heatbox.run(project, "--explainer-option", "seconds=0.03") for project in projects.values()]
    assert all(cut.wait(60) for cut in cuts)
    told = {}

    def have_told():
        notes = {number: heatbox.find(number).note for number in numbers}
        told.update({number: note for number, note in notes.items() if note})
        return len(told) == len(numbers)

    wait_until(have_told, "both runs tell that they wait")
    assert all(note.startswith("label-studio-ambiguous: ") for note in told.values())
    for number, project in zip(numbers, projects.values(), strict=True):
        heatbox.wait(number)
        project.assert_each_once(heatbox, number)


def test_a_private_redis_that_is_killed_is_started_again(heatbox, up, make_project):
    project = make_project(24)
    number = heatbox.run(project, *SLOWLY)
    heatbox.wait(number, ended=3)
    up.kill(REDIS)
    assert heatbox.ended(number) < 24
    heatbox.wait(number)
    project.assert_each_once(heatbox, number)


def test_a_redis_that_was_emptied_is_filled_again(heatbox, make_project):
    project = make_project(30)
    number = heatbox.run(project, *SLOWLY)
    with redis.Redis(unix_socket_path=str(heatbox.settings.home / "redis" / "redis.sock")) as connection:
        for ended in (3, 15):
            heatbox.wait(number, ended=ended)
            connection.flushall()
            assert heatbox.ended(number) < 30
    heatbox.wait(number)
    project.assert_each_once(heatbox, number)
