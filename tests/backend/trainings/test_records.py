import threading

import pytest

from heatbox.activation import history
from heatbox.errors import TrainingNotFoundError, TrainingStateError
from heatbox.ledger import Ledger
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import NewTraining, TrainingState

NEW = NewTraining("birds", 7, {"project": 7}, {"base": "tiny@1"}, base="tiny@1", champion="tiny@1")
RESULT = {"model": "tiny@2", "better": True, "comparison": {}}


@pytest.fixture
def trainings(ledger_url):
    ledger = Ledger(ledger_url)
    ledger.activate("tiny@1")
    yield Trainings(ledger)
    ledger.close()


def test_the_same_wish_is_joined_while_it_is_open(trainings):
    number, is_new = trainings.create(NEW)
    assert is_new
    assert trainings.create(NEW) == (number, False)
    trainings.cancel(number)
    assert trainings.create(NEW)[1]


def test_a_project_has_one_training_at_a_time_where_a_webhook_asks(trainings):
    number, _ = trainings.create(NEW)
    assert trainings.create_for(7, NewTraining("other", 7, {"project": 7})) == (number, False)
    assert trainings.create_for(8, NewTraining("other", 8, {"project": 8}))[1]


def test_many_who_settle_at_once_activate_once(trainings):
    number, _ = trainings.create(NEW)
    training = trainings.find(number)
    verdicts = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(trainings.settle(training, RESULT, None)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(verdict is not None for verdict in verdicts) == 1
    assert [one.model for one in history(trainings.ledger)] == ["tiny@1", "tiny@2"]
    found = trainings.find(number)
    assert (found.state, found.activated, found.told) == (TrainingState.DONE, True, False)


def test_a_result_that_comes_after_the_cancel_changes_nothing(trainings):
    number, _ = trainings.create(NEW)
    training = trainings.find(number)
    trainings.cancel(number)
    assert trainings.settle(training, RESULT, None) is None
    assert trainings.ledger.active_model() == "tiny@1"
    with pytest.raises(TrainingStateError, match="is cancelled"):
        trainings.cancel(number)


def test_a_job_is_asked_for_again_once_whoever_looks(trainings):
    number, _ = trainings.create(NEW)
    seen = trainings.find(number)
    assert trainings.ask_again(seen, struck=True)
    assert not trainings.ask_again(seen, struck=True)
    again = trainings.find(number)
    assert (again.serial, again.strikes) == (1, 1)
    assert again.job != seen.job
    assert again.folder == seen.folder


def test_only_a_new_epoch_takes_the_strikes_away(trainings):
    number, _ = trainings.create(NEW)
    trainings.progress(trainings.find(number), {"epoch": 3})
    trainings.ask_again(trainings.find(number), struck=True)
    trainings.progress(trainings.find(number), {"epoch": 3})
    assert trainings.find(number).strikes == 1
    trainings.progress(trainings.find(number), {"epoch": 4})
    assert trainings.find(number).strikes == 0


def test_what_a_lost_job_tells_late_is_not_noted(trainings):
    number, _ = trainings.create(NEW)
    before = trainings.find(number)
    trainings.ask_again(before, struck=False)
    trainings.progress(before, {"epoch": 9})
    assert trainings.find(number).progress == {}


def test_a_failed_training_goes_on_from_its_folder_under_another_job(trainings):
    number, _ = trainings.create(NEW)
    before = trainings.find(number)
    trainings.fail(number, {"code": "worker-died", "message": "It died.", "remedy": "Look."})
    assert (trainings.find(number).state, trainings.find(number).code) == (
        TrainingState.FAILED,
        "worker-died",
    )
    trainings.resume(number)
    again = trainings.find(number)
    assert (again.state, again.code, again.folder) == (TrainingState.QUEUED, None, before.folder)
    assert again.job != before.job


def test_a_training_that_is_not_there_is_told(trainings):
    with pytest.raises(TrainingNotFoundError, match="no training 9"):
        trainings.find(9)
