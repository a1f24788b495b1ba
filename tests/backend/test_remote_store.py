"""The shared store on real places (folders, memory), and on ports where nobody answers."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from heatbox import checks, remote_store
from heatbox.errors import (
    ModelInvalidError,
    ModelNotFoundError,
    NotFittedError,
    SettingsError,
    StoreUnavailableError,
)
from heatbox.fitted import HEADER, find_state, list_states, publish_state
from heatbox.ledger import Ledger
from heatbox.models import ModelStore, make_card
from heatbox.remote_store import open_store
from heatbox.serving import serve_project
from heatbox.settings import Settings, as_environment, read_settings
from heatbox.supervisor import listen

FIELDS = {"architecture": "heatbox/tiny", "labels": ["cat"], "input_size": 64, "feature_layer": "features"}


class Counted(MemoryFileSystem):
    """A place in memory that counts what it is asked."""

    protocol = "counted"
    asked: list[str] = []  # noqa: RUF012 - shared by all instances, as fsspec keeps them

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("counted://"))

    def find(self, path, **options):
        self.asked.append("find")
        return super().find(path, **options)

    def _open(self, path, *arguments, **options):
        self.asked.append("open")
        return super()._open(path, *arguments, **options)

    def modified(self, path):
        self.asked.append("modified")
        return super().modified(path)


fsspec.register_implementation("counted", Counted, clobber=True)


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    return f"file://{tmp_path}/place" if request.param == "file" else f"memory:/{tmp_path}"


@pytest.fixture
def machine(tmp_path, url):
    """Return the maker of machines: a store each, over the same place unless another is given."""

    def make(name, place=url):
        return open_store(Settings(home=tmp_path / name, store=place))

    return make


@pytest.fixture
def silent():
    """The URL of a port that takes connections and never says anything."""
    with listen("127.0.0.1", 0) as listener:
        yield f"ftp://me:secret@127.0.0.1:{listener.getsockname()[1]}/models"


@pytest.fixture
def closed():
    """The URL of a port that was free a moment ago."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    return f"ftp://me:secret@127.0.0.1:{port}/models"


def publish(store, weights=b"weights", name="m"):
    with store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(weights)
        return store.publish(folder, make_card(name=name, **FIELDS))


