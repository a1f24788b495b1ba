"""`heatbox runs` and its neighbours as a person meets them: real processes on a real ledger."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock
from heatbox.pipeline import Pipeline
from heatbox.runs.records import Runs
from heatbox.runs.tables import Computed, Failed, NewItem, NewRun, RunState

TITLE = "receipts [red]of[/] March"


def command(*arguments):
    return [sys.executable, "-m", "heatbox", *map(str, arguments)]


def heatbox(*arguments):
    answer = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in answer.stderr + answer.stdout, answer.stderr
    return answer


@pytest.fixture
def runs(home):
    with closing(Ledger(f"sqlite:///{home / 'ledger.sqlite'}")) as ledger:
        yield Runs(ledger)


@pytest.fixture
def run(runs):
    """A run over files: 2 pictures are done, 8 have failed, 1 is left."""
    new = NewRun(TITLE, Pipeline(model="tiny@1"), make_label_config(["cat"]))
    number = runs.create(new, [NewItem(f"{n}.png", (f"/{n}.png",)) for n in range(11)])
    chunk = runs.take(number, 10)
    done = [Computed(item.id, {"result": [1]}, 0.25) for item in chunk.items[:2]]
    failed = [
        Failed(item.id, "picture-unreadable", f"{item.name} is [b]cut[/b] off.") for item in chunk.items[2:]
    ]
    runs.settle(chunk, [*done, *failed])
    return number


def finish(runs, number):
    chunk = runs.take(number, 1)
    runs.settle(chunk, [Computed(chunk.items[0].id, {"result": []}, 0.25)])
    assert runs.finish(number)


@pytest.mark.usefixtures("home")
def test_without_a_run_it_says_how_to_start_one():
    answer = heatbox("runs")
    assert (answer.returncode, answer.stdout) == (0, "No run yet. Start one: heatbox run PICTURES\n")


def test_runs_are_listed_with_their_numbers(run):
    row = next(line for line in heatbox("runs").stdout.splitlines() if TITLE in line)
    assert [cell.strip() for cell in row.split("│")[1:7]] == [str(run), "running", TITLE, "2", "8", "1"]


def test_a_run_is_shown_with_its_errors_and_first_failures(runs, run):
    runs.trouble(run, "Redis does [not] answer.")
    answer = heatbox("runs", run)
    assert answer.returncode == 0
    for told in (
        TITLE,
        "2 done, 8 failed, 1 left of 11",
        "0.25 s each",
        "picture-unreadable 8",
        "Redis does [not] answer.",
        "2.png is [b]cut[/b] off.",
        f"3 more: heatbox runs {run} --failed",
    ):
        assert told in answer.stdout
    assert "7.png" not in answer.stdout


def test_all_failures_are_listed_where_they_are_asked_for(run):
    told = heatbox("runs", run, "--failed").stdout
    assert all(f"{n}.png is" in told for n in range(2, 10))
    assert "more:" not in told


def test_json_holds_the_same(run):
    (listed,) = json.loads(heatbox("runs", "--json").stdout)
    told = json.loads(heatbox("runs", run, "--failed", "--json").stdout)
    assert (listed["id"], listed["title"], listed["failed"]) == (run, TITLE, 8)
    assert told["errors"] == {"picture-unreadable": 8}
    assert [item["name"] for item in told["failures"]] == [f"{n}.png" for n in range(2, 10)]


def test_pause_resume_and_cancel_steer_a_run_that_a_service_works_on(home, runs, run):
    with (
        closing(Ledger(f"sqlite:///{home / 'ledger.sqlite'}")) as ledger,
        LedgerLock(ledger, home, of_services=True) as lock,
    ):
        assert lock.take()
        for name, state in (
            ("pause", RunState.PAUSED),
            ("resume", RunState.RUNNING),
            ("cancel", RunState.CANCELLED),
        ):
            assert heatbox(name, run).returncode == 0
            assert runs.find(run).state is state


def test_a_run_that_cannot_go_on_ends_the_command_that_works_on_it_and_says_why(runs, run):
    answer = heatbox("resume", run)
    assert answer.returncode == 3
    assert f"Run {run} is paused. model-not-found: " in answer.stderr
    assert runs.find(run).state is RunState.PAUSED


@pytest.mark.parametrize("name", ["pause", "resume", "retry"])
def test_what_a_cancelled_run_does_not_allow_is_told(runs, run, name):
    runs.cancel(run)
    answer = heatbox(name, run)
    assert answer.returncode == 3
    assert f"error run-state: Run {run} is cancelled" in answer.stderr


@pytest.mark.parametrize("arguments", [["runs", 99], ["runs", 99, "--follow"], ["pause", 99], ["retry", 99]])
@pytest.mark.usefixtures("home")
def test_a_run_that_is_not_there_is_told(arguments):
    answer = heatbox(*arguments)
    assert (answer.returncode, answer.stdout) == (3, "")
    assert "error run-not-found: There is no run 99." in answer.stderr


@pytest.mark.parametrize(
    "arguments", [["runs", "--follow"], ["runs", "--failed"], ["runs", "x"], ["runs", 0]]
)
def test_wrong_usage_is_told(home, arguments):
    assert heatbox(*arguments).returncode == 2
    assert not home.exists()


def test_retry_says_how_many_are_tried_again(run):
    assert f"8 failed items of run {run} are tried again." in heatbox("retry", run).stdout
    assert f"Nothing of run {run} failed." in heatbox("retry", run).stdout


def test_following_ends_with_the_run_and_tells_a_script_that_items_failed(runs, run):
    process = subprocess.Popen(
        command("runs", run, "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert f"No service works on run {run} now. It goes on with: heatbox resume" in process.stderr.readline()
    assert process.stderr.readline().startswith(f"run {run} running: 10 of 11, 8 failed")
    finish(runs, run)
    told, lines = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"run {run} done: 11 of 11" in lines
    assert "3 done, 8 failed, 0 left of 11" in told


def test_following_a_run_without_failures_ends_with_0(runs):
    new = NewRun("t", Pipeline(model="tiny@1"), make_label_config(["cat"]))
    number = runs.create(new, [NewItem("a", ("/a",))])
    finish(runs, number)
    assert heatbox("runs", number, "--follow").returncode == 0


def hear_interrupts():
    """Undo what a shell does to programs that it starts in the background: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_only_stops_looking(runs, run):
    process = subprocess.Popen(
        command("runs", run, "--follow"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - this process has no other threads
    )
    for _ in range(2):  # that nobody works on it, and how far it is
        process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, lines = process.communicate(timeout=60)
    assert process.returncode == 130
    assert lines == f"Stopped looking at run {run}. heatbox runs {run} --follow\n"
    assert runs.find(run).state is RunState.RUNNING


def test_on_a_terminal_a_bar_moves(runs, run):
    terminal, side = os.openpty()
    process = subprocess.Popen(
        command("runs", run, "--follow"),
        stdout=subprocess.DEVNULL,
        stderr=side,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(side)
    shown = b""
    while b"10 of 11" not in shown:
        shown += os.read(terminal, 4096)
    finish(runs, run)
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(terminal)
    assert process.wait(60) == 1
    assert "━" in shown.decode()
