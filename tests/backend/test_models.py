"""The model store: cards are checked, versions are content, and nobody ever sees half a model."""

import json
import os
import subprocess
import sys
import time

import pytest

from heatbox.errors import ModelInvalidError, ModelNotFoundError, OutputError
from heatbox.models import ModelStore, file_sha256, make_card, read_card

FIELDS = {"name": "tiny", "architecture": "heatbox/tiny", "labels": ["cat", "dog"], "input_size": 64}

KILLED_EVERYWHERE = """
import itertools, json, os, signal, sys
from pathlib import Path
from heatbox.models import ModelStore, file_sha256, make_card

EVENTS = {"open", "os.chmod", "os.mkdir", "os.rename", "os.rmdir", "os.scandir"}

def publish(store):
    with store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(b"weights")
        store.publish(folder, make_card(**json.loads(sys.argv[2])))

def killed_at(step, store):
    steps = itertools.count(1)
    def hook(event, _):
        if event in EVENTS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        publish(store)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

for step in itertools.count(1):
    store = ModelStore(Path(sys.argv[1]) / str(step))
    killed = killed_at(step, store)
    seen = store.cards()
    whole = [file_sha256(store.weights_path(card)) == card.sha256 for card in seen]
    publish(store)
    print(json.dumps([killed, whole, len(store.cards())]))
    if not killed:
        break
"""

RACE = """
import json, sys
from pathlib import Path
from heatbox.models import ModelStore, make_card

store, late = ModelStore(Path(sys.argv[1])), []

def publish():
    with store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(b"weights")
        return store.publish(folder, make_card(**json.loads(sys.argv[2]))).id

def hook(event, _):
    if event == "os.rename" and not late:
        late.append(None)
        late.append(publish())

sys.addaudithook(hook)
first = publish()
print(json.dumps([first, late[1], [card.id for card in store.cards()]]))
"""


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return ModelStore(tmp_path / "models")


def publish(store, weights=b"weights", **fields):
    with store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(weights)
        return store.publish(folder, make_card(**{**FIELDS, **fields}))


def run(script, *arguments):
    answer = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments), json.dumps(FIELDS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"name": ""}, "name"),
        ({"name": ".hidden"}, "name"),
        ({"name": "../up"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a@b"}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"architecture": ""}, "architecture"),
        ({"labels": []}, "labels"),
        ({"labels": "cat"}, "labels"),
        ({"labels": ["cat", "dog", "cat"]}, "labels appear more than once: cat"),
        ({"input_size": 15}, "input_size"),
        ({"input_size": 5000}, "input_size"),
        ({"input_size": "big"}, "input_size"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0.5, 0, 0.5]}, "std.1"),
        ({"head": "tanh"}, "head"),
        ({"padding": "valid"}, "padding"),
        ({"box_threshold": 1}, "box_threshold"),
        ({"format": 2}, "format"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(changes, where):
    with pytest.raises(ModelInvalidError, match=rf"^model-invalid: model card: (file: .*)?{where}\b"):
        make_card(**{**FIELDS, **changes})


@pytest.mark.parametrize("missing", FIELDS)
def test_a_missing_field_is_named(missing):
    with pytest.raises(ModelInvalidError, match=f"{missing}: Field required"):
        make_card(**{name: value for name, value in FIELDS.items() if name != missing})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"name": "tiny"}'])
def test_a_damaged_card_file_is_told_by_its_name(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ModelInvalidError, match=r"^model-invalid: model\.json: "):
        read_card(tmp_path / "model.json")


def test_a_card_that_is_no_file_is_told(tmp_path):
    with pytest.raises(ModelNotFoundError, match="There is no card"):
        read_card(tmp_path / "model.json")
    with pytest.raises(ModelInvalidError, match="cannot be read: Is a directory"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "torchvision/resnet18"},
        {"architecture_options": {"depth": 2}},
        {"labels": ["dog", "cat"]},
        {"input_size": 65},
        {"mean": [0.5, 0.5, 0.5]},
        {"std": [0.5, 0.5, 0.5]},
        {"head": "sigmoid"},
        {"feature_layer": "features"},
        {"padding": "tf_same"},
        {"sha256": "0" * 64},
        {"box_threshold": 0.2},
    ],
)
def test_what_changes_what_comes_out_changes_the_version(changes):
    assert make_card(**{**FIELDS, **changes}).version != make_card(**FIELDS).version


@pytest.mark.parametrize(
    "changes",
    [{"name": "other"}, {"licence": "MIT"}, {"source": "here"}, {"head": "softmax"}],
)
def test_what_only_describes_does_not_change_the_version(changes):
    assert make_card(**{**FIELDS, **changes}).version == make_card(**FIELDS).version


def test_the_version_is_the_one_that_stores_already_hold():
    """A failure here means that every registered model counts as damaged: change it knowingly."""
    assert make_card(**FIELDS, sha256="0" * 64).id == "tiny@96ce39c83be1"


def test_a_published_model_is_found_with_its_weights(store):
    card = publish(store, b"the weights")
    assert store.cards() == [card] == [store.find("tiny")]
    assert store.weights_path(card).read_bytes() == b"the weights"
    assert file_sha256(store.weights_path(card)) == card.sha256
    assert sorted(path.name for path in store.folder.iterdir()) == ["tiny"]


