"""A checkpoint is whole or not there, and only its own training takes it up."""

import json
import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from heatbox.errors import OutputError
from heatbox_workers.training.checkpoint import (
    Checkpoint,
    Progress,
    forget,
    load_checkpoint,
    restore_optimiser,
    save_checkpoint,
)

FILE = "checkpoint.safetensors"


def made(value=1.0, epoch=3):
    weights = {"head.weight": torch.full((2, 3), value)}
    memory = {"head.weight/step": torch.tensor(5.0), "head.weight/exp_avg": torch.ones(2, 3)}
    return Checkpoint(Progress(epoch, 0.25, 2), weights, {"head.weight": torch.zeros(2, 3)}, memory)


def test_what_was_written_is_read(tmp_path):
    save_checkpoint(tmp_path / "new", "me", made())
    found = load_checkpoint(tmp_path / "new", "me")
    assert found.progress == Progress(3, 0.25, 2)
    for name in ("weights", "best", "optimiser"):
        ours, theirs = getattr(made(), name), getattr(found, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_nothing_best_yet_is_read_too(tmp_path):
    save_checkpoint(tmp_path, "me", Checkpoint(Progress(), made().weights, {}))
    assert load_checkpoint(tmp_path, "me").progress.best == float("inf")


def test_of_another_training_it_is_not_used(tmp_path):
    save_checkpoint(tmp_path, "me", made())
    assert load_checkpoint(tmp_path, "another") is None


@pytest.mark.parametrize("left", [0, 4, 50, -1])
def test_a_torn_file_is_as_if_there_were_none(tmp_path, left):
    save_checkpoint(tmp_path, "me", made())
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:left])
    assert load_checkpoint(tmp_path, "me") is None


@pytest.mark.parametrize(
    "header",
    [{}, {"training": "{"}, {"training": "{}"}, {"training": json.dumps({"identity": "me", "steps": 1})}],
)
def test_a_file_that_is_no_checkpoint_of_ours_is_as_if_there_were_none(tmp_path, header):
    save_file({"weights/a": torch.ones(1)}, tmp_path / FILE, header)
    assert load_checkpoint(tmp_path, "me") is None


def test_none_is_there_at_the_beginning_and_after_the_end(tmp_path):
    assert load_checkpoint(tmp_path / "nowhere", "me") is None
    save_checkpoint(tmp_path, "me", made())
    forget(tmp_path)
    forget(tmp_path)
    assert load_checkpoint(tmp_path, "me") is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="checkpoint cannot be written") as caught:
        save_checkpoint(tmp_path / "taken", "me", made())
    assert "space" in caught.value.remedy


@contextmanager
def full_disk(most=4096):
    """Let no file of this process grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_the_last_one_stays_and_nothing_half_written(tmp_path):
    save_checkpoint(tmp_path, "me", made())
    large = Checkpoint(Progress(4), {"head.weight": torch.ones(100_000)}, {})
    with full_disk(), pytest.raises(OutputError, match="cannot be written"):
        save_checkpoint(tmp_path, "me", large)
    assert load_checkpoint(tmp_path, "me").progress.epoch == 3
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_optimiser_goes_on_with_its_memory():
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.AdamW([weight])
    memory = {
        "w/step": torch.tensor(7.0),
        "w/exp_avg": torch.ones(2),
        "w/exp_avg_sq": torch.ones(2),
        "v/step": torch.tensor(1.0),
    }
    restore_optimiser(optimiser, {id(weight): "w"}, memory)
    assert optimiser.state[weight].keys() == {"step", "exp_avg", "exp_avg_sq"}
    weight.grad = torch.ones(2)
    optimiser.step()
    assert float(optimiser.state[weight]["step"]) == 8
