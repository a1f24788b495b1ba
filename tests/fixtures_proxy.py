"""A proxy between heatbox and Label Studio that does something in the middle of a request: cuts it, holds it, kills."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

__all__ = ["StudioProxy", "studio_proxy"]

_SECONDS = 120.0


@dataclass
class _Rule:
    """What is done once, when the next request of this kind passes."""

    method: str
    part: str
    moment: Literal["asked", "answered"]
    action: Callable[[], Any]
    cut: bool
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class StudioProxy:
    """A running proxy: its address, the requests that it saw, as "METHOD /path", and who answers one just now."""

    url: str
    target: str
    seen: list[str] = field(default_factory=list)
    under_way: set[threading.Thread] = field(default_factory=set)
    _rules: list[_Rule] = field(default_factory=list)

    def once(
        self,
        request: str,
        moment: Literal["asked", "answered"],
        action: Callable[[], Any] = lambda: None,
        *,
        cut: bool = False,
    ) -> threading.Event:
        """Act when a request comes in, or when Label Studio has answered it; return what is set when it was done.

        Args:
            request: method and a part of the path, as in "POST import/predictions".
            moment: before it is handed on, or before the answer is.
            action: what is done; the request waits meanwhile.
            cut: whether the connection is then closed: at "asked" the request never arrives, at "answered" its
                answer does not.
        """
        method, part = request.split()
        self._rules.append(_Rule(method, part, moment, action, cut))
        return self._rules[-1].done

    def meets(self, request: str, moment: str) -> bool:
        """Do what a rule wants at this moment; return whether the connection is cut."""
        method, path = request.split()
        for rule in self._rules:
            matches = rule.method == method and rule.part in path and rule.moment == moment
            if matches and not rule.done.is_set():
                rule.action()
                rule.done.set()
                return rule.cut
        return False

    def count(self, request: str) -> int:
        """Return how many requests of this kind came."""
        method, part = request.split()
        return sum(one.startswith(method) and part in one for one in self.seen)


@contextmanager
def studio_proxy(target: str) -> Iterator[StudioProxy]:
    """Run a proxy before the Label Studio of this address for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            with suppress(ConnectionError):  # heatbox was killed
                super().handle_one_request()

        def log_message(self, *_: object) -> None:
            return

        def pass_on(self) -> None:
            request = f"{self.command} {urlsplit(self.path).path}"
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proxy.seen.append(request)
            proxy.under_way.add(threading.current_thread())
            try:
                self.answer(request, body)
            finally:
                proxy.under_way.discard(threading.current_thread())

        def answer(self, request: str, body: bytes) -> None:
            if proxy.meets(request, "asked"):
                return
            status, headers, answer = _forward(target, self.command, self.path, dict(self.headers), body)
            if proxy.meets(request, "answered"):
                return
            self.send_response_only(status)
            for name in ("Content-Type", "Location"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_DELETE = do_PATCH = pass_on  # noqa: N815 - http.server's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = StudioProxy(f"http://127.0.0.1:{server.server_address[1]}", target)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def _forward(
    target: str, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=_SECONDS)
    try:
        kept = {name: value for name, value in headers.items() if name.lower() not in {"host", "connection"}}
        connection.request(method, path, body or None, {**kept, "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
