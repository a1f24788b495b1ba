"""`heatbox run` as a person meets it: real processes, no Redis, the work done by the command itself."""

import json
import os
import signal
import subprocess
import sys

import pytest
from fixtures_redis import wait_until

from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock
from heatbox.runs.records import Runs
from heatbox.runs.tables import ItemState, RunState

TORCH_FREE = """
import sys
sys.argv = ["heatbox", *sys.argv[1:]]
from heatbox.cli import main
try:
    main()
finally:
    print("with torch" if "torch" in sys.modules else "without torch", file=sys.stderr)
"""


@pytest.fixture
def environment(home, tiny_store):
    """Variables with the store of the tiny model, whose every class is explained."""
    own = {
        "HEATBOX_STORE": tiny_store,
        "HEATBOX_MODEL": "tiny",
        "HEATBOX_MIN_PROBABILITY": 0,
        "HEATBOX_THREADS": 1,
    }
    return {**os.environ, "HEATBOX_HOME": str(home), **{name: str(value) for name, value in own.items()}}


@pytest.fixture
def heatbox(environment, tmp_path):
    """Run a command in an empty folder."""

    def heatbox(*arguments, start=("-m", "heatbox"), **variables):
        answer = subprocess.run(
            [sys.executable, *start, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**environment, **{name: str(value) for name, value in variables.items()}},
            cwd=tmp_path,
            check=False,
        )
        assert "Traceback" not in answer.stderr + answer.stdout, answer.stderr
        return answer

    return heatbox


@pytest.fixture
def begin(environment, tmp_path):
    """Start a command and let it run."""
    started = []

    def begin(*arguments):
        command = [sys.executable, "-m", "heatbox", *map(str, arguments)]
        started.append(subprocess.Popen(command, env=environment, cwd=tmp_path))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ledger(home):
    ledger = Ledger(f"sqlite:///{home}/ledger.sqlite")
    yield ledger
    ledger.close()


def read(file, object_hook=None):
    return [json.loads(line, object_hook=object_hook) for line in file.read_text().splitlines()]


def without_scores(value):
    """Leave out what differs in its last digits, because other pictures were computed beside this one."""
    return {key: one for key, one in value.items() if key not in {"score", "text"}}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Give one of PATHs"),
        (["a.png", "--project", 3], "Give one of PATHs"),
        (["--project", 3, "--out", "a.jsonl"], "--out goes with PATHs only"),
        (["--project", 3, "--label", "cat"], "--label goes with PATHs only"),
        (["a.png", "--filter", "unlabelled"], "--filter goes with --project only"),
        (["a.png", "--replace"], "--replace goes with --project only"),
        (["a.png", "--limit", 0], "--limit"),
    ],
)
def test_a_wrong_usage_ends_with_2_and_says_what_is_wrong(heatbox, home, arguments, reason):
    answer = heatbox("run", *arguments)
    assert answer.returncode == 2
    assert reason in answer.stderr
    assert not home.exists()


def test_files_are_annotated_as_by_annotate_and_one_bad_one_is_exit_code_1(heatbox, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    asked = (pictures, tmp_path / "bad.png", "--document-root", tmp_path.parents[1])
    answer = heatbox("run", *asked, "--out", "out.jsonl")
    assert answer.returncode == 1, answer.stderr
    assert "12 annotated, 0 left as they were, 1 failed" in answer.stdout
    assert heatbox("annotate", *asked, "--min-probability", 0, "--out", "tasks.json").returncode == 1
    *lines, wrong = read(tmp_path / "out.jsonl", without_scores)
    assert wrong["error"]["code"] == "picture-unreadable"
    assert lines == json.loads((tmp_path / "tasks.json").read_text(), object_hook=without_scores)
    assert (tmp_path / "out.config.xml").read_text() == (tmp_path / "tasks.config.xml").read_text()


def test_a_second_run_of_the_same_version_computes_nothing_and_writes_the_same(heatbox, pictures, tmp_path):
    assert heatbox("run", pictures, "--out", "a.jsonl").returncode == 0
    again = heatbox("run", pictures, "--out", "b.jsonl")
    assert "12 have a prediction of this version" in again.stdout
    assert "0 annotated, 12 left as they were, 0 failed" in again.stdout
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_dry_run_says_everything_and_writes_nothing(heatbox, pictures, tmp_path, ledger):
    answer = heatbox("run", pictures, "--label", "CAT", "--limit", 5, "--dry-run")
    assert answer.returncode == 0
    for told in ("heatbox-fused_cam-tiny-", "CAT: cat", "12, 5 are taken", "Nothing was written"):
        assert told in answer.stdout
    assert Runs(ledger).newest() == []
    assert not (tmp_path / "heatbox.jsonl").exists()


def test_starting_a_run_loads_no_torch(heatbox, pictures):
    answer = heatbox("run", pictures, "--dry-run", start=("-c", TORCH_FREE))
    assert answer.stderr.splitlines()[-1] == "without torch"


def test_where_a_service_conducts_the_run_is_left_to_it(heatbox, pictures, ledger, home):
    with LedgerLock(ledger, home, of_services=True) as lock:
        assert lock.take()
        refused = heatbox("run", pictures)
        assert refused.returncode == 3
        assert "address-refused" in refused.stderr
        answer = heatbox("run", pictures, "--root", pictures)
    assert answer.returncode == 0
    assert "heatbox runs 1" in answer.stdout
    (run,) = Runs(ledger).newest()
    assert run.state is RunState.RUNNING
    assert Runs(ledger).counts(run.id).left == 12


def test_a_run_that_was_killed_or_stopped_goes_on_where_it_was(heatbox, begin, pictures, ledger, tmp_path):
    runs = Runs(ledger)
    explainer = ("--explainer", "rise", "--explainer-option", "masks=1500")
    killed = begin("run", pictures, "--limit", 8, *explainer, "--out", "out.jsonl")
    wait_until(lambda: predictions(runs), "a picture is done")
    killed.kill()
    killed.wait()
    done, held = predictions(runs), {chunk.id for chunk in runs.open_chunks()}
    stopped = begin("resume", 1)
    wait_until(lambda: {chunk.id for chunk in runs.open_chunks()} - held, "the run goes on")
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(60) == 130
    assert runs.open_chunks() == []
    assert not (tmp_path / "out.jsonl").exists()
    assert heatbox("resume", 1).returncode == 0
    assert len(read(tmp_path / "out.jsonl")) == len(predictions(runs)) == 8
    assert done.items() <= predictions(runs).items()


def predictions(runs):
    """Return what the first run has by item."""
    return {item.id: item.prediction for item in runs.items(1, (ItemState.DONE,))}


def test_the_results_so_far_can_be_had(heatbox, pictures, tmp_path):
    assert heatbox("run", pictures, "--limit", 3).returncode == 0
    answer = heatbox("runs", 1, "--out", "again.jsonl")
    assert answer.returncode == 0
    assert "again.jsonl: 3 lines." in answer.stderr
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "heatbox.jsonl").read_bytes()
