"""Runs in the ledger: what is asked for, taken, settled, and what of it stays whatever happens between."""

import time
from contextlib import closing

import pytest
from sqlalchemy import update

from heatbox.errors import PictureNotFoundError, RunNotFoundError, RunStateError
from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, Failed, ItemState, NewItem, NewRun, RunState, items

CONFIG = make_label_config(["cat"])
PIPELINE = Pipeline(model="tiny@1", explainer="cam", label_map=(("tabby", "cat"),))
OTHER = Pipeline(model="tiny@2")
PREDICTION = {"result": [{"id": "a"}, {"id": "b"}], "score": 0.5}


@pytest.fixture
def ledger(ledger_url):
    with closing(Ledger(ledger_url)) as ledger:
        yield ledger


@pytest.fixture
def runs(ledger):
    return Runs(ledger)


def wish(project=None, pipeline=PIPELINE, **changes):
    return NewRun("a title", pipeline, CONFIG, project=project, **changes)


def pictures(count):
    return [NewItem(f"{number}.png", (f"/{number}.png",)) for number in range(count)]


def tasks(*numbers):
    return [NewItem(f"task {number}", (f"/{number}.png",), task=number) for number in numbers]


def settle_all(runs, number, size=100):
    """Let a worker annotate whatever waits."""
    while chunk := runs.take(number, size):
        runs.settle(chunk, [Computed(item.id, PREDICTION, 0.5) for item in chunk.items])


def states(runs, number):
    return [item.state for item in runs.items(number)]


def test_a_run_is_found_as_it_was_asked_for(runs):
    asked = wish(project=3, filter={"labels": ["cat"]}, most=7, replace=True)
    found = runs.find(runs.create(asked))
    assert {name: getattr(found, name) for name in NewRun.__dataclass_fields__} == vars(asked)
    assert (found.state, found.read_all, found.cursor, found.ended_at) == (RunState.RUNNING, False, 0, None)
    assert found.config.label_names == ("cat",)


def test_a_run_over_files_is_read_from_the_start_and_a_project_is_not(runs):
    assert runs.find(runs.create(wish())).read_all
    assert not runs.find(runs.create(wish(project=1))).read_all


@pytest.mark.parametrize("act", ["find", "pause", "resume", "cancel", "retry"])
def test_a_run_that_is_not_there_is_told(runs, act):
    with pytest.raises(RunNotFoundError, match=r"There is no run 7\."):
        getattr(runs, act)(7)


def test_items_come_back_as_they_were_given_more_than_one_page_of_them(runs):
    given = [NewItem(f"{n}", (f"/{n}", f"/{n}b"), content={"id": n}) for n in range(1203)]
    number = runs.create(wish(), iter(given))
    found = list(runs.items(number))
    assert [(one.name, one.addresses, one.content) for one in found] == [
        (one.name, one.addresses, one.content) for one in given
    ]
    assert list(runs.items(number, after=found[1200].id)) == found[1201:]


def test_the_newest_runs_come_first(runs):
    numbers = [runs.create(wish()) for _ in range(3)]
    assert [run.id for run in runs.newest(2)] == numbers[:0:-1]


def test_an_item_that_cannot_be_tried_has_failed_from_the_start(runs):
    number = runs.create(wish(), [NewItem("a", code="tasks-file", reason="No picture."), *pictures(1)])
    assert states(runs, number) == [ItemState.FAILED, ItemState.WAITING]
    assert runs.counts(number).by_code == {"tasks-file": 1}


def test_what_was_taken_is_not_taken_again(runs):
    number = runs.create(wish(), pictures(5))
    taken = [[item.name for item in runs.take(number, 2).items] for _ in range(3)]
    assert taken == [["0.png", "1.png"], ["2.png", "3.png"], ["4.png"]]
    assert runs.take(number, 2) is None


def test_chunks_that_were_given_out_are_known_after_a_restart(runs, ledger_url):
    number = runs.create(wish(), pictures(5))
    given = [runs.take(number, 2), runs.take(number, 2)]
    with closing(Ledger(ledger_url)) as reopened:
        assert Runs(reopened).open_chunks() == given
    assert len({chunk.job for chunk in given}) == 2


