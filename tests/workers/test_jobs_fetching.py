"""Jobs whose pictures come over the network, or would with other settings: what each costs, and what is told."""

import os
import socket
import subprocess
import sys
import threading
import time

import fixtures_hostile as does
import pytest
from fixtures_hostile import png
from fixtures_redis import wait_until

from heatbox.models import ModelStore
from heatbox.pipeline import pipeline_for
from heatbox.queueing.job_process import JobLimits, JobProcess
from heatbox.settings import Settings, as_environment
from heatbox_workers.jobs import Annotators


@pytest.fixture
def settings(tmp_path, tiny_store, hostile):
    return Settings(
        home=tmp_path / "home",
        store=tiny_store,
        local_roots=(tmp_path,),
        threads=1,
        private_hosts=(hostile.address,),
    )


@pytest.fixture
def pipeline(settings):
    return pipeline_for(ModelStore(settings.store_path).find("tiny"), min_probability=0)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    return str(path)


@pytest.fixture
def job():
    """Return a function that lets a process of its own do one job."""
    made = []

    def do(settings, pipeline, addresses, **environment):
        made.append(JobProcess({**os.environ, **as_environment(settings), **environment}, JobLimits()))
        made[-1].begin(pipeline.as_dict(), addresses)
        results = []
        wait_until(lambda: results.append(made[-1].poll()) or results[-1], "the job is over")
        return results[-1]

    yield do
    for one in made:
        one.close()


@pytest.fixture
def annotators(settings):
    """Return a function that makes annotators, which are closed with the test."""
    made = []

    def make(**changes):
        made.append(Annotators(settings.model_copy(update=changes)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sizes(annotators, pipeline, addresses):
    """Return of how many pictures the slices of a job are."""
    slices = annotators.annotate(pipeline, addresses, lambda **_: None)
    return [len([one for one in entries if "annotation" in one]) for entries, _ in slices]


def codes(result):
    return [entry["error"]["code"] if "error" in entry else None for entry in result.entries]


@pytest.mark.parametrize(
    "wrong",
    [
        {"studio_url": "localhost:8080", "studio_api_key": "0" * 40},
        {"studio_url": "http://localhost:8080", "studio_api_key": "my token"},
        {"studio_url": "http://localhost:8080", "studio_api_key": "0" * 40, "ca_file": "gone.pem"},
    ],
)
def test_a_wrong_setting_costs_only_the_pictures_that_need_it(job, settings, pipeline, picture, wrong):
    changed = Settings(**{**dict(settings), **wrong})
    result = job(changed, pipeline, [picture, "/data/upload/7/a.png", picture])
    assert codes(result) == [None, "settings", None]
    assert result.reason is None


def test_a_host_that_is_no_name_costs_only_its_picture(job, settings, pipeline, picture, hostile):
    hostile.routes["/b.png"] = does.redirects("http://xn--a/")
    result = job(settings, pipeline, [picture, "http://xn--a/x.jpg", hostile.url + "/b.png", picture])
    assert codes(result) == [None, "address-refused", "address-refused", None]


def test_settings_that_the_process_cannot_use_are_a_failure_and_no_death(job, settings, pipeline, picture):
    result = job(settings, pipeline, [picture], HEATBOX_PORT="http")
    assert (result.failure["code"], result.reason) == ("settings", None)


def test_a_store_that_cannot_be_opened_is_a_failure_and_no_death(job, settings, pipeline, picture):
    result = job(settings.model_copy(update={"store": "ftp://nowhere/models"}), pipeline, [picture])
    assert (result.failure["code"], result.reason) == ("store-unavailable", None)


def test_the_readers_are_ahead_of_a_job_in_slices_of_one(annotators, pipeline, hostile):
    together = threading.Barrier(4)

    def answer(request):
        together.wait(10)
        request.answer(png())

    hostile.routes.update({f"/{number}.png": answer for number in range(8)})
    addresses = [f"{hostile.url}/{number}.png" for number in range(8)]
    assert sizes(annotators(), pipeline, addresses) == [1] * 8


def test_a_picture_that_was_long_in_coming_does_not_make_the_next_slices_small(annotators, pipeline, hostile):
    hostile.routes["/a.png"], hostile.routes["/b.png"] = does.sends(png()), does.holds(png())
    made = annotators()
    sizes(made, pipeline, [hostile.url + "/a.png"])  # loads the classifier
    release = threading.Timer(0.5, hostile.released.set)
    release.start()
    assert sizes(made, pipeline, [hostile.url + "/b.png"]) == [1]
    release.join()
    assert sizes(made, pipeline, [hostile.url + "/a.png"] * 4)[0] > 1


def test_a_job_that_is_left_waits_for_no_picture(annotators, pipeline, picture):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        addresses = [picture, *(f"http://{host}/{number}.png" for number in range(20))]
        made = annotators(private_hosts=(host,), fetch_seconds=4.0)
        slices = made.annotate(pipeline, addresses, lambda **_: None)
        next(slices)
        began = time.monotonic()
        slices.close()
        assert time.monotonic() - began < 2
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("read")], "no reader")


def test_a_worker_does_not_start_with_settings_that_no_picture_can_be_fetched_with(tmp_path):
    wrong = {
        "HEATBOX_HOME": str(tmp_path),
        "LABEL_STUDIO_URL": "localhost:8080",
        "LABEL_STUDIO_API_KEY": "0" * 40,
    }
    command = [sys.executable, "-m", "heatbox", "work"]
    ended = subprocess.run(
        command, check=False, env={**os.environ, **wrong}, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode > 0
    assert "The address of Label Studio has no http://" in " ".join(ended.stderr.split())