def learn(store, card, number=1, explainer="anomaly"):
    """Publish a state, written by the format's specification: no tensors, then a byte."""
    about = json.dumps({"explainer": explainer, "options": {}, "label": "", "examples": 3})
    header = json.dumps({"__metadata__": {HEADER: about}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes([number])
    return publish_state(store, card, explainer, lambda path: path.write_bytes(content))


def on_place(url, name):
    """Return fsspec's file system and a file's path on the place."""
    system, root = fsspec.core.url_to_fs(url)
    return system, f"{root}/{name}"


def write(url, name, content):
    system, path = on_place(url, name)
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    system.pipe_file(path, content)


def look_again(store):
    """Let the seconds pass for which a listing is remembered."""
    store._listing.forget()  # noqa: SLF001 - rather than sleeping


def files(store):
    """Return the names of all files on a machine."""
    return sorted(
        path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*.*") if path.is_file()
    )


def test_what_one_machine_registers_is_found_by_another(machine):
    card = publish(machine("a"))
    b = machine("b")
    assert b.cards() == [card]
    assert b.find("m") == b.find(card.id) == b.find(card.id[:-4]) == card
    assert b.weights_path(card).read_bytes() == b"weights"


def test_only_the_weights_that_are_used_are_fetched(machine):
    card, other = publish(machine("a")), publish(machine("a"), name="other")
    b = machine("b")
    assert all(b.has_weights(one) for one in b.cards())
    assert not any(name.endswith("weights.safetensors") for name in files(b))
    b.weights_path(card)
    assert [name for name in files(b) if "weights" in name] == [f"m/{card.version}/weights.safetensors"]
    assert f"other/{other.version}/model.json" in files(b)


def test_a_machine_that_has_looked_already_finds_what_comes_later_at_once(machine):
    b = machine("b")
    assert b.cards() == []
    card = publish(machine("a"))
    assert b.find("m") == card


def test_the_newest_version_is_the_same_on_every_machine(machine, url):
    a = machine("a")
    old, new = publish(a, b"1"), publish(a, b"2")
    if url.startswith("file"):
        for card, second in ((old, 2_000_000_000), (new, 1_000_000_000)):  # and not by when it is fetched
            os.utime(on_place(url, f"m/{card.version}/model.json")[1], (second, second))
        old, new = new, old
    b = machine("b")
    assert b.find("m") == new
    assert [card.id for card in b.cards()] == [old.id, new.id]


def test_the_card_is_uploaded_last_and_a_registered_version_is_not_uploaded_again(tmp_path, machine):
    url = f"counted:/{tmp_path}"
    a = machine("a", url)
    card = publish(a)
    system, root = fsspec.core.url_to_fs(url)
    times = {
        name: system.created(f"{root}/m/{card.version}/{name}")
        for name in ("weights.safetensors", "model.json")
    }
    assert times["weights.safetensors"] < times["model.json"]
    publish(machine("b", url))
    assert system.created(f"{root}/m/{card.version}/model.json") == times["model.json"]


def test_a_version_whose_upload_failed_is_nowhere(machine, monkeypatch):
    a = machine("a")
    put = a._remote.put  # noqa: SLF001 - the network ends here
    failing = StoreUnavailableError("cut", "")

    def cut(source, name):
        if name.endswith("model.json"):
            raise failing
        put(source, name)

    monkeypatch.setattr(a._remote, "put", cut)  # noqa: SLF001
    with pytest.raises(StoreUnavailableError):
        publish(a)
    assert a.cards() == machine("b").cards() == []
    monkeypatch.undo()
    assert [publish(a)] == machine("b").cards()


@pytest.mark.parametrize("content", [b"", b"weight", b"weights!"], ids=["empty", "cut off", "changed"])
def test_weights_that_are_not_those_of_the_card_are_not_accepted(machine, url, content):
    card = publish(machine("a"))
    write(url, f"m/{card.version}/weights.safetensors", content)
    b = machine("b")
    with pytest.raises(
        ModelInvalidError, match=r"weights.safetensors in the shared model store is damaged, or was cut off"
    ):
        b.weights_path(b.find("m"))
    assert files(b) == [f"m/{card.version}/model.json"]
    write(url, f"m/{card.version}/weights.safetensors", b"weights")
    assert b.weights_path(card).read_bytes() == b"weights"


def test_a_damaged_card_costs_only_itself_and_is_told(machine, url, caplog):
    card, other = publish(machine("a")), publish(machine("a"), name="other")
    system, path = on_place(url, f"m/{card.version}/model.json")
    write(url, f"m/{card.version}/model.json", system.cat_file(path)[:-20])
    b = machine("b")
    assert b.cards() == [other]
    assert f"m/{card.version}/model.json in the shared model store is damaged" in caplog.text
    with pytest.raises(ModelNotFoundError):
        b.find("m")


@pytest.mark.parametrize(
    "name", [".up/0123456789ab/model.json", "m/0123/model.json", "m/0123456789ab/x/model.json", "model.json"]
)
def test_other_files_on_the_place_are_not_looked_at(machine, url, name):
    write(url, name, b"{}")
    card = publish(machine("a"))
    assert machine("b").cards() == [card]
    assert files(machine("b")) == [f"m/{card.version}/model.json"]


def test_what_was_deleted_from_the_place_is_no_longer_listed(machine, url):
    card, other = publish(machine("a")), publish(machine("a"), name="other")
    b = machine("b")
    assert len(b.cards()) == 2
    system, path = on_place(url, "other")
    system.rm(path, recursive=True)
    look_again(b)
    assert b.cards() == [card]
    assert other.id not in {one.id for one in machine("c").cards()}


def test_what_an_explainer_learnt_on_one_machine_is_used_on_another_by_its_id(machine):
    a = machine("a")
    card = publish(a)
    first, second = learn(a, card, 1), learn(a, card, 2)
    b = machine("b")
    b.find("m")
    assert find_state(b, card, "anomaly", first.id).path.read_bytes() == first.path.read_bytes()
    assert find_state(b, card, "anomaly").id == second.id
    assert [one.id for one in list_states(b, card)] == [first.id, second.id]


def test_a_state_that_comes_later_is_seen(machine):
    a, b = machine("a"), machine("b")
    card = publish(a)
    assert find_state(b, b.find("m"), "anomaly") is None
    state = learn(a, card)
    assert find_state(b, card, "anomaly", state.id).id == state.id  # a job names it: asked for at once
    assert find_state(b, card, "anomaly").id == state.id


def test_a_state_that_was_learnt_again_is_the_newest_everywhere(machine):
    a, b = machine("a"), machine("b")
    card = publish(a)
    first, second = learn(a, card, 1), learn(a, card, 2)
    assert find_state(b, b.find("m"), "anomaly").id == second.id
    learn(a, card, 1)
    look_again(b)
    assert find_state(a, card, "anomaly").id == find_state(b, card, "anomaly").id == first.id


def test_a_state_that_is_damaged_on_the_place_is_passed_over(machine, url, caplog):
    a, b = machine("a"), machine("b")
    card = publish(a)
    state = learn(a, card)
    write(url, f"m/{card.version}/state/{state.path.name}", state.path.read_bytes()[:-1])
    assert find_state(b, b.find("m"), "anomaly") is None
    assert f"{state.path.name} in the shared model store is damaged" in caplog.text
    with pytest.raises(NotFittedError):
        find_state(b, card, "anomaly", state.id)


def test_a_project_is_served_without_a_request_more_often_than_every_few_seconds(tmp_path, machine):
    url = f"counted:/{tmp_path}"
    a, b = machine("a", url), machine("b", url)
    card = publish(a)
    learn(a, card)
    settings = Settings(home=tmp_path / "b", store=url, model=card.id, explainer="anomaly")
    with closing(Ledger(settings.ledger_url)) as ledger:
        first = serve_project(settings, b, ledger, None)
        Counted.asked.clear()
        assert [serve_project(settings, b, ledger, None) for _ in range(20)] == [first] * 20
        assert Counted.asked == []
        look_again(b)
        serve_project(settings, b, ledger, None)
        assert Counted.asked == ["find", "modified"]


def mirrored(machine, name="b"):
    """Return a model that a machine has, weights and state with it, and its state."""
    a, b = machine("a"), machine(name)
    card = publish(a)
    state = learn(a, card)
    b.weights_path(b.find("m"))
    find_state(b, card, "anomaly")
    return card, state


def elsewhere(store, url, tmp_path):
    """Return the settings of a machine that has what a store has fetched, and whose place is another."""
    settings = Settings(home=tmp_path / "moved", store=url, model="m", explainer="anomaly")
    shutil.copytree(store.folder, settings.store_path)
    return settings


def test_without_the_place_a_machine_goes_on_with_what_it_has(machine, tmp_path, closed, caplog):
    card, state = mirrored(machine)
    settings = elsewhere(machine("b"), closed, tmp_path)
    store = open_store(settings)
    assert store.find(card.id) == card
    assert find_state(store, card, "anomaly", state.id).id == state.id
    assert store.weights_path(card).read_bytes() == b"weights"
    assert caplog.text == ""  # nothing was asked for
    with closing(Ledger(settings.ledger_url)) as ledger:
        for _ in range(3):
            assert serve_project(settings, store, ledger, None).pipeline.state == state.id
    place = closed.partition("@")[2].partition("/")[0]
    said = f"The model store ftp://{place} cannot be read: Connection refused. Going on with what is here."
    assert [record.message for record in caplog.records] == [said]
    assert store.cards() == [card]


def test_a_place_that_is_silent_holds_nobody_up_who_has_the_model(
    machine, tmp_path, silent, monkeypatch, caplog
):
    card, _ = mirrored(machine)
    monkeypatch.setattr(remote_store, "_PATIENCE_SECONDS", 0.2)
    store = open_store(elsewhere(machine("b"), silent, tmp_path))
    begin = time.monotonic()
    assert [store.find("m") for _ in range(20)] == [card] * 20
    assert time.monotonic() - begin < 2
    assert caplog.text.count("has not answered for 0.2 s; going on with what is here") == 1


def asks(store, card):
    return {
        "cards": store.cards,
        "find": lambda: store.find("gone"),
        "weights": lambda: store.weights_path(card),
        "state": lambda: find_state(store, card, "anomaly", "0123456789ab"),
        "publish": lambda: publish(store, b"new"),
        "reach": store.require_reachable,
    }


@pytest.mark.parametrize("what", ["cards", "find", "weights", "state", "publish", "reach"])
def test_what_is_not_here_cannot_be_had_without_the_place(tmp_path, closed, what):
    store = open_store(Settings(home=tmp_path, store=closed))
    card = make_card(name="m", sha256="0" * 64, **FIELDS)
    with pytest.raises(StoreUnavailableError, match=r"cannot be read: Connection refused") as caught:
        asks(store, card)[what]()
    assert "HEATBOX_STORE" in caught.value.remedy
    assert not any(word in str(caught.value) for word in ("secret", "me:", "/models"))


@pytest.mark.parametrize(
    ("url", "error", "sentence"),
    [
        ("nosuch://models", SettingsError, "HEATBOX_STORE cannot be nosuch://models: .*not known"),
        (
            "oss://key:secret@models/x",
            StoreUnavailableError,
            "oss://models needs a package .* Run: pip install ossfs",
        ),
        ("smb://me:secret@host/x?token=secret", StoreUnavailableError, "smb://host needs a package"),
    ],
)
def test_a_place_that_cannot_be_used_says_why_and_tells_no_secret(tmp_path, url, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        open_store(Settings(home=tmp_path, store=url)).cards()
    assert "secret" not in f"{caught.value}{open_store(Settings(home=tmp_path, store=url)).place}"


FULL = """
import resource, signal, sys
from heatbox.errors import OutputError
from heatbox.remote_store import open_store
from heatbox.settings import Settings
store = open_store(Settings(home=sys.argv[1], store=sys.argv[2]))
card = store.find("m")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    store.weights_path(card)
except OutputError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.weights_path(card).stat().st_size)
"""


def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path):
    url = f"file://{tmp_path}/place"
    publish(open_store(Settings(home=tmp_path / "a", store=url)), bytes(3000))
    answer = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "b", url], capture_output=True, text=True, check=True
    )
    told, size = answer.stdout.splitlines()
    assert told.startswith("output: The model store cannot be written: File too large. Free some space")
    assert size == "3000"