def test_a_settled_chunk_of_files_is_done_and_counted(runs):
    number = runs.create(wish(), pictures(3))
    chunk = runs.take(number, 3)
    first, second, _ = chunk.items
    runs.settle(
        chunk, [Computed(first.id, PREDICTION, 0.5), Failed(second.id, "picture-unreadable", "Cut off.")]
    )
    assert states(runs, number) == [ItemState.DONE, ItemState.FAILED, ItemState.WAITING]
    counts = runs.counts(number)
    assert (counts.total, counts.left, counts.boxes, counts.timed) == (3, 1, 2, 1)
    assert counts.seconds_per_picture == 0.5
    assert counts.by_code == {"picture-unreadable": 1}
    assert runs.open_chunks() == []


def test_what_a_worker_gives_back_without_an_outcome_waits_again(runs):
    number = runs.create(wish(), pictures(3))
    chunk = runs.take(number, 3)
    runs.settle(chunk, [])
    assert runs.take(number, 3).items == chunk.items


def test_a_prediction_for_a_project_is_done_only_when_it_is_confirmed(runs):
    number = runs.create(wish(project=1), tasks(10, 11))
    settle_all(runs, number)
    first, second = runs.pushable(number, 5)
    assert (first.state, first.prediction) == (ItemState.COMPUTED, PREDICTION)
    runs.confirm([first.id], [Failed(second.id, "task-gone", "Deleted.")])
    assert states(runs, number) == [ItemState.DONE, ItemState.FAILED]
    assert runs.pushable(number, 5) == []


def test_an_outcome_that_comes_twice_changes_nothing(runs):
    number = runs.create(wish(), pictures(1))
    chunk = runs.take(number, 1)
    item = chunk.items[0]
    runs.settle(chunk, [Computed(item.id, PREDICTION, 0.5)])
    runs.settle(chunk, [Failed(item.id, "worker-died", "Too late.")])
    assert states(runs, number) == [ItemState.DONE]


def test_an_error_becomes_the_reason_of_an_item():
    failed = Failed.because(4, PictureNotFoundError("There is no file.", "Check it."))
    assert failed == Failed(4, "picture-not-found", "There is no file. Check it.")


def test_suspects_are_taken_alone_and_after_the_others(runs):
    number = runs.create(wish(), pictures(4))
    chunk = runs.take(number, 4)
    suspects = [item.id for item in chunk.items[:2]]
    runs.settle(chunk, [], suspects=suspects, struck=suspects[:1])
    taken = [runs.take(number, 4).items for _ in range(3)]
    assert [[item.name for item in some] for some in taken] == [["2.png", "3.png"], ["0.png"], ["1.png"]]
    assert [some[0].strikes for some in taken] == [0, 1, 0]


def test_retry_takes_the_failed_items_alone_and_opens_the_run(runs):
    number = runs.create(wish(), pictures(3))
    chunk = runs.take(number, 3)
    runs.settle(
        chunk, [Failed(chunk.items[0].id, "picture", "Bad."), Computed(chunk.items[1].id, PREDICTION, 1)]
    )
    settle_all(runs, number)
    assert runs.finish(number)
    assert runs.retry(number) == 1
    assert (runs.find(number).state, runs.find(number).ended_at) == (RunState.RUNNING, None)
    assert [item.name for item in runs.take(number, 3).items] == ["0.png"]


def test_retry_of_a_run_without_failures_leaves_it_done(runs):
    number = runs.create(wish(), pictures(1))
    settle_all(runs, number)
    runs.finish(number)
    assert runs.retry(number) == 0
    assert runs.find(number).state is RunState.DONE


def test_a_file_that_was_annotated_with_this_version_keeps_its_prediction(runs):
    known = [NewItem("a.png", ("/a.png",), fingerprint="1")]
    settle_all(runs, runs.create(wish(), known))
    again = runs.create(wish(), [*known, NewItem("b.png", ("/b.png",), fingerprint="2")])
    kept, fresh = runs.items(again)
    assert (kept.state, kept.prediction) == (ItemState.KEPT, PREDICTION)
    assert (fresh.state, fresh.prediction) == (ItemState.WAITING, None)
    assert runs.counts(again).boxes == 2


def test_another_version_keeps_nothing(runs):
    known = [NewItem("a.png", ("/a.png",), fingerprint="1")]
    settle_all(runs, runs.create(wish(), known))
    assert states(runs, runs.create(wish(pipeline=OTHER), known)) == [ItemState.WAITING]


