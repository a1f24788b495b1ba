"""Looking at pictures: what the classifier sees, in order, one bad picture alone; and how doubtful labels are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heatbox.errors import HeatboxError, PictureNotFoundError
from heatbox.pictures.images import Limits
from heatbox.settings import Settings
from heatbox_workers.looking import look_at, shares_of


def probabilities(*values):
    return np.array(values, dtype=np.float32)


def test_each_picture_is_looked_at_in_order_and_a_missing_one_costs_itself(classifier, tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(20)]
    for number, file in enumerate(files):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    files[7].unlink()
    found = list(look_at(files, Path, classifier, Limits.from_settings(Settings())))
    assert [isinstance(one, HeatboxError) for one in found] == [number == 7 for number in range(20)]
    assert isinstance(found[7], PictureNotFoundError)
    (again,) = look_at([files[9]], Path, classifier, Limits.from_settings(Settings()))
    assert np.allclose(again.embedding, found[9].embedding, atol=1e-5)
    assert again.embedding.shape == (5,)
    assert again.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "doubt", "best"),
    [
        ((0.5, 0.1, 0.4, 0.0), 0.8, "cat"),  # two classes of cats together .6, against .4
        ((0.1, 0.1, 0.0, 0.8), 0.4, ""),  # something else
        ((0.0, 0.0, 1.0, 0.0), 0.0, "dog"),
    ],
)
def test_of_a_softmax_the_margin_of_labels_and_of_something_else_counts(values, doubt, best):
    shares = shares_of(probabilities(*values), {"cat": [0, 1], "dog": [2]}, "softmax")
    assert shares.doubt == pytest.approx(doubt, abs=1e-6)
    assert shares.best == best


@pytest.mark.parametrize(
    ("values", "doubt", "best"),
    [((0.9, 0.45), 0.9, "cat"), ((0.1, 0.2), 0.4, ""), ((1.0, 1.0), 0.0, "cat")],
)
def test_of_a_sigmoid_the_most_doubtful_label_counts(values, doubt, best):
    shares = shares_of(probabilities(*values), {"cat": [0], "dog": [1]}, "sigmoid")
    assert shares.doubt == pytest.approx(doubt, abs=1e-6)
    assert shares.best == best
