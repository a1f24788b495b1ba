import os
import signal
from pathlib import Path

import pytest
from fixtures_redis import wait_until

from heatbox.models import ModelStore
from heatbox.pipeline import pipeline_for
from heatbox.queueing.job_process import JobLimits, JobProcess
from heatbox.settings import Settings, as_environment

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture
def settings(tmp_path, tiny_store):
    return Settings(home=tmp_path / "home", store=tiny_store, local_roots=(tmp_path,), threads=1)


@pytest.fixture
def start(settings):
    """Make a job process with limits; it is ended with the test."""
    made = []

    def make(**limits):
        made.append(JobProcess({**os.environ, **as_environment(settings)}, JobLimits(**limits)))
        return made[-1]

    yield make
    for process in made:
        process.close()


@pytest.fixture
def pipeline(settings):
    card = ModelStore(settings.store_path).find("tiny")
    return pipeline_for(card, explainer="poison", min_probability=0).as_dict()


def addresses(folder):
    return [str(path) for path in sorted(folder.iterdir())]


def result_of(process):
    results = []
    wait_until(lambda: results.append(process.poll()) or results[-1], "the job is over")
    return results[-1]


def kinds(result):
    return [None if entry is None else next(iter(entry)) for entry in result.entries]


def test_each_address_gets_its_annotation_or_its_error_in_order(start, pipeline, make_pictures):
    first, second = addresses(make_pictures(2))
    process = start()
    process.begin(pipeline, [first, "/etc/passwd", f"{first}.none", second])
    result = result_of(process)
    assert kinds(result) == ["annotation", "error", "error", "annotation"]
    assert [entry["error"]["code"] for entry in result.entries[1:3]] == [
        "address-refused",
        "picture-not-found",
    ]
    assert result.seconds > 0


def test_the_classifier_stays_warm_for_the_next_job(start, pipeline, make_pictures):
    folder = make_pictures(3)
    process = start()
    process.begin(pipeline, addresses(folder))
    assert kinds(result_of(process)) == ["annotation"] * 3
    pid = process.pid
    process.begin(pipeline, addresses(folder))
    assert kinds(result_of(process)) == ["annotation"] * 3
    assert process.pid == pid


def test_a_pipeline_that_cannot_be_made_is_one_failure_and_no_picture_is_tried(
    start, pipeline, make_pictures
):
    process = start()
    process.begin({**pipeline, "model": "gone@0"}, addresses(make_pictures(2)))
    result = result_of(process)
    assert (result.failure["code"], kinds(result)) == ("model-not-found", [None, None])


@pytest.mark.parametrize(
    ("kind", "limits", "code", "exit_code"),
    [
        ("crash", {}, "worker-died", -signal.SIGSEGV),
        ("hang", {"seconds": 5}, "picture-timeout", -signal.SIGKILL),
        ("eat", {"memory": 1_500 * 2**20}, "picture-memory", -signal.SIGKILL),
    ],
)
def test_a_poisonous_picture_is_suspected_and_the_finished_ones_are_kept(  # noqa: PLR0913, PLR0917 - columns of a table
    start, pipeline, make_pictures, kind, limits, code, exit_code
):
    folder = make_pictures(5, **{kind: 2})
    process = start(**limits)
    process.begin(pipeline, addresses(folder))
    result = result_of(process)
    assert (result.reason["code"], result.exit_code) == (code, exit_code)
    assert result.suspects == (2,)
    assert kinds(result)[:3] == ["annotation", "annotation", None]
    process.begin(pipeline, addresses(folder)[3:])
    assert kinds(result_of(process)) == ["annotation"] * 2


def test_a_job_that_is_asked_to_stop_finishes_the_picture_in_hand(start, pipeline, make_pictures):
    process = start()
    process.begin({**pipeline, "explainer_options": {"seconds": 0.2}}, addresses(make_pictures(30)))
    wait_until(lambda: process.poll(0.01) or process.has_begun, "a picture is in hand")
    process.ask_to_stop()
    result = result_of(process)
    assert result.reason is None
    assert kinds(result)[0] == "annotation"
    assert kinds(result)[-1] is None


def test_a_stop_that_comes_too_late_does_not_end_the_next_job(start, pipeline, make_pictures):
    folder = make_pictures(2)
    process = start()
    process.begin(pipeline, addresses(folder))
    assert kinds(result_of(process)) == ["annotation"] * 2
    process.ask_to_stop()
    process.begin(pipeline, addresses(folder))
    assert kinds(result_of(process)) == ["annotation"] * 2


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat_over_two_thousand_pictures(start, pipeline, make_pictures):
    pipeline = {**pipeline, "explainer": "fused_cam"}
    paths = addresses(make_pictures(50))
    process = start()
    seen = []
    for _ in range(10):
        process.begin(pipeline, paths * 4)
        assert set(kinds(result_of(process))) == {"annotation"}
        seen.append(resident_bytes(process.pid))
    assert max(seen[2:]) - seen[1] < 30 * 2**20, [size >> 20 for size in seen]