def test_a_third_run_keeps_what_the_second_kept(runs):
    known = [NewItem("a.png", ("/a.png",), fingerprint="1")]
    settle_all(runs, runs.create(wish(), known))
    runs.create(wish(), known)
    assert states(runs, runs.create(wish(), known)) == [ItemState.KEPT]


PATHS = {
    RunState.RUNNING: (),
    RunState.PAUSED: ("pause",),
    RunState.CANCELLED: ("cancel",),
    RunState.DONE: ("finish",),
}


@pytest.mark.parametrize(
    ("state", "act", "after"),
    [
        (RunState.RUNNING, "pause", RunState.PAUSED),
        (RunState.RUNNING, "resume", RunState.RUNNING),
        (RunState.RUNNING, "cancel", RunState.CANCELLED),
        (RunState.PAUSED, "resume", RunState.RUNNING),
        (RunState.PAUSED, "cancel", RunState.CANCELLED),
        (RunState.PAUSED, "pause", None),
        (RunState.CANCELLED, "pause", None),
        (RunState.CANCELLED, "resume", None),
        (RunState.CANCELLED, "cancel", None),
        (RunState.DONE, "pause", None),
        (RunState.DONE, "resume", None),
        (RunState.DONE, "cancel", None),
    ],
)
def test_each_state_allows_what_makes_sense(runs, state, act, after):
    number = runs.create(wish())
    for step in PATHS[state]:
        getattr(runs, step)(number)
    assert runs.find(number).state is state
    if after is None:
        with pytest.raises(RunStateError, match=f"Run {number} is {state}, so it cannot be"):
            getattr(runs, act)(number)
    else:
        getattr(runs, act)(number)
    assert runs.find(number).state is (after or state)


def test_the_failed_items_of_a_cancelled_run_are_not_tried_again(runs):
    number = runs.create(wish(), [NewItem("a", ("/a",), code="picture", reason="Bad.")])
    runs.cancel(number)
    with pytest.raises(RunStateError):
        runs.retry(number)
    assert states(runs, number) == [ItemState.FAILED]


def test_a_cancelled_run_has_ended_and_a_resumed_one_has_not(runs):
    first, second = runs.create(wish()), runs.create(wish())
    runs.cancel(first)
    runs.pause(second)
    runs.resume(second)
    assert runs.find(first).ended_at == pytest.approx(time.time(), abs=60)
    assert runs.find(second).ended_at is None


def test_a_project_is_read_page_by_page_and_goes_on_from_its_cursor(runs):
    number = runs.create(wish(project=1))
    runs.add_read(number, tasks(10, 11), 11, read_all=False)
    runs.add_read(number, [NewItem("task 12", task=12, kept=True)], 12, read_all=True)
    assert (runs.find(number).cursor, runs.find(number).read_all) == (12, True)
    assert states(runs, number) == [ItemState.WAITING, ItemState.WAITING, ItemState.KEPT]


@pytest.mark.parametrize(("read_all", "settled"), [(False, True), (True, False)])
def test_a_run_with_something_open_is_not_done(runs, read_all, settled):
    number = runs.create(wish(project=1))
    runs.add_read(number, tasks(10), 10, read_all=read_all)
    if settled:
        settle_all(runs, number)
        runs.confirm([item.id for item in runs.pushable(number, 9)])
    assert not runs.finish(number)
    assert runs.find(number).state is RunState.RUNNING


def test_trouble_is_noted_while_a_run_goes_on_and_a_person_is_waited_for(runs):
    number = runs.create(wish())
    runs.trouble(number, "Redis is away.")
    assert (runs.find(number).note, runs.find(number).state) == ("Redis is away.", RunState.RUNNING)
    runs.trouble(number, "The token is wrong.", pause=True)
    assert (runs.find(number).note, runs.find(number).state) == ("The token is wrong.", RunState.PAUSED)
    runs.resume(number)
    assert runs.find(number).note == ""


def test_trouble_does_not_wake_a_run_that_has_ended(runs):
    number = runs.create(wish())
    runs.cancel(number)
    runs.trouble(number, "Redis is away.", pause=True)
    assert (runs.find(number).state, runs.find(number).note) == (RunState.CANCELLED, "")


