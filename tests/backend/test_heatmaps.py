"""Tests of heatbox.heatmaps."""

import numpy as np
import pytest

from heatbox.errors import EvidenceError
from heatbox.heatmaps import connected_components, normalise, resize


@pytest.mark.parametrize(
    ("how", "raw", "expected"),
    [
        ("max", [[-1.0, 1.0], [2.0, 4.0]], [[0.0, 0.25], [0.5, 1.0]]),
        ("minmax", [[-1.0, 1.0], [2.0, 4.0]], [[0.0, 0.4], [0.6, 1.0]]),
        ("max", [[-1.0, -2.0]], [[0.0, 0.0]]),
        ("max", [[0.0, 0.0]], [[0.0, 0.0]]),
        ("max", [[3.0, 3.0]], [[1.0, 1.0]]),
        ("minmax", [[3.0, 3.0]], [[0.0, 0.0]]),
        ("minmax", [[-2.0, -1.0]], [[0.0, 1.0]]),
    ],
)
def test_normalise_follows_its_formula(how, raw, expected):
    result = normalise(np.array(raw, dtype=np.float32), how)

    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-7)


@pytest.mark.parametrize("how", ["max", "minmax"])
@pytest.mark.parametrize("scale", [1e-40, 1e-9, 1.0, 1e38])
def test_the_scale_of_the_evidence_does_not_matter(how, scale):
    raw = (np.array([[-2.0, 0.0], [1.0, 3.0]]) * scale).astype(np.float32)

    result = normalise(raw, how)

    assert result.max() == 1.0
    assert result.min() == 0.0


def test_normalise_leaves_its_input_alone():
    raw = np.array([[-1.0, 2.0]], dtype=np.float64)

    normalise(raw, "max")
    normalise(raw, "minmax")

    assert raw.tolist() == [[-1.0, 2.0]]


@pytest.mark.parametrize("how", ["max", "minmax"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(how, value):
    raw = np.array([[0.0, value], [1.0, 2.0]], dtype=np.float32)

    with pytest.raises(EvidenceError, match="1 values that are not finite") as caught:
        normalise(raw, how)

    assert caught.value.code == "evidence-invalid"
    assert "heatbox explainers" in caught.value.remedy


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2), (0, 4)])
def test_what_is_not_a_map_is_an_error(shape):
    with pytest.raises(EvidenceError, match="height and width"):
        normalise(np.zeros(shape, dtype=np.float32), "max")


def test_resize_interpolates_between_pixel_centres():
    result = resize(np.array([[0.0, 1.0]], dtype=np.float32), height=2, width=8)

    np.testing.assert_allclose(result[0] + result[0, ::-1], 1, atol=1e-6)  # the edge stays in the middle
    assert (np.diff(result[0]) >= 0).all()
    assert 0 < result[0, 3] < 0.5 < result[0, 4] < 1


def test_resize_takes_height_before_width():
    assert resize(np.zeros((7, 7), dtype=np.float32), height=10, width=20).shape == (10, 20)


@pytest.mark.parametrize("seed", range(5))
def test_resize_never_leaves_the_range_of_the_heatmap(seed):
    heatmap = np.random.default_rng(seed).choice(np.float32([0.1, 0.7, 1.0]), size=(7, 9))

    result = resize(heatmap, height=111, width=77)  # here OpenCV alone rounds below 0.1

    assert result.dtype == np.float32
    assert heatmap.min() <= result.min()
    assert result.max() <= heatmap.max()


def test_diagonal_neighbours_are_one_component():
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)

    found = connected_components(mask)

    assert sorted(found.boxes.tolist()) == [[0, 0, 2, 2], [3, 1, 4, 2]]
    assert sorted(found.areas.tolist()) == [1, 2]


def test_an_empty_mask_has_no_component():
    found = connected_components(np.zeros((4, 5), dtype=bool))

    assert found.boxes.shape == (0, 4)
    assert found.areas.shape == (0,)
    assert not found.labels.any()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])  # many components, few, and one
def test_labels_boxes_and_areas_belong_together(share):
    mask = np.random.default_rng(3).random((40, 50)) < share

    found = connected_components(mask)

    assert ((found.labels > 0) == mask).all()
    assert len(found.areas) == found.labels.max()
    for index, (x1, y1, x2, y2) in enumerate(found.boxes):
        rows, columns = np.nonzero(found.labels == index + 1)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
        assert len(rows) == found.areas[index]


def test_a_mask_may_be_a_view_of_another():
    mask = np.zeros((6, 6), dtype=bool)
    mask[2:4, 1:5] = True

    assert connected_components(mask.T[:, 1:]).boxes.tolist() == [[1, 1, 3, 5]]
