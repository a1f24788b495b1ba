"""The GrabCut fitter: boxes move to the edges of colours, and stay where the picture has none."""

import numpy as np
import pytest

from heatbox.boxes import iou_matrix
from heatbox.contract import BoxFitter, PictureFitter
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.box_fitters.grabcut import GrabCut

SIDE = 224
OBJECT = np.array([[50.0, 60, 180, 160]])


@pytest.fixture
def picture():
    """A grey, noisy picture with a red rectangle."""
    pixels = 60 + np.random.default_rng(0).integers(0, 12, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[60:160, 50:180] = (200, 60, 40)
    return pixels


def blob(x=115.0, y=110.0, wide=60.0, high=45.0):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-(((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2)).astype(np.float32)


def test_it_is_a_fitter_that_asks_for_the_picture():
    assert isinstance(GrabCut(), PictureFitter)
    assert isinstance(Components(), BoxFitter)
    assert not isinstance(Components(), PictureFitter)


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.5])
def test_a_box_that_is_too_large_or_too_small_moves_to_the_object(picture, threshold):
    heat = blob()
    plain, refined = (
        iou_matrix(boxes, OBJECT)[0, 0]
        for boxes in (Components(threshold)(heat).boxes, GrabCut(threshold)(heat, picture).boxes)
    )
    assert refined > plain + 0.05


def test_where_the_cut_runs_away_the_components_box_stays(picture):
    box = GrabCut(agreement=0.99)(blob(x=60, y=60), picture).boxes
    assert iou_matrix(box, Components(0.2)(blob(x=60, y=60)).boxes)[0, 0] > 0.95


def test_a_picture_of_one_colour_gives_boxes_too():
    flat = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    (box,) = GrabCut()(blob(), flat).boxes
    assert (box >= 0).all()
    assert (box <= SIDE).all()


def test_no_heat_is_no_box_and_heat_everywhere_is_one(picture):
    assert GrabCut()(np.zeros((SIDE, SIDE), np.float32), picture).boxes.shape == (0, 4)
    assert len(GrabCut()(np.ones((SIDE, SIDE), np.float32), picture).boxes) == 1


def test_two_components_have_a_box_each_the_hotter_first_and_again_the_same(picture):
    heat = np.maximum(0.8 * blob(x=40, y=40, wide=15, high=15), blob(x=170, y=170, wide=20, high=20))
    first, again = (GrabCut()(heat, picture) for _ in range(2))
    assert np.array_equal(first.boxes, again.boxes)
    assert len(first.boxes) == 2
    assert first.boxes[0, 0] > first.boxes[1, 0]
    assert first.scores[0] > first.scores[1]


@pytest.mark.parametrize("options", [{"trim": 0.5}, {"core": 1.0}, {"side": 0}, {"agreement": -0.1}])
def test_options_out_of_range_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        GrabCut(**options)
