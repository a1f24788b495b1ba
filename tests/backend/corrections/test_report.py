"""The report: numbers by label and explainer, scores, times, the worst pictures, and the page that shows them."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fixtures_corrections import annotated, box, listing, predicted
from PIL import Image

from heatbox.corrections.pulling import pull
from heatbox.corrections.records import Corrections
from heatbox.corrections.report import make_report
from heatbox.corrections.report_page import Titles, write_report_page
from heatbox.errors import OutputError, PictureNotFoundError
from heatbox.ledger import Ledger
from heatbox.pictures.images import Limits
from heatbox.studio.client import Studio

OTHER = "heatbox-cam-tiny-0123456789"


def tasks():
    """Yield annotations and predictions of tasks."""
    yield [annotated(box(10), lead_time=2)], [predicted(box(10, score=0.95))]
    yield [annotated(box(12), box(60, label="dog"), lead_time=4)], [predicted(box(10, score=0.85))]
    yield [annotated(lead_time=6)], [predicted(box(10, score=0.15), version=OTHER)]
    yield (
        [annotated(box(10, label="dog"), lead_time=3)],
        [predicted(box(10, score=0.85), box(60, score=0.12))],
    )
    yield [annotated(box(10, side=40), lead_time=90)], []
    yield [annotated(was_cancelled=True)], [predicted(box(10))]
    yield [annotated({"type": "ellipselabels"})], [predicted(box(10))]


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    """Pull tasks with these annotations and predictions, and report on them."""

    def pulled(*tasks):
        folder = tmp_path_factory.mktemp("report")
        with listing() as server, closing(Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")) as ledger:
            for number, (annotations, predictions) in enumerate(tasks, 1):
                found = [{**one, "id": number} for one in annotations]
                server.put(number, found, predictions, image=f"/{number}<b>.png")
            corrections = Corrections(ledger)
            with Studio(server.url, "token") as studio:
                pull(studio, corrections, 7)
            return make_report(corrections.annotations(server.url, 7), corrections.counting(server.url, 7))

    return pulled


@pytest.fixture(scope="module")
def report(pulled):
    return pulled(*tasks())


def test_boxes_are_counted_by_label_and_explainer(report):
    rows = [tuple(vars(row).values()) for row in report.labels]
    assert [row[:9] for row in rows] == [
        ("cat", "cam", 1, 0, 0, 0, 0, 1, 0),
        ("cat", "grad_cam", 4, 1, 1, 0, 1, 1, 0),
        ("dog", "grad_cam", 0, 0, 0, 0, 0, 0, 1),
    ]
    assert [row[9] for row in rows] == [None, pytest.approx((1 + 9 / 11 + 1) / 3, abs=1e-6), None]


def test_a_box_counts_for_the_explainer_of_its_label_and_so_does_a_missed_one(pulled):
    own = {"meta": {"heatbox": {"explainer": "hires_cam"}}}
    before = [predicted(box(10, **own), box(60, label="dog"))]
    report = pulled(
        ([annotated(box(12), box(30, y=60))], before), ([annotated(box(60, label="dog"))], before)
    )
    assert [(row.label, row.explainer, row.predicted, row.deleted, row.missed) for row in report.labels] == [
        ("cat", "hires_cam", 2, 1, 1),
        ("dog", "grad_cam", 2, 1, 0),
    ]


def test_tasks_skips_and_what_was_compared_are_counted(report):
    counts = (report.tasks, report.annotations, report.skipped, report.deleted, report.compared)
    assert counts == (6, 6, 1, 0, 4)
    assert report.problems == {"a region is of type ellipselabels": 1}


def test_ious_of_boxes_that_are_still_there_are_counted_by_tenths(report):
    assert report.ious == (0, 0, 0, 0, 0, 0, 0, 0, 1, 2)


def test_scores_are_compared_with_the_share_that_was_kept(report):
    bins = [(one.low, one.boxes, one.score, one.kept) for one in report.reliability.bins]
    assert bins == [
        (0.1, 2, pytest.approx(0.135), 0),
        (0.8, 2, pytest.approx(0.85), 0.5),
        (0.9, 1, pytest.approx(0.95), 1),
    ]
    assert report.reliability.error == pytest.approx((2 * 0.135 + 2 * 0.35 + 0.05) / 5)


def test_times_are_told_with_and_without_a_prediction(report):
    found = [(one.annotations, one.seconds) for one in (report.with_prediction, report.without_prediction)]
    assert found == [(4, 3.5), (1, 90)]


def test_the_worst_pictures_come_first(report):
    assert [(one.task, round(one.quality, 2)) for one in report.worst] == [(3, 0), (4, 0), (2, 0.55), (1, 1)]


def test_nothing_gives_an_empty_report():
    empty = make_report([], [])
    assert (empty.labels, empty.reliability.error, empty.worst) == ((), None, ())


@pytest.fixture
def fetch(tmp_path):
    """Pictures of noise; that of task 4 cannot be had."""

    def fetched(_address: str, task: int | None) -> Path:
        if task == 4:
            raise PictureNotFoundError("There is no '4.png'.", "Look for it.")
        path = tmp_path / f"{task}.png"
        noise = np.random.default_rng(task).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return fetched


def test_the_page_shows_what_was_predicted_and_what_is_right(report, fetch, tmp_path):
    path = tmp_path / "deep" / "report.html"
    titles = Titles("Corrections of <7>", "http://studio.example/", 7)
    assert write_report_page(path, report, titles, fetch, Limits()) == 1
    text = path.read_text()
    assert "Corrections of &lt;7&gt;" in text
    assert text.count('class="predicted"') == 3
    assert text.count('class="corrected"') == 3
    assert "There is no &#39;4.png&#39;." in text
    assert 'href="http://studio.example/projects/7/data?task=3"' in text
    assert "default-src 'none'" in text
    assert "<script" not in text


def test_a_page_that_cannot_be_written_says_why(report, fetch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report_page(
            tmp_path / "file" / "report.html", report, Titles("", "javascript:x", 7), fetch, Limits()
        )
    assert Titles("", "javascript:x", 7).link(3) == "#"