def late(project=1, pipeline=PIPELINE):
    return wish(project=project, pipeline=pipeline, late=True)


def test_late_answers_of_a_project_and_version_share_one_run(runs):
    number = runs.add_late(late(), tasks(10))
    assert runs.add_late(late(), tasks(10, 11)) == number
    assert [item.task for item in runs.items(number)] == [10, 11]
    assert runs.add_late(late(project=2), tasks(10)) != number
    assert runs.add_late(late(pipeline=OTHER), tasks(10)) != number


def test_a_late_task_that_is_asked_for_again_is_taken_up_again_and_one_that_is_open_is_left(runs):
    number = runs.add_late(late(), tasks(10, 11))
    chunk = runs.take(number, 1)
    runs.settle(chunk, [Failed(chunk.items[0].id, "picture", "Bad.")])
    held = runs.take(number, 1)
    runs.add_late(late(), tasks(10, 11))
    assert [item.task for item in runs.take(number, 9).items] == [10]
    assert runs.open_chunks()[0] == held


def test_late_answers_open_a_run_that_was_done_but_not_one_that_was_cancelled(runs):
    number = runs.add_late(late(), tasks(10))
    settle_all(runs, number)
    runs.confirm([item.id for item in runs.pushable(number, 9)])
    assert runs.finish(number)
    assert runs.add_late(late(), tasks(11)) == number
    assert runs.find(number).state is RunState.RUNNING
    runs.cancel(number)
    assert runs.add_late(late(), tasks(12)) != number


def test_postponed_tasks_are_neither_taken_nor_written_until_they_are_due(runs, ledger):
    number = runs.create(wish(project=1), tasks(10, 11, 12))
    chunk = runs.take(number, 1)
    runs.settle(chunk, [Computed(chunk.items[0].id, PREDICTION, 0.1)])
    assert runs.postpone(1, PIPELINE.version, [10, 11], 3600) == 2
    assert runs.pushable(number, 9) == []
    assert [item.task for item in runs.take(number, 9).items] == [12]
    with ledger.writing() as connection:
        connection.execute(update(items).values(due_at=time.time()))
    assert [item.task for item in runs.pushable(number, 9)] == [10]
    assert [item.task for item in runs.take(number, 9).items] == [11]


@pytest.mark.parametrize(("project", "version"), [(2, PIPELINE.version), (1, OTHER.version)])
def test_tasks_of_another_project_or_version_are_not_postponed(runs, project, version):
    runs.create(wish(project=1), tasks(10))
    assert runs.postpone(project, version, [10], 3600) == 0


def test_runs_of_a_state_are_found_the_oldest_first(runs):
    first, second, third = (runs.create(wish()) for _ in range(3))
    runs.pause(second)
    assert [run.id for run in runs.with_state(RunState.RUNNING)] == [first, third]


def test_the_speed_is_that_of_the_last_minute(runs, ledger):
    number = runs.create(wish(), pictures(30))
    settle_all(runs, number, 20)
    with ledger.writing() as connection:
        connection.execute(update(items).where(items.c.name < "2").values(changed_at=time.time() - 30))
        connection.execute(update(items).where(items.c.name == "0.png").values(changed_at=time.time() - 90))
    counts = runs.counts(number)
    assert counts.per_second == pytest.approx(29 / 30, rel=0.1)
    assert counts.seconds_left is None


def test_the_time_left_follows_from_the_speed(runs, ledger):
    number = runs.create(wish(), pictures(30))
    runs.settle(chunk := runs.take(number, 10), [Computed(one.id, PREDICTION, 0.1) for one in chunk.items])
    with ledger.writing() as connection:
        connection.execute(update(items).values(changed_at=time.time() - 10))
    assert runs.counts(number).seconds_left == pytest.approx(20, rel=0.1)


def test_texts_that_no_database_takes_are_written_readably(runs):
    number = runs.create(wish(), [NewItem("a\udcff\0.png", ("/a\udcff.png",))])
    chunk = runs.take(number, 1)
    assert chunk.addresses == ("/a\udcff.png",)
    runs.settle(chunk, [Failed(chunk.items[0].id, "plugin-broken", "it said \0")])
    (item,) = runs.items(number)
    assert (item.name, item.reason) == ("a??.png", "it said ?")
