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
from functools import partial
from pathlib import Path

import pytest
from fixtures_redis import is_alive, wait_until

from heatbox.ledger import Ledger
from heatbox.models import ModelStore
from heatbox.processes import stop
from heatbox.queueing.queues import CHILD_DEATHS, TRAIN, connect, listening_pids
from heatbox.queueing.redis_server import private_redis
from heatbox.settings import Settings, as_environment
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
        if order.name == "full":
            raise OSError(28, "No space left on device")
        if order.name == "defect":
            raise ZeroDivisionError("by design")
        if order.name == "fails":
            raise ModelInvalidError("The loss is no longer a finite number.", "Train with a lower learning rate.")
        incoming = folder / "epoch.incoming"
        incoming.write_text(str(epoch))
        incoming.replace(checkpoint)
        tell({"stage": "training", "epoch": epoch, "epochs": order.options.epochs, "loss": 1 / epoch})
    comparison = {"challenger": {"accuracy": 0.9}, "champion": {"accuracy": 0.8}}
    return {"model": register(order, settings), "better": order.name != "worse", "comparison": comparison,
            "pictures": {"train": 3}, "rejected": [], "states": [], "seconds": {}}

def register(order, settings):
    """Register what nobody can load and return its id: the same for the same number of epochs."""
    from heatbox.models import WEIGHTS, make_card
    from heatbox.remote_store import open_store
    store = open_store(settings)
    about = {"labels": ("a", "b"), "input_size": 64, "trained_from": "tiny@1"}
    card = make_card(name=order.name, architecture="heatbox/tiny", **about)
    if order.name == "elsewhere":
        return "elsewhere@1"
    with store.incoming() as folder:
        (folder / WEIGHTS).write_text(str(order.options.epochs))
        return store.publish(folder, card).id