KILLED = """
import os, signal, sys
from heatbox import remote_files
from heatbox.remote_store import open_store
from heatbox.settings import Settings
remote_files._BLOCK = 1000
store = open_store(Settings(home=sys.argv[1], store=sys.argv[2]))
card = store.find("m")
def killing(event, arguments):
    if event == "os.utime" and "weights" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(killing)
store.weights_path(card)
"""


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_that_counts(tmp_path):
    url = f"file://{tmp_path}/place"
    card = publish(open_store(Settings(home=tmp_path / "a", store=url)), bytes(3000))
    answer = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "b", url], check=False)
    assert answer.returncode == -9
    b = open_store(Settings(home=tmp_path / "b", store=url))
    assert list(b.folder.glob(".incoming-*/weights.safetensors"))  # it got so far
    assert not (b.path(card) / "weights.safetensors").exists()
    assert b.weights_path(card).read_bytes() == bytes(3000)


TOGETHER = """
import hashlib, sys
from heatbox.remote_store import open_store
from heatbox.settings import Settings
store = open_store(Settings(home=sys.argv[1], store=sys.argv[2]))
sys.stdin.readline()
print(hashlib.sha256(store.weights_path(store.find("m")).read_bytes()).hexdigest())
"""


def test_processes_that_fetch_the_same_at_once_all_have_it(tmp_path):
    url, weights = f"file://{tmp_path}/place", os.urandom(20_000_000)
    publish(open_store(Settings(home=tmp_path / "a", store=url)), weights)
    command = [sys.executable, "-c", TOGETHER, tmp_path / "b", url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(3)]
    answers = [process.communicate("\n")[0].strip() for process in running]
    assert answers == [hashlib.sha256(weights).hexdigest()] * 3
    assert not list(tmp_path.glob("b/store-cache/*/.incoming-*"))


