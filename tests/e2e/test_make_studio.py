"""`heatbox studio up`, which `make studio` runs: a Label Studio of its own, connected, with predictions; its end."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fixtures_redis import is_alive, wait_until
from fixtures_runs import Up

from heatbox.processes import stop
from heatbox.supervisor import listen

pytestmark = pytest.mark.studio

PROGRAM = Path(__file__).parents[2] / ".venv-studio" / "bin" / "label-studio"
LAST_LINE = "Ctrl-C stops everything."


@pytest.fixture(scope="module")
def demo(tmp_path_factory, pictures):
    """What `heatbox demo` would leave, in small; its model is the test's."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "pictures").mkdir()
    for name in ("0.png", "1.png", "2.png"):
        (folder / "pictures" / name).write_bytes((pictures / name).read_bytes())
    return folder


@pytest.fixture
def start(tmp_path, tiny_store, demo):
    """Start `heatbox studio up` on the test's folder."""
    if not PROGRAM.exists():
        pytest.skip("no Label Studio: run make studio-env")
    started = []

    def start(*options):
        log = tmp_path / f"{len(started)}.log"
        settings = {"HOME": tmp_path / "home", "STORE": tiny_store, "MODEL": "tiny", "MIN_PROBABILITY": 0}
        environment = {**os.environ, **{f"HEATBOX_{name}": str(value) for name, value in settings.items()}}
        command = [sys.executable, "-m", "heatbox", "studio", "up", "--program", PROGRAM, "--demo", demo]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--folder", tmp_path / "studio", *options],
                env=environment,
                stdout=output,
                stderr=output,
            )
        started.append(Up(process, log))
        return started[-1]

    yield start
    for up in started:
        stop(up.process, 30)


def wait_until_ready(up):
    wait_until(lambda: LAST_LINE in up.output or up.process.poll() is not None, "it is ready", 150)
    assert up.process.poll() is None, up.output
    return dict(re.findall(r"^(\S[\w ]+?) {2,}(\S+) *$", up.output, re.MULTILINE))


def interrupted(up, number=signal.SIGINT):
    """Interrupt it, and return its exit code when nothing of it is left."""
    below = up.children("")
    assert len(below) >= 4  # Label Studio, heatbox up, its web service, worker and Redis
    up.process.send_signal(number)
    code = up.process.wait(40)
    assert not any(map(is_alive, below))
    return code


def stored(told, folder):
    """Return the predictions that this Label Studio has for the project, and its backends and webhooks."""
    session = json.loads((folder / "session.json").read_text())
    headers = {"Authorization": f"Token {session['token']}"}
    with httpx.Client(base_url=told["Label Studio"], headers=headers, timeout=60) as studio:
        number = session["project"]
        assert told["project"] == f"{told['Label Studio']}/projects/{number}/data"
        tasks = studio.get("/api/tasks/", params={"project": number, "fields": "all"}).json()["tasks"]
        shown = [studio.get(task["data"]["image"]).headers["content-type"] for task in tasks]
        assert set(shown) == {"image/png"}
        assert httpx.get(told["Label Studio"] + tasks[0]["data"]["image"]).status_code == 401
        assert sign_up(told["Label Studio"]) == 403
        predictions = {
            task["data"]["image"]: [(one["id"], one["model_version"]) for one in task["predictions"]]
            for task in tasks
        }
        connected = [
            studio.get(f"/api/{what}", params={"project": number}).json() for what in ("ml", "webhooks/")
        ]
        return predictions, [(one["id"], one["url"]) for some in connected for one in some]


def test_one_command_leaves_predictions_stops_wholly_and_is_found_again(start, tmp_path):
    folder = tmp_path / "studio"
    up = start()
    told = wait_until_ready(up)
    assert "3 of 3 tasks have predictions of heatbox-fused_cam-tiny-" in up.output
    assert "Warning" not in up.output
    assert (folder.stat().st_mode & 0o777, (folder / "session.json").stat().st_mode & 0o777) == (0o700, 0o600)
    predictions, connected = stored(told, folder)
    assert [len(some) for some in predictions.values()] == [1, 1, 1]
    assert [url for _, url in connected] == [told["heatbox"], f"{told['heatbox']}/webhook"]
    second = start()
    assert second.process.wait(30) == 3
    assert "Another `heatbox studio up`" in second.output
    assert interrupted(up) == 0
    assert "Everything is stopped." in up.output

    heatbox_port = httpx.URL(told["heatbox"]).port
    with listen("127.0.0.1", heatbox_port):  # another program has it now
        again = start()
        told_again = wait_until_ready(again)
    assert told_again["password"] == told["password"]
    assert told_again["Label Studio"] == told["Label Studio"]
    assert told_again["heatbox"] != told["heatbox"]
    assert "Retrieving" not in again.output
    predictions_again, connected_again = stored(told_again, folder)
    assert predictions_again == predictions
    assert [url for _, url in connected_again] == [told_again["heatbox"], f"{told_again['heatbox']}/webhook"]
    (heatbox,) = [pid for pid in again.children("") if "heatbox\0up" in command_line(pid)]
    below = again.children("")
    os.kill(heatbox, signal.SIGKILL)  # when one part dies, so does the rest
    assert again.process.wait(40) == 3
    assert "heatbox ended with code -9" in " ".join(again.output.split())
    wait_until(lambda: not any(map(is_alive, below)), "everything is gone", 20)


def test_an_interrupt_while_it_starts_leaves_nothing(start):
    up = start()
    wait_until(lambda: len(up.children("")) >= 2, "both are started")
    below = up.children("")
    up.process.terminate()
    assert up.process.wait(40) == 130
    wait_until(lambda: not any(map(is_alive, below)), "everything is gone", 20)


def test_a_port_that_is_taken_is_told_before_anything_starts(start):
    with listen("127.0.0.1", 0) as listener:
        up = start("--port", str(listener.getsockname()[1]))
        assert up.process.wait(30) == 3
    assert "port-taken" in up.output
    assert "Starting" not in up.output


def test_a_program_that_is_not_there_is_told(tmp_path):
    command = [sys.executable, "-m", "heatbox", "studio", "up", "--program", tmp_path / "none"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 3
    assert "make studio-env" in ran.stderr
    assert not list(tmp_path.iterdir())


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def sign_up(url):
    """Try to make a user of one's own, as the page does, and return the status."""
    with httpx.Client(base_url=url) as stranger:
        stranger.get("/user/signup/")
        form = {"email": "stranger@heatbox.example", "password": "long-enough-to-pass"}
        token = {"csrfmiddlewaretoken": stranger.cookies["csrftoken"]}
        return stranger.post("/user/signup/", data={**form, **token}).status_code
