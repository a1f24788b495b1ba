"""Before a run replaces predictions: what people were shown is kept, and nothing stops the run."""

from contextlib import closing

import pytest
from fixtures_corrections import annotated, box, listing, predicted

from heatbox.cli.keeping import keep_predicted
from heatbox.corrections.records import Corrections
from heatbox.ledger import Ledger
from heatbox.settings import Settings

PROJECT = 7


@pytest.fixture
def server():
    with listing() as server:
        server.put(3, [annotated(box(12), number=11)], [predicted(box(score=0.7))])
        yield server


@pytest.fixture
def settings(server, tmp_path):
    return Settings(home=tmp_path, studio_url=server.url, studio_api_key="token")


def kept(settings):
    with closing(Ledger(settings.ledger_url)) as ledger:
        return [one.predicted for one in Corrections(ledger).pictures(settings.studio_url, PROJECT)]


def test_what_people_were_shown_is_in_the_ledger_before_it_is_replaced(settings, server, capsys):
    keep_predicted(settings, PROJECT)
    assert "1 new, 0 changed" in capsys.readouterr().err
    server.put(
        3, [annotated(box(12), number=11)], [predicted(box(60), version="heatbox-cam-tiny-0000000000")]
    )
    keep_predicted(settings, PROJECT)
    ((shown,),) = kept(settings)
    assert (shown.corners[0], shown.score) == (0.1, 0.7)


@pytest.mark.parametrize("broken", [True, 404])
def test_a_pull_that_fails_is_told_and_stops_nothing(settings, server, capsys, broken):
    server.broken = broken
    keep_predicted(settings, PROJECT)
    assert "corrections were not pulled" in " ".join(capsys.readouterr().err.split())
    assert kept(settings) == []
