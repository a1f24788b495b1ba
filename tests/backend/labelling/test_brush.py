"""Brush masks, read back by a reader of our own and by Label Studio's."""

import json
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from heatbox.labelling.brush import encode_mask

STUDIO = Path(__file__).resolve().parents[3] / ".venv-studio" / "bin" / "python"
READ = (
    "import json, sys; from label_studio_sdk.converter.brush import decode_rle;"
    "print(json.dumps([decode_rle(rle).tolist() for rle in json.load(sys.stdin)]))"
)


def decoded(rle):
    """Return the values that a run-length form stands for, read as the format's description says."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    size, word = read(32), read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < size:
        same = read(1)
        count = read(widths[read(2)]) + 1
        values += [read(word)] * count if same else [read(word) for _ in range(count)]
    assert not bits[place:].strip("0")
    assert len(bits) - place < 8
    return values


def painted(mask):
    """Return the values of a mask's RGBA picture."""
    return np.repeat(np.where(mask, 255, 0).ravel(), 4).tolist()


def large():
    """Return a mask whose runs are of every length that the format has a width for."""
    mask = np.zeros((300, 400), bool)
    mask[0, 1] = mask[0, 3:6] = mask[0, 10:60] = mask[1:10] = mask[200:] = True
    return mask


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_a_mask_is_read_back_as_it_was(mask):
    assert decoded(encode_mask(mask)) == painted(mask)


@given(st.integers(1, 70_000))
def test_a_run_of_any_length_is_read_back(length):
    mask = np.zeros((1, 70_001), bool)
    mask[0, :length] = True
    assert decoded(encode_mask(mask)) == painted(mask)


def test_long_runs_take_a_few_bytes_each():
    assert len(encode_mask(np.ones((1080, 1920), bool))) < 500


@pytest.mark.skipif(not STUDIO.exists(), reason="Label Studio is not installed here (make studio)")
def test_label_studios_own_reader_reads_the_same():
    masks = [large(), ~large(), np.zeros((3, 2), bool), np.ones((1, 1), bool)]
    masks += [np.array(cells, bool).reshape(2, 2) for cells in product((0, 1), repeat=4)]
    given_ = json.dumps([encode_mask(mask) for mask in masks])
    answer = subprocess.run([STUDIO, "-c", READ], input=given_, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == [painted(mask) for mask in masks]
