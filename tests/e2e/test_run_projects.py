"""A run and what people do meanwhile: open tasks, delete them, rename labels, pause; and pictures that are poison."""

import time

import pytest
from fixtures_poison import COLOURS
from fixtures_redis import wait_until
from fixtures_runs import region
from PIL import Image

from heatbox.runs.tables import ItemState, RunState

pytestmark = [pytest.mark.studio, pytest.mark.usefixtures("up")]

PUSH = "POST import/predictions"
AT_ONCE = ("--explainer-option", "seconds=0")


@pytest.fixture
def poison(run_pictures):
    """A poisonous picture of each kind, by the code that it fails with."""
    codes = {"crash": "worker-died", "hang": "picture-timeout", "eat": "picture-memory"}
    for kind in codes:
        Image.new("RGB", (64, 48), COLOURS[kind]).save(run_pictures / f"{kind}.png")
    return {f"{kind}.png": code for kind, code in codes.items()}


def test_poisonous_pictures_are_listed_with_their_reasons_and_only_they_are_tried_again(
    heatbox, make_project, poison, run_pictures
):
    project = make_project(20, *poison)
    number = heatbox.run(project, *AT_ONCE)
    heatbox.wait(number)
    project.assert_each_once(heatbox, number, dict(zip(project.tasks[20:], poison.values(), strict=True)))
    told = heatbox.command("runs", number, "--failed")
    assert all(f"task {task}" in told for task in project.tasks[20:])
    assert all(code in told for code in poison.values())
    before = project.predictions()
    for name in poison:
        (run_pictures / name).write_bytes((run_pictures / "00.png").read_bytes())
    assert "3 failed items" in heatbox.command("retry", number)
    heatbox.wait(number)
    project.assert_each_once(heatbox, number)
    assert {task: project.predictions()[task] for task in project.tasks[:20]} == {
        task: before[task] for task in project.tasks[:20]
    }


@pytest.fixture
def connect(up):
    """Connect a project to the service, as a person does in its settings."""

    def connect(project):
        project.made("/api/ml", {"project": project.id, "url": up.address, "title": "heatbox"})

    return connect


def test_what_was_not_ready_in_time_is_written_later_with_the_same_version(heatbox, make_project, connect):
    project = make_project(60)
    connect(project)
    project.retrieve(project.tasks[0])  # the classifier is warm from here on
    project.retrieve()
    answered = [task for task, found in project.versions().items() if found]
    assert 1 < len(answered) < 60
    run = heatbox.newest()
    assert run.title == f"late answers for project {project.id}"
    heatbox.wait(run.id)
    version = run.pipeline.version
    assert project.versions() == {task: [version] for task in project.tasks}
    before = project.predictions()
    project.retrieve()
    assert project.predictions() == before


def test_somebody_who_opens_a_task_during_a_run_waits_for_about_one_picture(heatbox, make_project, connect):
    project = make_project(60)
    connect(project)
    number = heatbox.run(project)
    heatbox.wait(number, ended=24)  # from here on the chunks are of three seconds
    last = project.tasks[-1]
    asked = time.monotonic()
    project.retrieve(last)
    took = time.monotonic() - asked
    assert heatbox.ended(number) < 58  # the batch was still under way
    assert took < 2
    version = heatbox.find(number).pipeline.version
    assert project.versions()[last] == [version]
    heatbox.wait(number, ended=59)
    with heatbox.runs() as runs:  # the two minutes are over in which Label Studio may be about to store it
        assert runs.postpone(project.id, version, [last], 0) == 1
    heatbox.wait(number)
    project.assert_each_once(heatbox, number)


def test_replace_removes_own_older_predictions_of_the_tasks_of_the_run_and_nobody_elses(
    heatbox, make_project
):
    project = make_project(6)
    older = heatbox.run(project, *AT_ONCE)
    heatbox.wait(older)
    for task in project.tasks:
        for name in ("my-model", "heatbox-ish"):
            body = {"task": task, "result": [region("dog")], "score": 0.5, "model_version": name}
            project.made("/api/predictions/", body)
    some = f"ids={project.tasks[0]}-{project.tasks[3]}"
    newer = heatbox.run(project, "--filter", some, "--replace", "--explainer-option", "seconds=0.001")
    heatbox.wait(newer)
    old, new = (heatbox.find(number).pipeline.version for number in (older, newer))
    assert list(project.versions().values()) == [
        sorted([version, "heatbox-ish", "my-model"]) for version in [new] * 4 + [old] * 2
    ]
    project.assert_labels_are_untouched()


def test_a_run_is_paused_and_resumed_and_cancelled_by_commands(heatbox, make_project):
    project = make_project(24)
    slowly = ("--explainer-option", "seconds=0.3")
    number = heatbox.run(project, *slowly)
    heatbox.wait(number, ended=3)
    heatbox.command("pause", number)
    with heatbox.runs() as runs:
        wait_until(lambda: not runs.open_chunks(), "the workers have given back what they held")
    rests = heatbox.ended(number)
    assert rests < 24
    assert "paused" in heatbox.command("runs", number)
    heatbox.command("resume", number)
    heatbox.wait(number, ended=rests + 1)
    heatbox.command("cancel", number)
    assert heatbox.find(number).state is RunState.CANCELLED
    heatbox.command("resume", number, code=3)
    again = heatbox.run(project, *slowly)
    heatbox.wait(again)
    assert len(heatbox.items(again, ItemState.KEPT)) >= rests
    project.assert_each_once(heatbox, again)


def test_a_label_that_is_renamed_in_mid_run_fails_the_predictions_that_carry_it(heatbox, proxy, make_project):
    project = make_project(30)

    def rename():
        config = project.api.get(f"/api/projects/{project.id}/").json()["label_config"]
        body = {"label_config": config.replace('"dog"', '"hound"')}
        assert project.api.patch(f"/api/projects/{project.id}/", json=body).is_success

    renamed = proxy.once(PUSH, "answered", rename)
    number = heatbox.run(project, "--explainer-option", "seconds=0.21")  # so there is more than one push
    assert renamed.wait(60)
    heatbox.wait(number)
    failed = {item.task: item.code for item in heatbox.items(number, ItemState.FAILED)}
    assert 0 < len(failed) < 30
    assert set(failed.values()) == {"prediction-refused"}
    project.assert_each_once(heatbox, number, failed)


def test_a_task_that_is_deleted_in_mid_run_costs_only_itself(heatbox, proxy, make_project):
    project = make_project(12)
    gone = project.tasks[-1]
    deleted = proxy.once(PUSH, "asked", lambda: project.api.delete(f"/api/tasks/{gone}/"))
    number = heatbox.run(project, *AT_ONCE)
    assert deleted.wait(60)
    heatbox.wait(number)
    project.assert_each_once(heatbox, number, {gone: "task-gone"})