def test_the_same_content_twice_is_one_version_and_the_first_stays(store):
    first = publish(store, licence="MIT")
    before = store.path(first).stat().st_ino
    assert publish(store, licence="BSD") == first
    assert store.path(first).stat().st_ino == before
    assert [path.name for path in store.folder.iterdir()] == ["tiny"]


def test_versions_are_listed_by_name_and_then_by_age(store):
    second, first = publish(store, name="b", weights=b"1"), publish(store, name="a", weights=b"2")
    third = publish(store, name="b", weights=b"3")
    for age, card in ((20, second), (10, third)):
        path = store.path(card) / "model.json"
        os.utime(path, ns=(path.stat().st_mtime_ns - age * 10**9,) * 2)
    assert store.cards() == [first, second, third]
    assert store.find("b") == third


def test_a_model_is_found_by_name_version_or_the_start_of_it(store):
    cards = [publish(store, weights) for weights in (b"1", b"2", b"3")]
    for card in cards:
        assert store.find(card.id) == store.find(card.id[:9]) == card
    assert store.find("tiny@") == store.find("tiny")


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("tinny", "Did you mean 'tiny'?"),
        ("zzz", "Registered are: tiny."),
        ("../models/tiny", "Registered are: tiny."),
        ("*", "Registered are: tiny."),
        ("", "Registered are: tiny."),
    ],
)
def test_an_unknown_model_comes_with_the_nearest_name(store, reference, hint):
    publish(store)
    with pytest.raises(ModelNotFoundError) as caught:
        store.find(reference)
    assert caught.value.sentence == f"No model {reference!r} in the store."
    assert caught.value.remedy == f"{hint} Add one with `heatbox models add`."


def test_an_unknown_version_comes_with_those_that_there_are(store):
    card = publish(store)
    with pytest.raises(ModelNotFoundError) as caught:
        store.find("tiny@zzz")
    assert caught.value.sentence == "No version 'zzz' of 'tiny' in the store."
    assert caught.value.remedy == f"It has: {card.version}."


def test_an_empty_or_missing_store_has_no_models(store):
    assert store.cards() == []
    with pytest.raises(ModelNotFoundError, match="Registered are: none"):
        store.find("tiny")
    assert not store.folder.exists()


@pytest.mark.parametrize("folder", [".incoming-abc", "tiny/.half", "tiny/0123"])
def test_a_half_written_folder_is_invisible(store, folder):
    half = store.folder / folder
    half.mkdir(parents=True)
    (half / "weights.safetensors").write_bytes(b"half")
    if folder != "tiny/0123":
        (half / "model.json").write_text(json.dumps(FIELDS))
    assert store.cards() == []


def test_an_error_while_the_folder_is_filled_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(bytes(1 // 0))
    assert list(store.folder.iterdir()) == []


def test_killed_at_any_step_there_is_no_model_or_a_whole_one_and_the_next_try_works(tmp_path):
    steps = run(KILLED_EVERYWHERE, tmp_path)
    assert [killed for killed, _, _ in steps] == [True] * (len(steps) - 1) + [False]
    assert len(steps) > 6
    seen = [whole for _, whole, _ in steps]
    assert seen == sorted(seen)
    assert seen[0] == []
    assert seen[-1] == [True]
    assert {after for _, _, after in steps} == {1}


def test_two_that_publish_the_same_at_the_same_moment_both_succeed(store):
    ((first, second, cards),) = run(RACE, store.folder)
    assert first == second
    assert cards == [first]


def test_a_damaged_model_is_named_and_the_others_are_still_found(store):
    good, bad = publish(store), publish(store, name="bad")
    (store.path(bad) / "model.json").write_text("{")
    with pytest.raises(ModelInvalidError, match=f"The model bad@{bad.version} is damaged") as caught:
        store.find("bad")
    assert f"bad/{bad.version}" in caught.value.remedy
    assert store.find("tiny") == good


def test_a_card_that_was_changed_by_hand_is_refused(store):
    card = publish(store)
    path = store.path(card) / "model.json"
    path.write_text(path.read_text().replace('"cat"', '"cow"'))
    with pytest.raises(ModelInvalidError, match=f"{card.id} was changed since it was registered"):
        store.find("tiny")


def test_a_description_may_be_changed_by_hand(store):
    card = publish(store)
    path = store.path(card) / "model.json"
    path.write_text(path.read_text().replace('"licence": ""', '"licence": "MIT"'))
    assert store.find("tiny").licence == "MIT"


def test_a_store_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(OutputError, match=r"cannot be written: .*HEATBOX_STORE"),
        ModelStore(tmp_path / "file" / "models").incoming(),
    ):
        pytest.fail("it was written")


def test_a_name_that_cannot_become_a_folder_is_told_and_nothing_is_left(store):
    store.folder.mkdir()
    (store.folder / "tiny").write_text("not a folder")
    with pytest.raises(OutputError, match="The model store cannot be written"):
        publish(store)
    assert [path.name for path in store.folder.iterdir()] == ["tiny"]


def test_what_a_killed_process_left_is_cleared_after_a_day(store):
    for name, age in ((".incoming-old", 2 * 86_400), (".incoming-new", 60)):
        folder = store.folder / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age, time.time() - age))
    with store.incoming():
        pass
    assert [path.name for path in store.folder.iterdir()] == [".incoming-new"]
