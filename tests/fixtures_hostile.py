"""A real HTTP server that does what hostile or broken hosts do to whoever fetches a picture from them.

A pytest plugin (`pytest_plugins` in tests/conftest.py). Each route is a function that gets the request; `once` and
`forever` in their names mean what they say. What came in is in `seen`.
"""

import gzip
import io
import json
import shutil
import ssl
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body></body></html>"
PERSONAL = "head3r.payl0ad.signatur3"
LEGACY = "0123456789abcdef"


def png(colour: str = "red", side: int = 16) -> bytes:
    """Return a small picture."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def huge_png() -> bytes:
    """Return a file of some hundred bytes whose header announces 40,000 x 40,000 pixels."""
    whole = png()
    header = struct.pack(">II", 40_000, 40_000) + whole[24:29]
    return whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:]


@dataclass(frozen=True)
class Seen:
    """One request."""

    path: str
    headers: Message

    @property
    def token(self) -> str | None:
        """The Authorization header."""
        return self.headers["Authorization"]


class Request(BaseHTTPRequestHandler):
    """One request, with the ways to answer it."""

    server: "HostileServer"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        self.server.seen.append(Seen(self.path, self.headers))
        route = self.server.routes.get(self.path) or self.server.routes.get(self.path.partition("?")[0])
        with suppress(ConnectionError, ssl.SSLError):  # whoever asked has gone
            route(self) if route else self.answer(b"no such page", status=404)

    def do_HEAD(self) -> None:
        """Answer that it is there: a bucket is asked for so."""
        self.begin(Content_Length="0")

    def do_POST(self) -> None:
        """Exchange a personal access token, as Label Studio does."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body == {"refresh": PERSONAL}
        self.server.exchanged += 1
        self.answer(json.dumps({"access": f"access-{self.server.exchanged}"}).encode())

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        """Send an answer, which may lie about its length."""
        self.begin(status, **{"Content-Length": str(len(body) if length is None else length), **headers})
        self.wfile.write(body)
        self.close_connection = length is not None

    def begin(self, status: int = 200, **headers: str) -> None:
        """Send the status and the headers; `_` in a name stands for `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


Route = Callable[[Request], None]


class HostileServer(ThreadingHTTPServer):
    """The server: its routes by path, with or without the query, and the requests that it saw."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.routes: dict[str, Route] = {}
        self.seen: list[Seen] = []
        self.exchanged = 0
        self.over = threading.Event()
        self.released = threading.Event()
        self.address = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.address}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent where a client breaks off."""

    def paths(self) -> list[str]:
        """Return the paths of the requests."""
        return [seen.path for seen in self.seen]


@contextmanager
def hostile_server(certificate: Path | None = None) -> Iterator[HostileServer]:
    """Run a server for the time of the block, with TLS if it gets a certificate with its key."""
    with HostileServer() as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.released.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    """A server of one test."""
    with hostile_server() as server:
        yield server


@pytest.fixture
def other_host() -> Iterator[HostileServer]:
    """A second server of the same test."""
    with hostile_server() as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority of our own (ca.crt) and a certificate of it for localhost, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    folder = tmp_path_factory.mktemp("certificates")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    server = "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    for command in (
        f"{new} -keyout ca.key -out ca.crt -subj /CN=heatbox-test",
        f"{new} -keyout server.key -out server.crt -subj /CN=localhost -CA ca.crt -CAkey ca.key {server}",
    ):
        subprocess.run(command.split(), check=True, cwd=folder, capture_output=True)
    both = (folder / "server.crt").read_text() + (folder / "server.key").read_text()
    (folder / "server.pem").write_text(both)
    return folder


def sends(body: bytes, **headers: str) -> Route:
    """Answer with these bytes."""
    return lambda request: request.answer(body, **headers)


def sends_versions(contents: list[bytes], header: str, versions: list[str]) -> Route:
    """Answer the first content until it is taken off the list; 304 to whoever has its version."""

    def route(request: Request) -> None:
        asked = request.headers["If-None-Match" if header == "ETag" else "If-Modified-Since"]
        if asked == versions[0]:
            request.answer(b"", status=304)
        else:
            request.answer(contents[0], **{header: versions[0]})

    return route


def redirects(target: str, status: int = 302) -> Route:
    """Lead elsewhere."""
    return lambda request: request.answer(b"", status=status, Location=target)


def refuses(status: int) -> Route:
    """Answer a status without a picture."""
    return lambda request: request.answer(b"{}", status=status)


def wants(tokens: set[str], body: bytes) -> Route:
    """Answer only who has one of these Authorization headers."""
    return lambda request: request.answer(
        body if request.headers["Authorization"] in tokens else b"{}",
        status=(200 if request.headers["Authorization"] in tokens else 401),
    )


def never_ends(request: Request) -> None:
    """Send bytes for ever."""
    request.begin()
    request.close_connection = True
    while not request.server.over.is_set():
        request.wfile.write(png() + bytes(65536))


def drips(request: Request) -> None:
    """Send a byte now and then, for ever."""
    request.begin(Content_Length="100000")
    request.close_connection = True
    while not request.server.over.wait(0.02):
        request.wfile.write(b"x")


def drips_headers(request: Request) -> None:
    """Send a header now and then, for ever."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    request.close_connection = True
    while not request.server.over.wait(0.02):
        request.wfile.write(b"X: y\r\n")


def says_nothing(request: Request) -> None:
    """Take the request and never answer."""
    request.close_connection = True
    request.server.over.wait()


def is_cut(request: Request) -> None:
    """Announce more than is sent."""
    request.answer(png(), length=100_000)


def is_cut_in_chunks(request: Request) -> None:
    """End before the last chunk."""
    request.begin(Transfer_Encoding="chunked")
    request.wfile.write(b"400\r\n" + bytes(1024) + b"\r\n")
    request.close_connection = True


def sends_chunks(request: Request) -> None:
    """Send a picture in chunks."""
    request.begin(Transfer_Encoding="chunked")
    half = len(png()) // 2
    for part in (png()[:half], png()[half:]):
        request.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    request.wfile.write(b"0\r\n\r\n")


def sends_bomb(request: Request) -> None:
    """Send some kilobytes that become ten megabytes."""
    request.answer(gzip.compress(bytes(10 * 2**20)), Content_Encoding="gzip")


def speaks_no_http(request: Request) -> None:
    """Answer as no HTTP server would."""
    request.wfile.write(b"220 mail.example ESMTP\r\n")
    request.close_connection = True


def holds(body: bytes) -> Route:
    """Send half of a picture, and the rest when the test releases it."""

    def route(request: Request) -> None:
        request.begin(Content_Length=str(len(body)))
        request.wfile.write(body[: len(body) // 2])
        request.server.released.wait(30)
        request.wfile.write(body[len(body) // 2 :])

    return route
