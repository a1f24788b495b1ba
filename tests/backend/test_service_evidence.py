"""Evidence pages while Label Studio hangs, or is not named; what they show: tests/e2e/test_label_studio_protocol.py."""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures_redis import served, wait_until
from pydantic import SecretStr

from heatbox.service import evidence
from heatbox.settings import Settings

PAGE = "/v1/tasks/1/evidence?project=1"


@pytest.fixture
def idle(tmp_path, tiny_store):
    """Settings of a service whose Redis is not needed."""
    return Settings(home=tmp_path, store=tiny_store, model="tiny", redis_url="redis://127.0.0.1:1")


@pytest.fixture
def hanging():
    """The address of a Label Studio that answers nothing, and who has connected."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        connected = []

        def accept():
            while True:
                try:
                    connected.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connected
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in connected:
            one.close()


def with_studio(settings, url):
    return settings.model_copy(update={"studio_url": url, "studio_api_key": SecretStr("a" * 40)})


def test_pages_that_wait_for_a_hanging_label_studio_leave_setup_its_threads(idle, hanging, monkeypatch):
    monkeypatch.setattr(evidence, "_CLIENT_SECONDS", 2.0)
    monkeypatch.setattr(evidence, "_ASKING_SECONDS", 3.0)
    url, connected = hanging
    count = max(12, (os.cpu_count() or 1) + 6)  # more than asyncio's own threads
    settings = with_studio(idle, url)
    with served(settings) as client, ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(client.get, PAGE) for _ in range(count)]
        wait_until(lambda: len(connected) >= 2, "Label Studio is asked")
        wait_until(lambda: sum(one.done() for one in answers) >= count - 8, "the others are refused", 2)
        before = time.monotonic()
        assert client.post("/setup", json={}).status_code == 200
        assert time.monotonic() - before < 1
        told = [answer.result() for answer in answers]
    assert {answer.status_code for answer in told} == {503}
    messages = [answer.json()["message"] for answer in told]
    assert sum("Too many pages" in one for one in messages) == count - 8
    assert sum("gave no answer" in one for one in messages) >= 2
    assert time.monotonic() - before < 10


def test_pages_that_have_ended_make_room(idle, hanging, monkeypatch):
    monkeypatch.setattr(evidence, "_CLIENT_SECONDS", 0.05)
    settings = with_studio(idle, hanging[0])
    with served(settings) as client:
        told = {client.get(PAGE).json()["code"] for _ in range(10)}
    assert told == {"label-studio"}


def test_without_a_label_studio_a_page_says_what_to_set(idle):
    with served(idle) as client:
        answer = client.get(PAGE)
    assert (answer.status_code, answer.json()["code"]) == (503, "label-studio-refused")
    assert "LABEL_STUDIO_URL" in answer.text
