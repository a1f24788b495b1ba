"""Embeddings on a plane: groups stay together, the same seed makes the same map, and few pictures are no trouble."""

import numpy as np
import pytest

from heatbox_workers.data_map.projection import bounded, flat_map


def groups(count, size=12):
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(count, 32)) * 8
    return np.concatenate([middle + rng.normal(size=(size, 32)) for middle in middles]).astype(np.float32)


def test_groups_stay_together():
    places = flat_map(groups(3)).reshape(3, 12, 2)
    middles = places.mean(axis=1)
    within = np.linalg.norm(places - middles[:, None], axis=2).max()
    between = min(np.linalg.norm(middles[a] - middles[b]) for a, b in [(0, 1), (0, 2), (1, 2)])
    assert between > 2 * within


def test_the_same_seed_makes_the_same_map_within_the_page():
    first = flat_map(groups(2), seed=3)
    assert np.array_equal(first, flat_map(groups(2), seed=3))
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.ptp(first[:, 0]) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_few_pictures_have_places_too(count):
    places = flat_map(groups(1, count))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


def test_pictures_that_are_all_the_same_have_one_place():
    assert np.allclose(flat_map(np.ones((20, 8), dtype=np.float32)), 0.5)


@pytest.mark.parametrize(("asked", "count", "had"), [(30, 1000, 30), (30, 31, 10), (30, 2, 1)])
def test_perplexity_is_bounded_by_the_number_of_pictures(asked, count, had):
    assert bounded(asked, count) == had
