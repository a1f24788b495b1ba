"""A new version that Label Studio does not take: what may be mended by waiting is told apart from what may not."""

import json
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from heatbox.errors import StudioError, StudioRefusedError
from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.settings import Settings
from heatbox.studio.client import Studio
from heatbox.trainings.records import Trainings
from heatbox.trainings.showing import show_version
from heatbox.trainings.tables import NewTraining

BACKEND = {"id": 1, "url": "http://127.0.0.1:9", "title": "heatbox-grad_cam-tiny-0123456789"}
PROJECT = {"title": "Cats", "label_config": make_label_config(["cat"]), "model_version": BACKEND["title"]}


class Refusing(BaseHTTPRequestHandler):
    """A Label Studio with one project and one backend, which takes no other title."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(200, [BACKEND] if self.path.startswith("/api/ml") else {"id": 7, **PROJECT})

    def do_PATCH(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(400, {"detail": self.server.reason})

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def show(tmp_path, tiny_store, ledger_url):
    """Let a Label Studio that refuses with a reason show the version of a training."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    settings = Settings(home=tmp_path, store=tiny_store, model="tiny")

    def show(reason):
        server.reason = reason
        with closing(Ledger(ledger_url)) as ledger:
            trainings = Trainings(ledger)
            training = trainings.find(trainings.create(NewTraining("cats", 7))[0])
            url = f"http://127.0.0.1:{server.server_port}"
            return show_version(settings, ledger, training, lambda: Studio(url, "0" * 40, delays=()))

    yield show
    server.shutdown()
    server.server_close()


def test_a_label_studio_that_cannot_reach_heatbox_is_told_again_later(show):
    with pytest.raises(StudioError, match=r"cannot reach heatbox at http://127\.0\.0\.1:9"):
        show("Can't connect to ML backend http://127.0.0.1:9, health check failed.")


def test_another_refusal_is_told_as_it_is(show):
    with pytest.raises(StudioRefusedError, match="The title is too long"):
        show("The title is too long.")
