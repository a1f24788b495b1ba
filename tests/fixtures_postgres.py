"""Fixtures of a ledger that machines share: a real PostgreSQL, one new database for each test.

A pytest plugin (`pytest_plugins` in tests/conftest.py). The server is Debian's, runs as another user where we are root,
which it refuses, and ends with the tests, however they end. Where none is installed the tests are skipped visibly.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fixtures_redis import wait_until
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

POSTGRES_PASSWORD = "s@cr:t/ %41#?"  # noqa: S105 - of a server that lives as long as the tests
USER = "postgres"
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass
class PostgresServer:
    """A PostgreSQL in a folder of its own, on a port of this machine; `stop` ends every session at once."""

    programs: Path
    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    made: int = field(default=0)

    def url(self, database: str = "postgres") -> str:
        """URL for HEATBOX_DATABASE_URL."""
        where = URL.create("postgresql", USER, POSTGRES_PASSWORD, "127.0.0.1", self.port, database)
        return where.render_as_string(hide_password=False)

    def initialise(self) -> None:
        """Make the folder's content."""
        secret = self.folder / "password"
        secret.write_text(POSTGRES_PASSWORD)
        shutil.chown(secret, _owner())
        flags = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", "--encoding=UTF8"]
        command = self._as_owner("initdb", f"--pgdata={self.folder / 'data'}", "--no-sync", *flags)
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [*QUICK, "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]
        flags = [part for option in options for part in ("-c", option)]
        command = self._as_owner("postgres", "-D", str(self.folder / "data"), "-p", str(self.port), *flags)
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        wait_until(self._answers, f"PostgreSQL answers, see {self.folder / 'log.txt'}", 30)

    def stop(self) -> None:
        """End the server with all its sessions."""
        if self.process is not None:
            self.process.send_signal(2)  # "fast"
            self.process.wait(30)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database for the time of the block and yield its URL."""
        self.made += 1
        name = f"test{self.made}"
        self.execute(f"CREATE DATABASE {name}")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run a statement as somebody who looks after the server."""
        url = self.url().replace("postgresql://", "postgresql+psycopg://")
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except OperationalError:
            return False
        return True

    def _as_owner(self, program: str, *arguments: str) -> list[str]:
        """Return a command that ends with us and is not run as root."""
        other = [f"--reuid={_owner()}", f"--regid={_owner()}", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig=INT", *other, str(self.programs / program), *arguments]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL for the whole session; its folder is none of pytest's, which its user could not enter."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="heatbox-postgres-"))
    shutil.chown(folder, _owner())
    server = PostgresServer(programs, folder, _free_port())
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a new and empty database; its password is `POSTGRES_PASSWORD`, quoted."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a ledger that nobody has opened yet, in each database that is supported."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


def _programs() -> Path:
    """Return the folder of the newest installed server's programs."""
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        *map(Path, filter(None, [shutil.which("postgres")])),
    ]
    if not found or shutil.which("setpriv") is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    return max(found, key=lambda path: (path.parts[-3].isdigit() and int(path.parts[-3]), path)).parent


def _owner() -> str:
    return USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])
