"""Trainings through real queues, workers and processes, with an engine that only counts epochs.

What is learnt is the business of tests/workers/training; here it is what happens when something is killed.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures_redis import is_alive, wait_until

from heatbox.ledger import Ledger
from heatbox.processes import stop
from heatbox.queueing.queues import CHILD_DEATHS, TRAIN, connect, listening_workers
from heatbox.settings import as_environment
from heatbox.trainings.moving import make_trainer, move
from heatbox.trainings.order import TrainingOptions, TrainingOrder
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import NewTraining, TrainingState

ENGINE = '''
"""Counts epochs of a twentieth of a second from the folder's checkpoint; the order's name says what goes wrong."""
import os, signal, sys, time, types

def run_training(order, settings, folder, tell):
    from heatbox.errors import ModelInvalidError
    checkpoint = folder / "epoch"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    with (folder / "history").open("a") as history:
        history.write(f"{done} {os.nice(0)} {os.getpid()}\\n")
    tell({"stage": "reading", "done": 1, "total": 1})
    for epoch in range(done + 1, order.options.epochs + 1):
        time.sleep(0.05)
        if order.name == "dies" and epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if order.name == "defect":
            raise ZeroDivisionError("by design")
        if order.name == "fails":
            raise ModelInvalidError("The loss is no longer a finite number.", "Train with a lower learning rate.")
        incoming = folder / "epoch.incoming"
        incoming.write_text(str(epoch))
        incoming.replace(checkpoint)
        tell({"stage": "training", "epoch": epoch, "epochs": order.options.epochs, "loss": 1 / epoch})
    comparison = {"challenger": {"accuracy": 0.9}, "champion": {"accuracy": 0.8}}
    return {"model": f"{order.name}@{order.options.epochs}", "better": order.name != "worse", "comparison": comparison,
            "pictures": {"train": 3}, "rejected": [], "states": [], "seconds": {}}

engine = types.ModuleType("heatbox_workers.training")
engine.run_training = run_training
sys.modules["heatbox_workers.training"] = engine
'''


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A folder for PYTHONPATH whose engine takes the place of the real one."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "sitecustomize.py").write_text(ENGINE)
    return folder


@pytest.fixture
def environment(engine, monkeypatch):
    found = os.pathsep.join(filter(None, [str(engine), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", found)
    return os.environ


@pytest.fixture
def trainings(settings):
    ledger = Ledger(settings.ledger_url)
    ledger.activate("tiny@1")
    yield Trainings(ledger)
    ledger.close()


@pytest.fixture
def ask(trainings):
    """Ask for a training of so many epochs and return its number."""

    def ask(epochs=5, name="tiny"):
        order = TrainingOrder("tiny@1", name, champion="tiny@1", options=TrainingOptions(epochs=epochs))
        new = NewTraining(name, order=order.as_dict(), base="tiny@1", champion="tiny@1")
        return trainings.create(new)[0]

    return ask


@pytest.fixture
def start_worker(settings, environment):
    """Start real workers for trainings."""
    started = []

    def start():
        command = [sys.executable, "-m", "heatbox", "work", "--queue", "train"]
        worker = subprocess.Popen(command, env={**environment, **as_environment(settings)})
        started.append(worker)
        with connect(settings.redis_url) as connection:
            wait_until(lambda: listening_workers(connection, TRAIN) >= 1, "the worker listens")
        return worker

    yield start
    for worker in started:
        stop(worker, 10)


@contextmanager
def moving(settings, trainings, environment, count=1):
    """Move trainings on in threads, as a service and a command would."""
    over = threading.Event()
    made = [make_trainer(settings, trainings.ledger, environment) for _ in range(count)]
    threads = [threading.Thread(target=move, args=(trainer, over.is_set)) for trainer in made]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread, trainer in zip(threads, made, strict=True):
            thread.join()
            trainer.close()


@pytest.fixture
def moved(settings, trainings, environment):
    with moving(settings, trainings, environment):
        yield


def ended(trainings, number, state=TrainingState.DONE):
    wait_until(lambda: not trainings.find(number).is_open, f"training {number} ends", 60)
    found = trainings.find(number)
    assert found.state is state, found
    return found


def epoch(trainings, number):
    return trainings.find(number).progress.get("epoch", 0)


def begun(settings, training):
    """Return the epochs, the niceness and the process with which the training was begun each time."""
    text = (settings.home / "trainings" / training.folder / "history").read_text()
    return [tuple(map(int, line.split())) for line in text.splitlines()]


@pytest.mark.usefixtures("moved")
def test_a_training_is_done_by_a_worker_and_the_better_model_is_active(
    settings, trainings, ask, start_worker
):
    worker = start_worker()
    assert not Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(), (
        "no process before there is a training"
    )
    found = ended(trainings, ask())
    assert trainings.ledger.active_model() == found.challenger == "tiny@5"
    assert found.progress["epoch"] == 5
    assert found.started_at is not None
    ((_, nice, pid),) = begun(settings, found)
    assert nice >= 10
    wait_until(lambda: not is_alive(pid), "its process is gone")


@pytest.mark.usefixtures("moved")
def test_a_worse_challenger_is_kept_and_does_not_serve(trainings, ask, start_worker):
    start_worker()
    found = ended(trainings, ask(2, "worse"))
    assert (found.activated, found.challenger) == (False, "worse@2")
    assert "not better than tiny@1 (accuracy 0.900 against 0.800)" in found.reason
    assert trainings.ledger.active_model() == "tiny@1"


@pytest.mark.usefixtures("moved")
def test_a_killed_process_goes_on_from_its_checkpoint(settings, trainings, ask, start_worker):
    start_worker()
    number = ask(30)
    wait_until(lambda: epoch(trainings, number) >= 5, "it is in the middle")
    os.kill(begun(settings, trainings.find(number))[0][2], signal.SIGKILL)
    found = ended(trainings, number)
    first, second = begun(settings, found)
    assert first[0] == 0
    assert second[0] >= 5
    with connect(settings.redis_url) as connection:
        assert connection.hgetall(CHILD_DEATHS) == {b"-9": b"1"}


@pytest.mark.usefixtures("moved")
def test_a_killed_worker_and_an_emptied_redis_cost_nothing_but_time(settings, trainings, ask, start_worker):
    worker = start_worker()
    number = ask(40)
    wait_until(lambda: epoch(trainings, number) >= 3, "it is in the middle")
    with connect(settings.redis_url) as connection:
        connection.flushall()
    wait_until(lambda: epoch(trainings, number) >= 8, "it goes on")
    worker.kill()
    start_worker()
    found = ended(trainings, number)
    assert found.challenger == "tiny@40"
    starts = [done for done, _, _ in begun(settings, found)]
    assert starts == sorted(starts)
    assert starts[1] >= 8


@pytest.mark.usefixtures("moved")
def test_a_worker_that_is_told_to_stop_hands_its_training_to_the_next(settings, trainings, ask, start_worker):
    worker = start_worker()
    number = ask(30)
    wait_until(lambda: epoch(trainings, number) >= 3, "it is in the middle")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    start_worker()
    found = ended(trainings, number)
    assert found.strikes == 0
    assert begun(settings, found)[1][0] >= 3


@pytest.mark.usefixtures("moved")
def test_a_process_that_dies_each_time_fails_after_three(settings, trainings, ask, start_worker):
    start_worker()
    found = ended(trainings, ask(5, "dies"), TrainingState.FAILED)
    assert found.code == "worker-died"
    assert "signal 9" in found.sentence
    assert len(begun(settings, found)) == 3


@pytest.mark.usefixtures("moved")
def test_an_error_ends_it_at_once_with_code_and_remedy(settings, trainings, ask, start_worker):
    start_worker()
    for name, code in [("fails", "model-invalid"), ("defect", "internal")]:
        found = ended(trainings, ask(5, name), TrainingState.FAILED)
        assert (found.code, len(begun(settings, found))) == (code, 1)
        assert found.remedy


@pytest.mark.usefixtures("moved")
def test_a_cancelled_training_ends_within_seconds(settings, trainings, ask, start_worker):
    start_worker()
    number = ask(1000)
    wait_until(lambda: epoch(trainings, number) >= 2, "it is in the middle")
    pid = begun(settings, trainings.find(number))[0][2]
    trainings.cancel(number)
    wait_until(lambda: not is_alive(pid), "its process is gone", 8)
    assert trainings.find(number).state is TrainingState.CANCELLED


def test_two_who_move_at_once_do_it_once(settings, trainings, environment, ask, start_worker):
    start_worker()
    with moving(settings, trainings, environment, count=2):
        found = ended(trainings, ask(20))
    assert len(begun(settings, found)) == 1
    assert trainings.find(found.id).serial == 0


@pytest.mark.usefixtures("moved")
def test_where_nobody_listens_it_is_told_what_to_start(trainings, ask):
    number = ask()
    wait_until(lambda: "heatbox work --queue train" in trainings.find(number).note, "it is told")
    assert trainings.find(number).state is TrainingState.QUEUED


@pytest.fixture
def alone(settings):
    """Settings without a Redis."""
    return settings.model_copy(update={"redis_url": ""})


def command(settings, environment, *arguments):
    variables = {name: value for name, value in environment.items() if not name.startswith("HEATBOX_")}
    return subprocess.Popen(
        [sys.executable, "-m", "heatbox", *arguments],
        env={**variables, **as_environment(settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_redis_a_killed_command_is_taken_up_by_the_next(alone, trainings, environment, ask):
    number = ask(25)
    first = command(alone, environment, "train", "--resume", str(number))
    wait_until(lambda: epoch(trainings, number) >= 4, "it is in the middle")
    pid = begun(alone, trainings.find(number))[0][2]
    first.kill()
    first.communicate()
    wait_until(lambda: not is_alive(pid), "its process ends with it")
    assert trainings.find(number).state is TrainingState.RUNNING
    second = command(alone, environment, "train", "--resume", str(number), "--json")
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert json.loads(output)["challenger"] == "tiny@25"
    assert begun(alone, trainings.find(number))[1][0] >= 4


def test_two_commands_without_redis_train_one_after_the_other(alone, trainings, environment, ask):
    number = ask(15)
    both = [command(alone, environment, "train", "--resume", str(number)) for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
    found = ended(trainings, number)
    assert [done for done, _, _ in begun(alone, found)] in ([0], [0, 15])
    assert trainings.ledger.active_model() == "tiny@15"


def test_ctrl_c_leaves_it_and_says_how_to_go_on(alone, trainings, environment, ask):
    number = ask(1000)
    process = command(alone, environment, "train", "--resume", str(number))
    wait_until(lambda: epoch(trainings, number) >= 2, "it is in the middle")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"heatbox train --resume {number}" in errors
    assert trainings.find(number).is_open
