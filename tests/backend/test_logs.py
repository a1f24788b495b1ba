"""The log as a collector reads it: real processes, one line per event."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

PROGRAM = """
import logging, sys, warnings
from heatbox.logs import log_to_stderr
log_to_stderr("info", "worker", sys.argv[1])
log = logging.getLogger("heatbox.somewhere")
log.debug("unseen")
log.info("two\\nlines of %s", "text", extra={"run": 7, "task": 4, "chunk": 9, "other": 1})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
warnings.warn("old")
"""


def lines(form):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture(scope="module")
def events():
    return [json.loads(line) for line in lines("json")]


def test_each_event_is_one_object_with_what_it_is_about(events):
    first = events[0]
    assert len(events) == 3
    assert datetime.fromisoformat(first.pop("time")).utcoffset() == timedelta(0)
    assert first.pop("pid") > 0
    assert first == {
        "level": "info",
        "process": "worker",
        "logger": "heatbox.somewhere",
        "message": "two\nlines of text",
        "run": 7,
        "task": 4,
        "chunk": 9,
    }


def test_a_traceback_is_one_field(events):
    assert (events[1]["level"], events[1]["message"]) == ("error", "failed")
    assert events[1]["exception"].endswith("ZeroDivisionError: division by zero")
    assert not {"run", "task", "chunk"} & set(events[1])


def test_a_warning_of_python_is_an_event(events):
    assert events[2]["level"] == "warning"
    assert "UserWarning: old" in events[2]["message"]


def test_for_people_a_line_has_time_process_and_level():
    first = lines("text")[0]
    assert first.split()[1].startswith("worker[")
    assert first.endswith("] INFO two")
