"""The view of a run: one account of it for everybody who looks."""

import time
from contextlib import closing

import pytest
from sqlalchemy import update

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.pipeline import Pipeline
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, Failed, NewItem, NewRun, RunState, items
from heatbox.runs.tables import runs as runs_table
from heatbox.runs.view import RunViews, duration, failed_items, look, speed

PIPELINE = Pipeline(model="tiny@1", explainer="cam")
PREDICTION = {"result": [{"id": "a"}, {"id": "b"}]}


@pytest.fixture
def ledger(tmp_path):
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        yield ledger


@pytest.fixture
def runs(ledger):
    return Runs(ledger)


def create(runs, count, project=None):
    new = NewRun("a title", PIPELINE, make_label_config(["cat"]), project=project)
    return runs.create(new, [NewItem(f"{n}.png", (f"/{n}.png",), task=project and n) for n in range(count)])


def settle(runs, number, done, failed=0):
    chunk = runs.take(number, done + failed)
    computed = [Computed(item.id, PREDICTION, 0.5) for item in chunk.items[:done]]
    runs.settle(
        chunk,
        [*computed, *(Failed(item.id, "picture-unreadable", "Cut off.") for item in chunk.items[done:])],
    )


def test_a_view_adds_up(runs):
    number = create(runs, 10)
    settle(runs, number, 3, 2)
    view = look(runs, number)
    assert (view.total, view.done, view.failed, view.kept, view.left, view.ended) == (10, 3, 2, 0, 5, 5)
    assert (view.errors, view.boxes, view.timed) == ({"picture-unreadable": 2}, 6, 3)
    assert (view.model, view.explainer, view.version) == ("tiny@1", "cam", PIPELINE.version)
    assert view.seconds_per_picture == 0.5


def test_a_view_is_json(runs):
    told = look(runs, create(runs, 1)).model_dump(mode="json")
    assert told["state"] == "running"
    assert told["created_at"].endswith("Z")
    assert told["ended_at"] is None


def test_what_label_studio_has_not_confirmed_is_left(runs):
    number = create(runs, 4, project=1)
    settle(runs, number, 3)
    view = look(runs, number)
    assert (view.done, view.computed, view.left) == (0, 3, 4)


def test_a_run_whose_tasks_are_not_all_known_says_so_while_it_is_open(runs):
    number = create(runs, 1, project=1)
    assert look(runs, number).reading
    runs.cancel(number)
    assert not look(runs, number).reading


def test_a_paused_run_has_no_speed_and_promises_no_time(runs):
    number = create(runs, 10)
    settle(runs, number, 5)
    assert look(runs, number).seconds_left is not None
    runs.pause(number)
    view = look(runs, number)
    assert (view.pictures_per_second, view.seconds_left, view.is_open) == (0, None, True)


def test_the_speed_of_a_run_that_has_ended_is_that_of_its_whole_time(runs, ledger):
    number = create(runs, 10)
    settle(runs, number, 8, 2)
    runs.finish(number)
    with ledger.writing() as connection:
        connection.execute(update(runs_table).values(created_at=runs_table.c.ended_at - 5))
    assert look(runs, number).pictures_per_second == 2
    assert look(runs, number).state is RunState.DONE


def test_failed_items_come_in_pages_with_their_reasons(runs):
    number = create(runs, 5)
    settle(runs, number, 1, 4)
    first = failed_items(runs, number, 3)
    assert [(item.name, item.code, item.reason) for item in first[:1]] == [
        ("1.png", "picture-unreadable", "Cut off.")
    ]
    assert [item.name for item in failed_items(runs, number, 3, first[-1].id)] == ["4.png"]


def test_the_view_of_a_run_that_has_long_ended_is_made_once(runs, ledger):
    number = create(runs, 2)
    settle(runs, number, 2)
    runs.finish(number)
    views = RunViews(runs)
    with ledger.writing() as connection:
        connection.execute(update(runs_table).values(ended_at=time.time() - 3600))
    assert views.newest(5)[0] is views.newest(5)[0]


@pytest.mark.parametrize("ended", [None, 10])
def test_the_view_of_a_run_that_may_still_change_is_made_again(runs, ledger, ended):
    number = create(runs, 2)
    views = RunViews(runs)
    with ledger.writing() as connection:
        connection.execute(update(runs_table).values(ended_at=ended and time.time() - ended))
    assert views.newest(5)[0].boxes == 0
    with ledger.writing() as connection:
        connection.execute(update(items).values(boxes=3))
    assert views.newest(5)[0].boxes == look(runs, number).boxes == 6


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3599, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (190_000, "2 d 5 h"),
        (6 * 86_400 - 900, "6 d 0 h"),
    ],
)
def test_a_time_in_words_has_at_most_two_units(seconds, words):
    assert duration(seconds) == words


def test_a_speed_in_words_says_what_is_known(runs):
    view = look(runs, create(runs, 1))
    assert speed(view) == ""
    assert speed(view.model_copy(update={"pictures_per_second": 123.4})) == "123 pictures/s"
    known = {"pictures_per_second": 12.34, "seconds_per_picture": 0.0812}
    assert speed(view.model_copy(update=known)) == "12 pictures/s, 0.081 s each"
