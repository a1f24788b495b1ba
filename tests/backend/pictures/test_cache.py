"""The cache of fetched pictures: fetched once for threads and processes, never seen unfinished, and small."""

import base64
import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fixtures_hostile as does
import pytest
from fixtures_hostile import png
from fixtures_redis import wait_until

from heatbox.errors import PictureCacheError, PictureSlowError
from heatbox.pictures.cache import PictureCache
from heatbox.pictures.deadline import Deadline

FETCH = """
import sys
from heatbox.pictures.fetching import Fetcher
from heatbox.settings import Settings
home, host, address = sys.argv[1:]
fetcher = Fetcher(Settings(home=home, private_hosts=(host,), fetch_seconds=20))
print("ready", flush=True)
print(fetcher.fetch(address), flush=True)
"""


@pytest.fixture
def cache(tmp_path):
    return PictureCache(tmp_path / "cache", 10_000)


@pytest.fixture
def another_process(tmp_path, hostile):
    """Return a function that starts a process which fetches an address."""
    started = []

    def start(address):
        command = [sys.executable, "-c", FETCH, str(tmp_path / "home"), hostile.address, address]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def put(cache, key, content=b"x" * 1000):
    with cache.picture(key, "a.png", Deadline(5)) as picture:
        picture.replace([content], {}, key)
        return picture.used()


def age(path, seconds):
    moment = time.time() - seconds
    for file in path.parent.iterdir():
        os.utime(file, (moment, moment))


def test_threads_that_want_one_picture_fetch_it_once(fetcher, hostile):
    hostile.routes["/a.png"] = does.holds(png())
    found = fetcher()
    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(found.fetch, hostile.url + "/a.png") for _ in range(4)]
        wait_until(lambda: hostile.seen, "somebody asks", 10)
        hostile.released.set()
        assert {result.result().read_bytes() for result in results} == {png()}
    assert len(hostile.seen) == 1


def test_processes_that_want_one_picture_fetch_it_once(hostile, another_process):
    hostile.routes["/a.png"] = does.holds(png())
    processes = [another_process(hostile.url + "/a.png") for _ in range(2)]
    wait_until(lambda: hostile.seen, "somebody asks", 10)
    hostile.released.set()
    paths = {process.communicate(timeout=20)[0].strip() for process in processes}
    assert [Path(path).read_bytes() for path in paths] == [png()]
    assert len(hostile.seen) == 1


def test_threads_fetch_different_pictures_side_by_side(fetcher, hostile):
    hostile.routes["/a.png"], hostile.routes["/b.png"] = does.holds(png("red")), does.sends(png("blue"))
    found = fetcher()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(found.fetch, hostile.url + "/a.png")
        wait_until(lambda: hostile.seen, "somebody asks", 10)
        assert found.fetch(hostile.url + "/b.png").read_bytes() == png("blue")
        hostile.released.set()
        assert slow.result().read_bytes() == png("red")


def test_a_process_that_is_killed_leaves_no_lock_and_no_half_picture(fetcher, hostile, another_process):
    hostile.routes["/a.png"] = does.holds(png())
    process = another_process(hostile.url + "/a.png")
    wait_until(lambda: hostile.seen, "it asks", 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hostile.released.set()
    assert fetcher().fetch(hostile.url + "/a.png").read_bytes() == png()


def test_who_waits_for_somebody_elses_picture_has_a_deadline(cache):
    with (
        cache.picture("a", "a.png", Deadline(5)),
        pytest.raises(PictureSlowError),
        cache.picture("a", "a.png", Deadline(0.05)),
    ):
        pass


def test_no_lock_stays_behind(cache, tmp_path):
    put(cache, "a")
    with pytest.raises(ZeroDivisionError), cache.picture("b", "b.png", Deadline(5)):
        raise ZeroDivisionError
    assert list((tmp_path / "cache" / "locks").iterdir()) == []


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"asked": 3, "size": 1000}', b'{"asked": "", "size": 7}']
)
def test_a_picture_whose_answer_does_not_fit_counts_as_not_there(cache, damage):
    path = put(cache, "a")
    (path.parent / "answer.json").write_bytes(damage)
    with cache.picture("a", "a.png", Deadline(5)) as picture:
        assert not picture.is_there
        assert not picture.is_fresh("a")
        assert picture.condition() == {}


def test_the_least_recently_used_go_first(cache):
    paths = [put(cache, str(number)) for number in range(20)]
    for number, path in enumerate(paths):
        age(path, 10_000 - number)
    with cache.picture("0", "a.png", Deadline(5)) as picture:
        picture.used()
    cache.sweep()
    left = [path.exists() for path in paths]
    assert left[0]
    assert left[1:] == sorted(left[1:])
    assert 6 <= sum(left) <= 9
    assert not paths[1].parent.exists()


def test_what_was_handed_out_a_moment_ago_stays(cache):
    paths = [put(cache, str(number)) for number in range(20)]
    cache.sweep()
    assert all(path.exists() for path in paths)


