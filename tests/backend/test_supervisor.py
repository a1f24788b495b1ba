import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_redis import is_alive, wait_until

from heatbox.errors import PortTakenError, SettingsError
from heatbox.processes import spawn, stop
from heatbox.settings import Settings, as_environment, read_settings
from heatbox.supervisor import listen

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("on", flush=True)
time.sleep(600)
"""
PARENT = """
import sys, time
from heatbox.processes import spawn
print(spawn([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(home=Path("/h"), store=Path("/s"), local_roots=(Path("/a"), Path("/b c")), threshold=0.25),
        Settings(explainer_options=("a=1", "b=2"), fitter_options=("threshold=0.3",)),
        Settings(redis_url="redis://:secret@host:6379/1", workers=3, predict_deadline=1.5, log_level="debug"),
        Settings(studio_url="https://studio.example", studio_api_key="secret"),
    ],
)
def test_children_read_the_settings_that_they_were_given(settings):
    assert read_settings(as_environment(settings)) == settings


def test_a_port_in_use_is_taken():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"listens on 127.0.0.1:{port}"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_cannot_be_listened_on():
    with pytest.raises(SettingsError, match="Nothing can listen"):
        listen("192.0.2.1", 9090)


def test_a_child_that_does_not_end_is_killed():
    reading, writing = os.pipe()
    with open(writing, "wb") as output, open(reading) as lines:  # noqa: PTH123 - descriptors
        child = spawn([sys.executable, "-c", STUBBORN], output=output)
        assert lines.readline() == "on\n"
        assert stop(child, 0.1) == -signal.SIGKILL


def test_a_child_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_until(lambda: not is_alive(child), "the child is gone", seconds=10)
