"""Augmentation: seeded, shape-keeping, and nothing at all where every range is nothing."""

import pytest
import torch

from heatbox_workers.augment import Augmentation

NOTHING = Augmentation(turn=0, zoom=1, shift=0, mirror=0, contrast=0, colour=0)


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_no_range_changes_nothing(pictures):
    assert torch.allclose(NOTHING(pictures, seeded()), pictures, atol=1e-5)


def test_the_same_generator_gives_the_same_variation(pictures):
    assert torch.equal(Augmentation()(pictures, seeded()), Augmentation()(pictures, seeded()))


def test_pictures_of_a_batch_vary_differently(pictures):
    same = pictures[:1].expand(2, -1, -1, -1)
    first, second = Augmentation()(same, seeded())
    assert (first - second).abs().mean() > 0.05


def test_a_mirrored_picture_is_flipped_left_to_right(pictures):
    mirrored = Augmentation(turn=0, zoom=1, shift=0, mirror=1, contrast=0, colour=0)(pictures, seeded())
    assert torch.allclose(mirrored, pictures.flip(3), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"turn": 0.3}, {"zoom": 1.5}, {"shift": 0.3}, {"contrast": 0.3}, {"colour": 0.3}]
)
def test_each_range_changes_the_picture_and_keeps_its_shape(pictures, change):
    only = Augmentation(**{**NOTHING.__dict__, **change})(pictures, seeded())
    assert only.shape == pictures.shape
    assert (only - pictures).abs().mean() > 0.01
