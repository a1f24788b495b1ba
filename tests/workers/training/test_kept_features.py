"""Kept feature maps: computed once, found again, and computed anew where they are damaged."""

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from fixtures_learning import network_of, squares
from safetensors.torch import load_file

from heatbox.errors import OutputError, PictureError
from heatbox.pictures.images import Limits, read_picture
from heatbox_workers.training.cut import output_of
from heatbox_workers.training.kept_features import KeptFeatures, trim


@pytest.fixture
def base():
    return network_of()


@pytest.fixture
def examples(tmp_path):
    return squares(tmp_path / "pictures", 4)


def features(base, folder, layer="features", variants=2):
    return KeptFeatures(folder / "features", base, layer, variants, Limits())


def files(folder):
    return sorted((folder / "features").glob("*/*"))


def test_the_maps_are_those_of_the_network(tmp_path, base, examples):
    kept = features(base, tmp_path, variants=4)
    shown = [kept.prepare(one) for one in examples]
    found = kept.maps(shown, [0, 1, 2, 3])
    pixels = [
        one.variants[number].of(read_picture(one.example.path, Limits()).pixels)
        for number, one in enumerate(shown)
    ]
    expected = output_of(base.network, "features", base.preprocess(pixels))
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_second_training_computes_none_and_reads_no_picture(tmp_path, base, examples):
    first, second = features(base, tmp_path), features(base, tmp_path)
    shown = [first.prepare(one) for one in examples]
    for one in examples:
        one.path.unlink()
    assert [second.prepare(one) for one in examples] == shown
    assert (first.computed, second.computed) == (4, 0)
    assert torch.equal(first.maps(shown, [0] * 4), second.maps(shown, [0] * 4))


@pytest.mark.parametrize("change", ["layer", "variants", "weights", "size"])
def test_another_layer_number_of_variants_model_or_size_computes_its_own(tmp_path, base, examples, change):
    features(base, tmp_path).prepare(examples[0])
    other = {
        "layer": lambda: features(base, tmp_path, "features.5"),
        "variants": lambda: features(base, tmp_path, variants=1),
        "weights": lambda: features(network_of("torchvision/mobilenet_v3_small"), tmp_path),
        "size": lambda: features(network_of(size=32), tmp_path),
    }[change]()
    other.prepare(examples[0])
    assert other.computed == 1
    assert len(files(tmp_path)) == 2


def test_a_network_with_the_same_card_and_other_weights_has_its_own(tmp_path, base, examples):
    features(base, tmp_path).prepare(examples[0])
    changed = replace(base, card=base.card.model_copy(update={"sha256": "1" * 64}))
    other = features(changed, tmp_path)
    other.prepare(examples[0])
    assert other.computed == 1


@pytest.mark.parametrize("left", [0, 30, -10])
def test_a_damaged_file_is_computed_anew(tmp_path, base, examples, left):
    kept = features(base, tmp_path)
    shown = [kept.prepare(examples[0])]
    right = kept.maps(shown, [1])
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    assert torch.equal(kept.maps(shown, [1]), right)
    path.write_bytes(path.read_bytes()[:left])
    again = features(base, tmp_path)
    again.prepare(examples[0])
    assert again.computed == 1
    assert load_file(path)["maps"].shape == (2, 64, 8, 8)


def test_maps_that_another_training_removed_are_computed_anew(tmp_path, base, examples):
    kept = features(base, tmp_path)
    shown = [kept.prepare(one) for one in examples]
    for path in files(tmp_path):
        path.unlink()
    path.parent.rmdir()
    assert kept.maps(shown, [0] * 4).shape == (4, 64, 8, 8)
    assert len(files(tmp_path)) == 4


def test_where_the_picture_is_gone_too_it_says_so(tmp_path, base, examples):
    kept = features(base, tmp_path)
    shown = [kept.prepare(examples[0])]
    files(tmp_path)[0].unlink()
    examples[0].path.unlink()
    with pytest.raises(PictureError, match=examples[0].name):
        kept.maps(shown, [0])


def test_maps_beyond_the_range_of_float16_are_kept_whole(tmp_path, base, examples):
    with torch.no_grad():
        base.network.features[-1][1].weight.mul_(1e7)
    kept = features(base, tmp_path)
    found = kept.maps([kept.prepare(examples[0])], [0])
    assert bool(found.isfinite().all())
    assert float(found.max()) > 65504


def test_maps_within_it_take_two_bytes_a_value(tmp_path, base, examples):
    features(base, tmp_path).prepare(examples[0])
    (path,) = files(tmp_path)
    assert path.stat().st_size == pytest.approx(2 * 64 * 8 * 8 * 2, abs=200)


def test_what_is_kept_of_an_example_has_no_pixels(tmp_path, base, examples):
    shown = features(base, tmp_path).prepare(examples[0])
    assert len(pickle.dumps(shown)) < 3000


def test_two_at_once_leave_whole_files(tmp_path, base, examples):
    both = [features(base, tmp_path), features(base, tmp_path)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda kept: [kept.prepare(one) for one in examples], both))
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"] * 4
    assert features(base, tmp_path).prepare(examples[0])


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path, base, examples):
    (tmp_path / "features").write_text("")
    with pytest.raises(OutputError, match="Feature maps cannot be written"):
        features(base, tmp_path).prepare(examples[0])


def key(folder, name, size, age):
    path = folder / name
    path.mkdir(parents=True)
    (path / "one.safetensors").write_bytes(b"0" * size)
    os.utime(path, (time.time() - age,) * 2)


def test_what_was_used_longest_ago_is_removed_until_the_rest_fits(tmp_path):
    for name, age in [("old", 300), ("newer", 200), ("newest", 100)]:
        key(tmp_path, name, 100, age)
    trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newer", "newest"]
    trim(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]


def test_what_is_in_use_counts_as_the_newest(tmp_path, base, examples):
    kept = features(base, tmp_path)
    kept.prepare(examples[0])
    (own,) = (tmp_path / "features").iterdir()
    os.utime(own, (0, 0))
    key(tmp_path / "features", "other", 100, 50)
    features(base, tmp_path)
    trim(tmp_path / "features", 10)
    assert list((tmp_path / "features").iterdir()) == [own]


def test_half_written_files_of_killed_processes_go_after_a_day(tmp_path):
    key(tmp_path, "mine", 100, 0)
    for name, age in [(".incoming-old", 100_000), (".incoming-now", 10)]:
        path = tmp_path / "mine" / name
        path.write_bytes(b"0")
        os.utime(path, (time.time() - age,) * 2)
    trim(tmp_path)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        ".incoming-now",
        "one.safetensors",
    ]


def test_nothing_there_is_nothing_to_trim(tmp_path):
    trim(tmp_path / "nowhere")
