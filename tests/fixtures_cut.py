"""A proxy in front of a Redis that forwards a command and cuts the connection before its reply, once.

What a broken network does at the worst moment: the command was carried out, and whoever sent it cannot know.
A pytest plugin (`pytest_plugins` in tests/conftest.py).
"""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from heatbox.queueing.redis_server import PrivateRedis


class CuttingProxy:
    """Listens on a port of its own; `cut_after` arms it."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._word: re.Pattern[bytes] | None = None
        self._armed = threading.Lock()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """URL of the Redis behind the proxy."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def cut_after(self, word: bytes) -> None:
        """Cut the next connection whose request matches, when Redis has answered it."""
        with self._armed:
            self._word = re.compile(word)

    def close(self) -> None:
        """End everything."""
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            cut = threading.Event()
            for start in (self._requests, self._replies):
                threading.Thread(target=start, args=(client, server, cut), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        for received in _received(client):
            with self._armed:
                if self._word and self._word.search(received):
                    self._word = None
                    cut.set()
            if not _sent(server, received):
                break
        _shut(server)

    def _replies(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        for received in _received(server):
            if cut.is_set():
                self.cuts += 1
                break
            if not _sent(client, received):
                break
        _shut(client)
        _shut(server)


def _received(connection: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            received = connection.recv(1 << 16)
        except OSError:
            return
        if not received:
            return
        yield received


def _sent(connection: socket.socket, content: bytes) -> bool:
    try:
        connection.sendall(content)
    except OSError:
        return False
    return True


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@pytest.fixture
def cutting_proxy(redis_server: PrivateRedis) -> Iterator[CuttingProxy]:
    """A proxy in front of the test's own Redis."""
    proxy = CuttingProxy(Path(unquote(redis_server.url.removeprefix("unix://"))))
    yield proxy
    proxy.close()
