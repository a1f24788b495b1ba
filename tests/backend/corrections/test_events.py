"""Events let corrections be pulled: which ones, once for several, and what is said where it fails."""

import logging
import time
from contextlib import closing, contextmanager

import pytest
from fixtures_corrections import annotated, listing
from fixtures_redis import wait_until

from heatbox.corrections.records import Corrections
from heatbox.ledger import Ledger
from heatbox.service.corrections import Pulls
from heatbox.settings import Settings

PROJECT = 7


def event(action="ANNOTATION_CREATED", project=PROJECT):
    return {"action": action, "project": {"id": project, "token": "s3cret"}, "annotation": {"id": 1}}


@contextmanager
def pulling(server, folder, **options):
    """Let a thread pull from a small Label Studio; yield it with what the ledger has."""
    settings = Settings(home=folder, studio_url=server.url, studio_api_key="token")
    with closing(Ledger(settings.ledger_url)) as ledger:
        pulls = Pulls(settings, ledger, **{"delay": 0.05, "retry": 0.05} | options)
        pulls.start()
        try:
            yield pulls, lambda: Corrections(ledger).annotations(server.url, PROJECT)
        finally:
            pulls.stop()


@pytest.fixture
def server():
    with listing() as server:
        server.put(1, [annotated(number=1)])
        yield server


@pytest.mark.parametrize(
    "action",
    [
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATIONS_DELETED",
        "TASKS_DELETED",
    ],
)
def test_an_event_about_annotations_causes_a_pull(server, tmp_path, action):
    with pulling(server, tmp_path) as (pulls, there):
        assert pulls.note(event(action))
        wait_until(there, "the annotation is in the ledger")


@pytest.mark.parametrize(
    "other",
    [
        event("TASKS_CREATED"),
        event("START_TRAINING"),
        event({"a": 1}),
        event(project="7"),
        event(project=True),
        event(project=-1),
        event(project=10**20),
        {"action": "ANNOTATION_CREATED", "project": 7},
        {},
    ],
)
def test_other_events_cause_none(server, tmp_path, other):
    with pulling(server, tmp_path, delay=0) as (pulls, there):
        assert not pulls.note(other)
        assert not there()
    assert not server.seen


def test_nothing_is_pulled_where_no_label_studio_is_named(tmp_path):
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        assert not Pulls(Settings(home=tmp_path, studio_url="http://studio.example"), ledger).note(event())


def test_many_events_cause_one_pull(server, tmp_path):
    with pulling(server, tmp_path, delay=0.3) as (pulls, there):
        started = time.monotonic()
        for _ in range(500):
            pulls.note(event())
        assert time.monotonic() - started < 0.3
        wait_until(there, "the annotation is in the ledger")
    assert sum(one.startswith("/api/projects/") for one in server.seen) == 1


def test_a_deleted_task_is_noticed_after_its_event(server, tmp_path):
    with pulling(server, tmp_path) as (pulls, there):
        pulls.note(event())
        wait_until(there, "the annotation is in the ledger")
        server.tasks.clear()
        pulls.note(event("TASKS_DELETED"))
        wait_until(lambda: there()[0].deleted_at, "its end is in the ledger")


def test_a_failure_is_told_once_and_tried_again_later(server, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "heatbox.service.corrections")
    server.broken = True
    with pulling(server, tmp_path) as (pulls, there):
        pulls.note(event())
        wait_until(lambda: len(server.seen) >= 3, "it was tried three times")
        server.broken = False
        wait_until(there, "the annotation is in the ledger")
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert "corrections of project 7 were not pulled: GET" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_project_that_is_gone_is_not_asked_for_again(server, tmp_path, caplog):
    server.broken = 404
    with pulling(server, tmp_path) as (pulls, _):
        pulls.note(event())
        wait_until(lambda: caplog.records, "it was told")
        assert not pulls._wishes  # noqa: SLF001 - what is still to be tried
    assert len(server.seen) == 1


def test_projects_that_wait_are_limited(server, tmp_path):
    with pulling(server, tmp_path, delay=60) as (pulls, _):
        taken = [pulls.note(event(project=number)) for number in range(1, 1200)]
    assert sum(taken) == 1000