def test_a_folder_costs_no_fsspec(tmp_path):
    script = (
        "import sys; from heatbox.settings import Settings; from heatbox.remote_store import open_store\n"
        "print(open_store(Settings(home=sys.argv[1])).cards(), 'fsspec' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[] False"


def test_a_url_reaches_the_processes_that_heatbox_starts(tmp_path):
    settings = Settings(home=tmp_path, store="s3://bucket/models?x=1")
    assert read_settings(as_environment(settings)) == settings


@pytest.mark.parametrize("text", ["/srv/models", "models", "file:models"])
def test_what_is_no_url_is_a_folder(text):
    settings = read_settings({"HEATBOX_STORE": text})
    assert settings.store == settings.store_path == open_store(settings).folder == Path(text)
    assert type(open_store(settings)) is ModelStore


def test_each_url_has_a_folder_of_its_own_on_this_machine(tmp_path):
    urls = ["s3://bucket/a", "s3://bucket/b", "s3://bucket/a/"]
    a, b, same = [read_settings({"HEATBOX_HOME": str(tmp_path), "HEATBOX_STORE": url}) for url in urls]
    assert a.store == "s3://bucket/a"
    assert a.store_path == same.store_path != b.store_path
    assert a.store_path.parent == tmp_path / "store-cache"


def test_the_doctor_looks_at_the_place(tmp_path, machine, url, closed, monkeypatch):
    monkeypatch.setattr(checks, "_torch", checks._versions)  # noqa: SLF001 - it takes seconds, and is not the point
    card = publish(machine("a"))

    def check(url):
        found = checks.run_checks(Settings(home=tmp_path / "c", store=url, model=card.id))
        return next(one for one in found if one.name == "model store")

    assert (check(url).state, check(url).found) == ("ok", f"1 models in {url}")
    assert check(closed).state == "error"
    assert "Connection refused" in check(closed).found


def test_times_without_a_zone_are_universal():
    class Naive(Counted):
        protocol = "naive"

        def modified(self, path):  # noqa: ARG002
            return datetime(2030, 1, 1)  # noqa: DTZ001 - some places answer so

    fsspec.register_implementation("naive", Naive, clobber=True)
    from heatbox.remote_files import RemoteFiles

    expected = datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1e9
    assert RemoteFiles("naive://x").modified("any") == expected
