"""Tests of the built-in box fitters."""

import numpy as np
import pytest

from heatbox.contract import BoxFitter
from heatbox.heatmaps import connected_components, normalise
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.box_fitters.enclosing import Enclosing
from heatbox_plugins.box_fitters.max_iou import MaxIoU, max_iou_rectangle

FITTERS = [Components, Enclosing, MaxIoU]


def map_with(*spots, shape=(20, 20)):
    """Return a map of rectangles (heat, x1, y1, x2, y2)."""
    heatmap = np.zeros(shape, dtype=np.float32)
    for heat, x1, y1, x2, y2 in spots:
        heatmap[y1:y2, x1:x2] = heat
    return heatmap


def gaussians(seed, size=32):
    """Return a map of three turned Gaussians of random place, extent and height, with noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    heatmap = 0.1 * random.random((size, size))
    for _ in range(3):
        (cx, cy), (sx, sy) = random.uniform(0.1, 0.9, 2), random.uniform(0.05, 0.25, 2)
        turn = np.exp(1j * random.uniform(0, np.pi)) * ((x - cx) + 1j * (y - cy))
        heatmap += random.uniform(0.4, 1) * np.exp(-((turn.real / sx) ** 2 + (turn.imag / sy) ** 2) / 2)
    return normalise(heatmap, "max")


def mask_iou(mask, box):
    x1, y1, x2, y2 = (int(side) for side in box)
    inside = np.count_nonzero(mask[y1:y2, x1:x2])
    return inside / (np.count_nonzero(mask) + (x2 - x1) * (y2 - y1) - inside)


def best_iou_by_trying_all(mask):
    """Return the largest IoU with a mask (H, W) of all its rectangles, from the integral image."""
    integral = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = (np.triu_indices(side + 1, 1) for side in mask.shape)
    strips = integral[bottom] - integral[top]
    inside = strips[:, right] - strips[:, left]
    return (inside / (mask.sum() + np.outer(bottom - top, right - left) - inside)).max()


@pytest.mark.parametrize("fitter", FITTERS)
def test_a_hot_rectangle_gets_its_exact_box(fitter):
    fit = fitter()(map_with((0.8, 3, 5, 11, 9)))

    assert isinstance(fitter(), BoxFitter)
    assert fit.boxes.tolist() == [[3.0, 5.0, 11.0, 9.0]]
    assert fit.scores.tolist() == pytest.approx([0.8])
    assert (fit.boxes.dtype, fit.scores.dtype, fit.mask.dtype) == (np.float64, np.float64, np.bool_)


@pytest.mark.parametrize("fitter", [*FITTERS, lambda: MaxIoU(per_component=True)])
def test_a_cold_map_gets_no_box(fitter):
    fit = fitter()(np.zeros((7, 9), dtype=np.float32))

    assert fit.boxes.shape == (0, 4)
    assert fit.scores.shape == (0,)
    assert fit.mask.shape == (7, 9)
    assert not fit.mask.any()


@pytest.mark.parametrize("fitter", FITTERS)
def test_heat_at_the_threshold_is_not_in_the_mask(fitter):
    heatmap = map_with((0.5, 0, 0, 20, 20), (1.0, 2, 2, 6, 6))

    fit = fitter(threshold=0.5)(heatmap)

    assert fit.boxes.tolist() == [[2.0, 2.0, 6.0, 6.0]]
    assert np.count_nonzero(fit.mask) == 16


@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_a_map_that_is_hot_everywhere_gets_the_whole_box(fitter, shape):
    assert fitter()(np.ones(shape, dtype=np.float32)).boxes.tolist() == [[0.0, 0.0, shape[1], shape[0]]]


@pytest.mark.parametrize(
    ("fitter", "expected"),
    [
        (Components(), [[12, 12, 18, 18], [1, 1, 5, 5]]),
        (Enclosing(), [[1, 1, 18, 18]]),
        (MaxIoU(), [[12, 12, 18, 18]]),
        (MaxIoU(per_component=True), [[12, 12, 18, 18], [1, 1, 5, 5]]),
    ],
)
def test_two_hot_places_get_the_boxes_of_the_rule(fitter, expected):
    fit = fitter(map_with((0.6, 1, 1, 5, 5), (1.0, 12, 12, 18, 18)))

    assert fit.boxes.tolist() == expected


@pytest.mark.parametrize("fitter", [Components, lambda **options: MaxIoU(per_component=True, **options)])
def test_equally_hot_boxes_come_from_top_to_bottom_then_left_to_right(fitter):
    heatmap = map_with((1, 10, 12, 14, 16), (1, 12, 2, 16, 6), (1, 2, 2, 6, 6))

    assert fitter()(heatmap).boxes[:, :2].tolist() == [[2, 2], [12, 2], [10, 12]]


@pytest.mark.parametrize("fitter", [Components, lambda **options: MaxIoU(per_component=True, **options)])
def test_small_components_are_dropped(fitter):
    heatmap = map_with((1.0, 0, 0, 2, 2), (0.6, 10, 10, 15, 15))  # 4 and 25 of 400 pixels

    assert len(fitter(min_area=0.01)(heatmap).boxes) == 2
    assert fitter(min_area=0.011)(heatmap).boxes.tolist() == [[10, 10, 15, 15]]
    assert len(fitter(min_area=0.1)(heatmap).boxes) == 0


def test_components_with_a_low_peak_are_dropped():
    heatmap = map_with((1.0, 0, 0, 4, 4), (0.5, 10, 10, 15, 15))

    assert len(Components(min_score=0.5)(heatmap).boxes) == 2
    assert len(Components(min_score=0.6)(heatmap).boxes) == 1


@pytest.mark.parametrize("fitter", [Components, lambda **options: MaxIoU(per_component=True, **options)])
def test_only_the_hottest_boxes_are_kept(fitter):
    heatmap = map_with((0.5, 0, 0, 4, 4), (1.0, 10, 10, 15, 15), (0.7, 0, 12, 4, 16))

    fit = fitter(max_boxes=2)(heatmap)

    assert fit.scores.tolist() == pytest.approx([1.0, 0.7])


@pytest.mark.parametrize(
    ("fitter", "option", "value", "allowed"),
    [
        *(
            (fitter, "threshold", value, "below 1")
            for fitter in FITTERS
            for value in (-0.1, 1.0, float("nan"))
        ),
        (Components, "min_area", 1.0, "below 1"),
        (Components, "min_score", -0.5, "at least 0"),
        (Components, "max_boxes", 0, "at least 1"),
        (MaxIoU, "min_area", -1.0, "at least 0"),
        (MaxIoU, "max_boxes", -3, "at least 1"),
    ],
)
def test_an_unusable_option_names_itself_and_its_range(fitter, option, value, allowed):
    with pytest.raises(ValueError, match=f"{option} must be .*{allowed}"):
        fitter(**{option: value})


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.98])
@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_no_rectangle_beats_the_maximum_iou_rectangle(kind, share):
    random = np.random.default_rng(int(share * 100))
    for _ in range(40):
        values = random.random(random.integers(1, 24, 2))
        if kind == "smooth":
            values = values.cumsum(axis=0).cumsum(axis=1) * np.cos(9 * values.mean(axis=0))
        mask = values <= np.quantile(values, share)

        assert mask_iou(mask, max_iou_rectangle(mask)) == best_iou_by_trying_all(mask)


@pytest.mark.parametrize("seed", range(20))
def test_no_rectangle_is_lost_in_the_coarse_search(seed):
    random = np.random.default_rng(seed)
    mask = random.random((40, 44)) < 0.02
    if seed % 2:  # rectangles one over the other, common parts empty
        for x, y, width, height in random.integers(1, 20, (12, 4)):
            mask[2 * y : 2 * y + height, 2 * x : 2 * x + width] ^= True

    assert mask_iou(mask, max_iou_rectangle(mask)) == best_iou_by_trying_all(mask)


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(40, dtype=bool),
        np.indices((30, 40)).sum(axis=0) % 2 == 0,
        np.pad(np.zeros((28, 30), dtype=bool), 3, constant_values=True),
        np.pad(np.ones((1, 1), dtype=bool), ((37, 2), (0, 39))),
    ],
    ids=["diagonal", "checkerboard", "frame", "single pixel"],
)
def test_no_rectangle_beats_it_on_awkward_masks(mask):
    assert mask_iou(mask, max_iou_rectangle(mask)) == best_iou_by_trying_all(mask)


def test_maximum_iou_cuts_off_what_the_enclosing_box_must_keep():
    heatmap = map_with((1.0, 5, 5, 15, 15), (1.0, 0, 9, 5, 10))  # a square with a thin arm

    assert Enclosing()(heatmap).boxes.tolist() == [[0, 5, 15, 15]]
    assert MaxIoU()(heatmap).boxes.tolist() == [[5, 5, 15, 15]]


def test_maximum_iou_agrees_better_with_the_mask_than_the_largest_component():
    fits = [MaxIoU()(gaussians(seed)) for seed in range(300)]
    components = [connected_components(fit.mask) for fit in fits]

    best = np.array([mask_iou(fit.mask, fit.boxes[0]) for fit in fits])
    largest = [
        mask_iou(fit.mask, found.boxes[found.areas.argmax()])
        for fit, found in zip(fits, components, strict=True)
    ]

    assert (best >= largest).all()
    assert best.mean() > np.mean(largest) + 0.05


def test_a_thin_arm_of_heat_does_not_widen_the_box_of_a_component():
    heatmap = map_with((0.8, 5, 5, 15, 15), (0.6, 15, 9, 17, 10))  # 100 pixels, and an arm of 2

    assert Components()(heatmap).boxes.tolist() == [[5, 5, 15, 15]]
    assert Components(trim=0)(heatmap).boxes.tolist() == [[5, 5, 17, 15]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("trim", [0.02, 0.1, 0.49])
def test_trimming_leaves_at_most_its_part_outside_each_side_and_something_inside(seed, trim):
    heatmap = gaussians(seed)
    largest = {"min_area": 0.05, "max_boxes": 1}
    whole, box = (
        Components(trim=part, **largest)(heatmap).boxes[0].astype(int).tolist() for part in (0.0, trim)
    )
    mask = Components()(heatmap).mask
    labels = connected_components(mask).labels
    label = np.bincount(labels[whole[1] : whole[3], whole[0] : whole[2]].ravel())[1:].argmax() + 1
    part, (x1, y1, x2, y2) = labels == label, box
    for outside in (part[:, :x1], part[:, x2:], part[:y1], part[y2:]):
        assert outside.sum() <= trim * part.sum()
    assert part[y1:y2, x1:x2].size > 0


@pytest.mark.parametrize("trim", [-0.1, 0.5, float("nan")])
def test_trimming_takes_less_than_half_from_each_side(trim):
    with pytest.raises(ValueError, match=r"trim must be at least 0 and below 0\.5"):
        Components(trim=trim)
