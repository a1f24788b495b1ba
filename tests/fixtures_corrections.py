"""What tests of corrections share: regions, and a small server that lists tasks as Label Studio does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/><Label value="dog"/></RectangleLabels>'
    '<Choices name="what" toName="image" choice="multiple"><Choice value="cat"/><Choice value="dog"/></Choices></View>'
)
OWN = "heatbox-grad_cam-tiny-0123456789"


def box(x=10, y=10, side=20, label="cat", kind="rectanglelabels", **more):
    value = {"x": x, "y": y, "width": side, "height": side, "rotation": 0, kind: [label]}
    names = {"from_name": "label", "to_name": "image", "original_width": 100, "original_height": 100}
    return {"type": kind, **names, "value": value, **more}


def choice(*labels, name="what"):
    return {"type": "choices", "from_name": name, "to_name": "image", "value": {"choices": list(labels)}}


def annotated(*regions, number=1, at=2, **more):
    times = {"created_at": f"2026-01-{at:02}T00:00:00Z", "updated_at": f"2026-01-{at:02}T00:00:00Z"}
    return {"id": number, "result": list(regions), "was_cancelled": False, "completed_by": 5, **times, **more}


def predicted(*regions, number=1, at=1, version=OWN):
    when = f"2026-01-{at:02}T00:00:00Z"
    return {"id": number, "model_version": version, "result": list(regions), "created_at": when}


class Listing(ThreadingHTTPServer):
    """A project of tasks that tests change; `silent_from` is the request after which it answers no more."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.tasks = {}
        self.seen = []
        self.silent_from = None
        self.broken = False
        self.silent = threading.Event()
        self.over = threading.Event()
        self.most = 1000
        self.clock = 0

    def put(self, number, annotations=(), predictions=(), **data):
        """Write a task as a change of now."""
        self.clock += 1
        skips = sum(one["was_cancelled"] for one in annotations)
        self.tasks[number] = {
            "id": number,
            "updated_at": f"2026-02-01T{self.clock // 3600:02}:{self.clock // 60 % 60:02}:{self.clock % 60:02}.000000Z",
            "annotations": list(annotations),
            "predictions": list(predictions),
            "total_annotations": len(annotations) - skips,
            "cancelled_annotations": skips,
            "data": data or {"image": f"http://photos.example/{number}.jpg"},
        }


class Handler(BaseHTTPRequestHandler):
    server: Listing

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, address = self.server, urlsplit(self.path)
        server.seen.append(self.path)
        if server.silent_from is not None and len(server.seen) > server.silent_from:
            server.silent.set()
            server.over.wait()
            return
        if server.broken:
            self.send_error(503 if server.broken is True else server.broken)
        elif address.path.startswith("/api/projects/"):
            self.reply({"title": "Cats", "label_config": CONFIG, "model_version": None})
        else:
            assert address.path == "/api/tasks/", "no task may be read by its own address"
            self.reply(self.page({name: some[0] for name, some in parse_qs(address.query).items()}))

    def page(self, params):
        query = json.loads(params["query"])
        rows = [row for row in self.server.tasks.values() if all(map(holds(row), query["filters"]["items"]))]
        column = query["ordering"][0].rpartition(":")[2]
        rows.sort(key=lambda row: row[column], reverse=query["ordering"][0].startswith("-"))
        shown = rows[: min(int(params["page_size"]), self.server.most)]
        if "include" in params:
            shown = [{name: row[name] for name in params["include"].split(",")} for row in shown]
        return {"tasks": shown, "total": len(rows)}

    def reply(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def holds(row):
    def held(one):
        value = row[one["filter"].rpartition(":")[2]]
        wanted = one["value"]
        return {
            "greater": lambda: value > wanted,
            "greater_or_equal": lambda: value >= wanted,
            "in_list": lambda: value in wanted,
        }[one["operator"]]()

    return held


@contextmanager
def listing() -> Iterator[Listing]:
    """Serve a project."""
    server = Listing()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
