"""Fitted states: named after their content, read without torch, never torn."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from heatbox.errors import ModelInvalidError, NotFittedError, OptionError, OutputError
from heatbox.fitted import HEADER, find_state, list_states, publish_state, require_options
from heatbox.models import ModelStore, make_card

CARD = make_card(name="m", architecture="heatbox/tiny", labels=("a",), input_size=64)


@pytest.fixture
def store(tmp_path):
    store = ModelStore(tmp_path / "store")
    store.path(CARD).mkdir(parents=True)
    return store


def content(number=1, label="", **options):
    """Return a safetensors file's bytes, written by the format's specification: no tensors, then a byte."""
    about = json.dumps({"explainer": "anomaly", "options": options, "label": label, "examples": 3})
    header = json.dumps({"__metadata__": {HEADER: about}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes([number])


@pytest.fixture
def publish(store):
    """Publish a state; each is a second newer than the one before, on any file system."""
    times = iter(range(1_000_000_000, 1_000_001_000))

    def publish(written=b"", explainer="anomaly"):
        state = publish_state(store, CARD, explainer, lambda path: path.write_bytes(written or content()))
        os.utime(state.path, (next(times),) * 2)
        return state

    return publish


def test_a_state_is_named_after_its_content(publish):
    written = content(label="strange", bank=7)
    state = publish(written)
    assert state.id == hashlib.sha256(written).hexdigest()[:12]
    assert state.path.name == f"anomaly.{state.id}.safetensors"
    assert (state.options, state.label, state.examples) == ({"bank": 7}, "strange", 3)


def test_what_others_must_read_is_readable_for_all(publish):
    assert publish().path.stat().st_mode & 0o777 == 0o644


def test_the_newest_state_of_an_explainer_is_used(publish, store):
    old, new, other = publish(content(1)), publish(content(2)), publish(content(3), "faster_grad_cam")
    assert find_state(store, CARD, "anomaly") == new
    assert find_state(store, CARD, "anomaly", old.id) == old
    assert list_states(store, CARD) == [old, new, other]


def test_fitting_the_same_again_is_the_same_state_and_makes_it_the_newest(publish, store):
    first, _ = publish(content(1)), publish(content(2))
    assert publish(content(1)) == first
    assert find_state(store, CARD, "anomaly") == first
    assert len(list_states(store, CARD)) == 2


def test_an_explainer_that_was_not_fitted_has_no_state(publish, store):
    assert find_state(store, CARD, "anomaly") is None
    publish()
    assert find_state(store, CARD, "anom") is None


def test_a_state_that_is_gone_is_told_with_how_to_fit_again(publish, store):
    publish()
    with pytest.raises(NotFittedError, match=f"heatbox fit anomaly DATASET --model {CARD.id}"):
        find_state(store, CARD, "anomaly", "0123456789ab")


@pytest.mark.parametrize("explainer", ["mine.own", "a-b_c"])
def test_any_entry_points_name_can_be_kept(publish, store, explainer):
    assert publish(explainer=explainer).explainer == explainer
    assert find_state(store, CARD, explainer)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x00",
        b"\xff" * 40,
        (2).to_bytes(8, "little") + b"{}",
        content()[:20],
        content().replace(b"heatbox", b"hotbox!"),
        content().replace(b"options", b"choices"),
        content().replace(b'\\"options\\": {}', b'\\"options\\": 17'),
    ],
)
def test_a_damaged_header_is_told(publish, store, damaged):
    publish().path.write_bytes(damaged)
    with pytest.raises(ModelInvalidError, match="of anomaly is damaged"):
        find_state(store, CARD, "anomaly")


def test_files_that_are_no_states_are_passed_over(publish, store):
    state = publish()
    for name in (".incoming-x", ".a.b.safetensors", "notes.txt", "notes.safetensors"):
        (state.path.parent / name).write_bytes(b"no state")
    assert list_states(store, CARD) == [state]


def test_writing_that_fails_leaves_nothing(publish, store):
    def torn(path):
        path.write_bytes(content()[:20])
        raise KeyError("torn")

    kept = publish()
    with pytest.raises(KeyError, match="torn"):
        publish_state(store, CARD, "anomaly", torn)
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_a_store_that_cannot_be_written_is_told(store):
    (store.path(CARD) / "state").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        publish_state(store, CARD, "anomaly", lambda path: path.write_bytes(content()))


def test_a_full_disk_is_told_and_leaves_nothing(publish, store):
    def full(_):
        raise OSError(28, "No space left on device")

    kept = publish()
    with pytest.raises(OutputError, match="No space left on device"):
        publish_state(store, CARD, "anomaly", full)
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_another_explainers_damaged_state_harms_nobody(publish, store):
    state = publish()
    publish(explainer="faster_grad_cam").path.write_bytes(b"damaged")
    assert find_state(store, CARD, "anomaly") == state


@pytest.mark.parametrize("given", [{}, {"bank": 7}, {"bank": "7"}, {"bank": 7, "layers": ("a", "b")}])
def test_the_options_it_was_fitted_with_may_be_given(publish, given):
    require_options(publish(content(bank=7, layers=["a", "b"])), given)


@pytest.mark.parametrize("given", [{"bank": 8}, {"bank": "8"}, {"bank": "x"}])
def test_other_options_ask_for_another_fit(publish, given):
    (name, value), *_ = given.items()
    with pytest.raises(NotFittedError, match=f"not {value}") as told:
        require_options(publish(content(bank=7)), given)
    assert f"--explainer-option {name}={value}" in told.value.remedy


def test_a_misspelt_option_is_told_with_those_that_there_are(publish):
    with pytest.raises(OptionError, match="no option 'bnak'") as told:
        require_options(publish(content(bank=7, seed=0)), {"bnak": 7})
    assert "bank, seed" in told.value.remedy


def test_states_are_found_and_read_without_torch(publish, store):
    state = publish()
    code = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from heatbox.fitted import find_state\n"
        "from heatbox.models import Card, ModelStore\n"
        "from pathlib import Path\n"
        "card = Card.model_validate_json(sys.argv[2])\n"
        "print(find_state(ModelStore(Path(sys.argv[1])), card, 'anomaly').id)"
    )
    command = [sys.executable, "-c", code, store.folder, CARD.model_dump_json()]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{state.id}\n"
