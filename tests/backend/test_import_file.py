"""The import file: always whole JSON or the old file, whatever happens while it is written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from heatbox.errors import OutputError
from heatbox.import_file import atomic_text, local_files_address, write_tasks

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from heatbox.errors import OutputError
from heatbox.import_file import write_tasks

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with write_tasks(Path(sys.argv[1])) as tasks:
        for _ in range(1000):
            tasks.add({"data": {"image": "x" * 100}})
except OutputError as error:
    print(error)
"""


def add_all(writer, tasks):
    for task in tasks:
        writer.add(task)


def write_to(path):
    with atomic_text(path) as file:
        file.write("text")


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_any_number_of_tasks_is_one_json_list(tmp_path, count):
    tasks = [{"data": {"image": f"Bär {number}.jpg"}} for number in range(count)]
    with write_tasks(tmp_path / "out.json") as writer:
        add_all(writer, tasks)
        assert writer.count == count
    assert json.loads((tmp_path / "out.json").read_bytes()) == tasks


def test_text_stays_readable_and_half_a_character_stays_valid_json(tmp_path):
    task = {"data": {"image": "Bär", "broken": "\udce9"}}
    with write_tasks(tmp_path / "out.json") as writer:
        writer.add(task)
    written = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert "Bär" in written
    assert json.loads(written) == [task]


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(TypeError), write_tasks(path) as tasks:
        add_all(tasks, [{"data": {}}, {"data": object()}])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    with write_tasks(path) as tasks:
        tasks.add({"data": {}})
        assert path.read_text() == "old"
    assert json.loads(path.read_text()) == [{"data": {}}]


def test_missing_folders_are_made(tmp_path):
    with atomic_text(tmp_path / "a" / "b" / "c.txt") as file:
        file.write("text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_a_full_disk_is_told_and_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    script = [sys.executable, "-c", FULL_DISK, str(path)]
    answer = subprocess.run(script, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(f"output: {path} cannot be written: File too large. Free some space")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_is_written_where_it_is(tmp_path):
    device = tmp_path / "full"  # a link, so that a failure of this test costs nobody the device
    device.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="full cannot be written: No space left on device"):
        write_to(device)
    assert device.is_char_device()


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["/bin/cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write_to(pipe)
        assert reader.communicate()[0] == b"text"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "Is a directory"),
        (".", "Is a directory"),
        ("", "Is a directory"),
        ("/", "Is a directory"),
        ("file/out.json", "File exists|Not a directory"),
        ("x" * 300, "File name too long"),
        ("folder/" + "x" * 250, "File name too long"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_told_before_any_work(tmp_path, monkeypatch, path, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=f"cannot be written: ({reason})"), atomic_text(Path(path)):
        pytest.fail("the work began")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("a.jpg", "/data/local-files/?d=a.jpg"),
        ("sub/a b.jpg", "/data/local-files/?d=sub/a%20b.jpg"),
        ("ä&b=c#d?e%.jpg", "/data/local-files/?d=%C3%A4%26b%3Dc%23d%3Fe%25.jpg"),
        ("sub/../a.jpg", "/data/local-files/?d=a.jpg"),
    ],
)
def test_the_address_of_a_file_is_relative_to_the_document_root(tmp_path, name, address):
    assert local_files_address(tmp_path / name, tmp_path) == address


def test_a_file_name_that_is_not_utf_8_has_an_address(tmp_path):
    address = local_files_address(tmp_path / os.fsdecode(b"caf\xe9.jpg"), tmp_path)
    assert unquote_to_bytes(address.partition("?d=")[2]) == b"caf\xe9.jpg"


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "link/a.jpg"])
def test_a_file_outside_the_document_root_has_no_address(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match=r"is not below the document root .* --document-root"):
        local_files_address(root / name, root)