engine = types.ModuleType("heatbox_workers.training")
engine.run_training = run_training
sys.modules["heatbox_workers.training"] = engine
'''


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of processes whose engine is this one."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "sitecustomize.py").write_text(ENGINE)
    found = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": found}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a home with a Redis, for all tests of this file."""
    home = tmp_path_factory.mktemp("trainings")
    with private_redis(home) as redis:
        yield Settings(home=home, redis_url=redis.url, threads=1)


@pytest.fixture(scope="module")
def trainings(settings):
    ledger = Ledger(settings.ledger_url)
    yield Trainings(ledger)
    ledger.close()


def wish(trainings, epochs=5, name="tiny"):
    """Ask for a training of so many epochs and return its number."""
    order = TrainingOrder("tiny@1", name, champion="tiny@1", options=TrainingOptions(epochs=epochs))
    new = NewTraining(name, order=order.as_dict(), base="tiny@1", champion="tiny@1")
    return trainings.create(new)[0]


@pytest.fixture
def ask(trainings):
    """Ask for a training where the active model is `tiny@1` again."""
    trainings.ledger.activate("tiny@1")
    return partial(wish, trainings)


class Workers:
    """Real workers for trainings, which go on from one test to the next unless one ends them."""

    def __init__(self, settings, environment):
        self.settings, self.environment, self.started = settings, environment, []

    def __call__(self):
        """Return the worker that listens, started where there is none."""
        for worker in self.started:
            if worker.poll() is None:
                return worker
        command = [sys.executable, "-m", "heatbox", "work", "--queue", "train"]
        worker = subprocess.Popen(command, env={**self.environment, **as_environment(self.settings)})
        self.started.append(worker)
        wait_until(lambda: worker.pid in listening_pids(self.settings.redis_url, TRAIN), "the worker listens")
        return worker


@pytest.fixture(scope="module")
def start_worker(settings, environment):
    workers = Workers(settings, environment)
    yield workers
    for worker in workers.started:
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


@pytest.fixture(scope="module")
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
def test_where_nobody_listens_it_is_told_what_to_start(trainings, ask, start_worker):
    number = ask()
    wait_until(lambda: "heatbox work --queue train" in trainings.find(number).note, "it is told")
    assert trainings.find(number).state is TrainingState.QUEUED
    start_worker()
    assert not ended(trainings, number).note


@pytest.mark.usefixtures("moved")
def test_a_training_is_done_by_a_worker_and_the_better_model_is_active(
    settings, trainings, ask, start_worker
):
    worker = start_worker()
    assert not Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(), (
        "no process before there is a training"
    )
    found = ended(trainings, ask())
    assert trainings.ledger.active_model() == found.challenger
    assert found.progress["epoch"] == 5
    assert found.started_at is not None
    ((_, nice, pid),) = begun(settings, found)
    assert nice >= 10
    wait_until(lambda: not is_alive(pid), "its process is gone")


@pytest.mark.usefixtures("moved")
def test_a_worse_challenger_is_kept_and_does_not_serve(settings, trainings, ask, start_worker):
    start_worker()
    found = ended(trainings, ask(2, "worse"))
    assert not found.activated
    assert ModelStore(settings.store_path).find("worse").id == found.challenger
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
        assert b"-9" in connection.hgetall(CHILD_DEATHS)


@pytest.mark.usefixtures("moved")
def test_a_killed_worker_and_an_emptied_redis_cost_nothing_but_time(settings, trainings, ask, start_worker):
    worker = start_worker()
    number = ask(40)
    wait_until(lambda: epoch(trainings, number) >= 3, "it is in the middle")
    with connect(settings.redis_url) as connection:
        connection.flushall()
    wait_until(lambda: epoch(trainings, number) >= 8, "it goes on")
    worker.kill()
    worker.wait()
    start_worker()
    found = ended(trainings, number)
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
    for name, code in [("fails", "model-invalid"), ("full", "output"), ("defect", "internal")]:
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


@pytest.mark.usefixtures("moved")
def test_what_cannot_be_done_fails_with_a_sentence_and_holds_up_nobody(trainings, ask, start_worker):
    start_worker()
    order = TrainingOrder("tiny@1", "tiny").as_dict()
    broken = [
        (NewTraining("of another version", order={**order, "options": {"speed": 9}}), "training"),
        (NewTraining("defect of ours", request={"data": None}), "internal"),
    ]
    numbers = [trainings.create(new)[0] for new, _ in broken]
    ended(trainings, ask(3))
    for number, (_, code) in zip(numbers, broken, strict=True):
        assert ended(trainings, number, TrainingState.FAILED).code == code


@pytest.mark.usefixtures("moved")
def test_a_challenger_that_lies_in_the_store_of_another_machine_does_not_serve(trainings, ask, start_worker):
    start_worker()
    found = ended(trainings, ask(2, "elsewhere"), TrainingState.FAILED)
    assert (found.code, found.activated) == ("model-not-found", False)
    assert "HEATBOX_STORE" in found.remedy
    assert trainings.ledger.active_model() == "tiny@1"


@pytest.mark.usefixtures("moved")
def test_a_disk_that_takes_no_order_is_told_and_the_training_can_go_on(
    settings, trainings, ask, start_worker
):
    start_worker()
    folder, away = settings.home / "trainings", settings.home / "away"
    folder.mkdir(exist_ok=True)
    folder.rename(away)
    folder.write_text("no folder")
    try:
        found = ended(trainings, ask(4), TrainingState.FAILED)
    finally:
        folder.unlink()
        away.rename(folder)
    assert found.code == "output"
    trainings.resume(found.id)
    assert ended(trainings, found.id).progress["epoch"] == 4


def test_two_who_move_at_once_do_it_once(settings, trainings, environment, ask, start_worker):
    start_worker()
    with moving(settings, trainings, environment, count=2):
        found = ended(trainings, ask(20))
    assert len(begun(settings, found)) == 1
    assert trainings.find(found.id).serial == 0


@pytest.fixture
def alone(tmp_path):
    """Settings of a home of its own without a Redis."""
    return Settings(home=tmp_path, threads=1)


@pytest.fixture
def mine(alone):
    """The trainings of that home."""
    ledger = Ledger(alone.ledger_url)
    ledger.activate("tiny@1")
    yield Trainings(ledger)
    ledger.close()


def run(settings, environment, *arguments):
    """Run a command to its end and return its exit code and all that it has said."""
    process = command(settings, environment, *arguments)
    output, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    return process.returncode, " ".join((output + errors).split())


def command(settings, environment, *arguments):
    variables = {name: value for name, value in environment.items() if not name.startswith("HEATBOX_")}
    return subprocess.Popen(
        [sys.executable, "-m", "heatbox", *map(str, arguments)],
        env={**variables, **as_environment(settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_redis_a_killed_command_is_taken_up_by_the_next(alone, mine, environment):
    number = wish(mine, 25)
    first = command(alone, environment, "train", "--resume", str(number))
    wait_until(lambda: epoch(mine, number) >= 4, "it is in the middle")
    pid = begun(alone, mine.find(number))[0][2]
    first.kill()
    first.communicate()
    wait_until(lambda: not is_alive(pid), "its process ends with it")
    assert mine.find(number).state is TrainingState.RUNNING
    second = command(alone, environment, "train", "--resume", str(number), "--json")
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert ModelStore(alone.store_path).find(json.loads(output)["challenger"]).trained_from == "tiny@1"
    assert begun(alone, mine.find(number))[1][0] >= 4


def test_two_commands_without_redis_train_one_after_the_other(alone, mine, environment):
    number = wish(mine, 15)
    both = [command(alone, environment, "train", "--resume", str(number)) for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
    found = ended(mine, number)
    assert [done for done, _, _ in begun(alone, found)] in ([0], [0, 15])
    assert mine.ledger.active_model() == found.challenger


def test_ctrl_c_leaves_it_and_says_how_to_go_on(alone, mine, environment):
    number = wish(mine, 1000)
    process = command(alone, environment, "train", "--resume", str(number))
    wait_until(lambda: epoch(mine, number) >= 2, "it is in the middle")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"heatbox train --resume {number}" in errors
    assert mine.find(number).is_open


def test_who_goes_on_with_a_training_that_nobody_stays_for_is_told(alone, mine, environment):
    number = wish(mine, 3)
    told = run(alone, environment, "train", "--resume", number, "--no-follow")
    assert told == (
        0,
        f"Training {number} goes on. Nobody works on it now. It goes on with: heatbox train --resume {number}",
    )
    code, told = run(alone, environment, "train", "--resume", number, "--no-follow", "--json")
    assert code == 0
    assert '"state": "queued"' in told
    assert mine.find(number).is_open


def test_a_queued_training_is_cancelled_without_a_service_and_goes_on_when_it_is_wanted_again(
    alone, mine, environment
):
    number = wish(mine, 3)
    assert run(alone, environment, "trainings", number, "--cancel") == (0, f"Training {number} is cancelled.")
    assert mine.find(number).state is TrainingState.CANCELLED
    code, told = run(alone, environment, "trainings", number, "--cancel")
    assert (code, f"training-state: Training {number} is cancelled" in told) == (3, True), told
    assert run(alone, environment, "train", "--resume", number)[0] == 0
    code, told = run(alone, environment, "train", "--resume", number)
    assert (code, f"training-state: Training {number} is done" in told) == (3, True), told


def test_a_cancel_that_redis_does_not_hear_of_counts_and_is_told(alone, mine, environment):
    number = wish(mine, 3)
    deaf = alone.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    code, told = run(deaf, environment, "trainings", number, "--cancel")
    assert (code, "does not know yet" in told) == (0, True), told
    assert mine.find(number).state is TrainingState.CANCELLED


def test_without_redis_a_disk_that_takes_no_order_is_told(alone, mine, environment):
    (alone.home / "trainings").write_text("no folder")
    code, told = run(alone, environment, "train", "--resume", wish(mine, 3))
    assert (code, "output: The order of the training cannot be written" in told) == (3, True), told
