"""The end of a training in the foreground: bounded, and told."""

import pytest

from heatbox.cli.training import follow
from heatbox.ledger import Ledger
from heatbox.trainings.records import Trainings
from heatbox.trainings.tables import NewTraining

NEW = NewTraining("birds", 7, {"project": 7}, {"base": "tiny@1"}, base="tiny@1")
RESULT = {"model": "tiny@2", "better": True, "comparison": {}}


@pytest.fixture
def trainings(ledger_url):
    ledger = Ledger(ledger_url)
    yield Trainings(ledger)
    ledger.close()


def test_the_end_does_not_wait_for_a_label_studio_that_is_away_and_says_who_tells_it(trainings, capsys):
    number, _ = trainings.create(NEW)
    trainings.settle(trainings.find(number), RESULT, None)
    trainings.note(number, "Label Studio gave no answer.")
    assert not follow(trainings, number, patience=0).told
    told = capsys.readouterr().err
    assert "was not told of the new version: Label Studio gave no answer." in told
    assert "heatbox studio connect --project 7" in told


def test_a_label_studio_that_was_told_is_not_spoken_of(trainings, capsys):
    number, _ = trainings.create(NEW)
    trainings.settle(trainings.find(number), RESULT, None)
    trainings.tell(number)
    follow(trainings, number)
    assert "Label Studio" not in capsys.readouterr().err


def test_a_failed_training_does_not_say_how_far_it_came(trainings, capsys):
    number, _ = trainings.create(NEW)
    trainings.progress(trainings.find(number), {"stage": "reading pictures", "done": 3})
    trainings.fail(number, {"code": "dataset", "message": "There is none.", "remedy": "Name one."})
    follow(trainings, number)
    assert capsys.readouterr().err == f"training {number} failed\n"