def test_what_somebody_holds_stays(cache):
    paths = [put(cache, str(number)) for number in range(20)]
    for path in paths:
        age(path, 10_000)
    with cache.picture("3", "a.png", Deadline(5)):
        cache.sweep()
        assert paths[3].exists()


def test_a_cache_of_no_bytes_keeps_pictures_for_some_minutes_only(tmp_path):
    cache = PictureCache(tmp_path / "cache", 0)
    old, new = put(cache, "old"), put(cache, "new")
    age(old, 700)
    cache.stored(1000)
    assert (old.exists(), new.exists()) == (False, True)


def test_unfinished_files_of_dead_processes_go(cache, tmp_path):
    put(cache, "a")
    for name, seconds in (("old", 4000), ("new", 0)):
        file = tmp_path / "cache" / "partial" / name
        file.write_bytes(b"x")
        os.utime(file, (time.time() - seconds,) * 2)
    cache.sweep()
    assert [file.name for file in (tmp_path / "cache" / "partial").iterdir()] == ["new"]


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(fetcher, hostile, tmp_path):
    hostile.routes["/a.png"] = does.sends(png() + bytes(200_000))
    found = fetcher()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(PictureCacheError, match="File too large"):
            found.fetch(hostile.url + "/a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    assert found.fetch(hostile.url + "/a.png").stat().st_size > 200_000


class SmallDisk:
    """Stands for a disk of so many bytes, which is what the kernel would say of it."""

    def __init__(self, folder, size):
        self.folder, self.size = folder, size
        self._make = tempfile.mkstemp

    def free(self):
        return max(
            self.size - sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()), 0
        )

    def usage(self, _):
        return SimpleNamespace(total=self.size, free=self.free())

    def make(self, **where):
        if self.free() < 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._make(**where)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    disk = SmallDisk(tmp_path / "home", 100_000)
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    monkeypatch.setattr(tempfile, "mkstemp", disk.make)
    return disk


@pytest.mark.parametrize("seconds", [700, 0])
def test_on_a_full_disk_older_pictures_make_room_and_new_ones_stay(fetcher, hostile, small_disk, seconds):
    hostile.routes["/a.png"] = does.sends(png() + bytes(50_000))
    hostile.routes["/b.png"] = does.sends(png() + bytes(40_000))
    found = fetcher()
    old = found.fetch(hostile.url + "/a.png")
    age(old, seconds)
    small_disk.size = 50_500
    if seconds:
        assert found.fetch(hostile.url + "/b.png").stat().st_size > 40_000
    else:
        with pytest.raises(PictureCacheError, match="No space left"):
            found.fetch(hostile.url + "/b.png")
    assert old.exists() == (not seconds)


def test_a_picture_in_the_address_makes_room_too(fetcher, hostile, small_disk):
    hostile.routes["/a.png"] = does.sends(png() + bytes(50_000))
    found = fetcher()
    age(found.fetch(hostile.url + "/a.png"), 700)
    small_disk.size = 50_500
    assert found.fetch("data:image/png;base64," + base64.b64encode(png()).decode()).read_bytes() == png()


def test_some_of_the_disk_stays_free(tmp_path, small_disk):
    cache = PictureCache(tmp_path / "home", 2**30)
    paths = [put(cache, str(number), bytes(9_000)) for number in range(10)]
    for number, path in enumerate(paths):
        age(path, 10_000 - number)
    small_disk.size = 92_000
    cache.stored(9_000)
    left = [path.exists() for path in paths]
    assert left == sorted(left)
    assert 7 <= sum(left) <= 9
    assert small_disk.free() > small_disk.size * 0.05


def test_a_lock_that_cannot_be_taken_is_told(cache, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    put(cache, "a")
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(PictureCacheError, match="No locks available"):
        put(cache, "a")


def test_an_answer_that_is_gone_under_its_lock_is_told(cache):
    path = put(cache, "a")
    with cache.picture("a", "a.png", Deadline(5)) as picture:
        (path.parent / "answer.json").unlink()
        with pytest.raises(PictureCacheError):
            picture.is_fresh("a")


def test_a_place_that_cannot_be_written_is_told(fetcher, hostile, tmp_path):
    (tmp_path / "home").write_text("no folder")
    with pytest.raises(PictureCacheError) as caught:
        fetcher().fetch(hostile.url + "/a.png")
    assert str(tmp_path) not in str(caught.value)
    assert hostile.seen == []


def test_only_the_owner_may_look_into_the_cache(cache, tmp_path):
    put(cache, "a")
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


class BreaksOff(UserDict):
    """Stands for a process that ends after the new content came and before what the host said about it."""

    def keys(self):
        raise ZeroDivisionError


def test_new_content_never_has_the_old_version(cache):
    put(cache, "a")
    with cache.picture("a", "a.png", Deadline(5)) as picture:
        picture.replace([b"old"], {"etag": '"1"'}, "a")
        with pytest.raises(ZeroDivisionError):
            picture.replace([b"new"], BreaksOff(), "a")
    with cache.picture("a", "a.png", Deadline(5)) as picture:
        assert (picture.is_there, picture.condition()) == (False, {})
