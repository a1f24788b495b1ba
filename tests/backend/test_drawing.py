"""The five panels show what the annotation says, at the right place."""

import cv2
import numpy as np
import pytest

from heatbox.annotation import Annotation, Region, TargetEvidence
from heatbox.boxes import Box
from heatbox.drawing import as_jpeg, as_png, findings, fit, label_colour, panels, text_colour

GREY = np.full((64, 128, 3), 128, np.uint8)
LEFT = Box(20, 20, 100, 80)
RIGHT = Box(150, 40, 220, 100)


def region(label="cat", class_name="tabby", box=LEFT):
    return Region("r", label, class_name, box, 0.9)


def evidence(label="cat", class_name="tabby"):
    heatmap = np.zeros((32, 64), np.float32)
    heatmap[8:24, 16:48] = 1
    return TargetEvidence(label, class_name, 0.9, heatmap, heatmap > 0.5)


def annotation(*regions, seen=()):
    return Annotation(256, 128, regions, seen)


def drawn(*regions, seen=(), truth=(), picture=GREY):
    found = annotation(*regions, seen=seen)
    return panels(picture, found, findings(found, truth)[0])


def extent(where):
    rows, columns = np.nonzero(where)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def coloured(panel, label="cat"):
    return (np.abs(panel.astype(int) - label_colour(label)) < 60).all(axis=2)


def test_a_label_with_evidence_has_one_finding_with_its_regions_and_true_boxes():
    (found,) = findings(annotation(region(), seen=[evidence()]), [("cat", LEFT), ("cat", RIGHT)])
    assert (found.label, found.class_name, len(found.regions), found.truth) == (
        "cat",
        "tabby",
        1,
        (LEFT, RIGHT),
    )


def test_two_classes_under_one_label_are_two_findings():
    found = findings(annotation(region(class_name="lynx"), seen=[evidence(), evidence(class_name="lynx")]))
    assert [(item.class_name, len(item.regions)) for item in found] == [("tabby", 0), ("lynx", 1)]


def test_boxes_whose_evidence_was_not_kept_are_found():
    (found,) = findings(annotation(region()))
    assert found.evidence is None
    assert found.regions == (region(),)


def test_a_label_that_only_the_truth_names_does_not_disappear():
    found = findings(annotation(region()), [("dog", RIGHT)])
    assert [(item.label, item.truth) for item in found] == [("cat", ()), ("dog", (RIGHT,))]


def test_overlap_is_the_iou_with_the_best_true_box():
    (found,) = findings(annotation(region()), [("cat", RIGHT), ("cat", Box(20, 20, 60, 80))])
    assert found.overlap(found.regions[0]) == pytest.approx(0.5)


def test_overlap_is_unknown_without_true_boxes():
    (found,) = findings(annotation(region()))
    assert found.overlap(found.regions[0]) is None


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((400, 200), (100, 50)),
        ((200, 400), (50, 100)),
        ((10, 10), (100, 100)),
        ((1, 5000), (1, 100)),
        ((1, 1), (100, 100)),
    ],
)
def test_fit_gives_the_longer_side_and_keeps_the_shape(size, fitted):
    assert fit(np.zeros((*size, 3), np.uint8), 100).shape == (*fitted, 3)


def test_all_panels_have_the_size_of_the_picture_and_leave_it_alone():
    picture = GREY.copy()
    steps = drawn(region(), seen=[evidence()], truth=[("cat", RIGHT)], picture=picture)
    for panel in (steps.picture, steps.heatmap, steps.mask, steps.contour, steps.box):
        assert (panel.shape, panel.dtype) == (picture.shape, np.uint8)
    assert (picture == GREY).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 256), (256, 1), (2, 3)])
def test_a_picture_of_few_pixels_is_drawn_without_complaint(size):
    steps = drawn(region(), seen=[evidence()], truth=[("cat", RIGHT)], picture=np.zeros((*size, 3), np.uint8))
    assert steps.box.shape == (*size, 3)


def test_strong_evidence_is_red_and_none_is_blue():
    heatmap = drawn(seen=[evidence()]).heatmap.astype(int)
    red, _, blue = heatmap[32, 64]
    assert red > blue + 50
    red, _, blue = heatmap[2, 2]
    assert blue > red


def test_the_mask_panel_is_black_and_white_at_the_place_of_the_mask():
    mask = drawn(seen=[evidence()]).mask
    assert set(np.unique(mask)) == {0, 255}
    assert extent(mask[..., 0]) == (32, 16, 96, 48)


def test_the_contour_runs_along_the_edge_of_the_mask():
    line = coloured(drawn(seen=[evidence()]).contour)
    np.testing.assert_allclose(extent(line), (32, 16, 96, 48), atol=2)
    assert not line[24:40, 40:88].any()


def test_the_contour_of_an_empty_mask_has_no_line():
    empty = TargetEvidence("cat", "tabby", 0.9, np.zeros((4, 8), np.float32), np.zeros((4, 8), bool))
    assert not coloured(drawn(seen=[empty]).contour).any()


def test_a_box_is_drawn_at_the_scale_of_the_panel():
    line = coloured(drawn(region()).box)
    np.testing.assert_allclose(extent(line), (10, 10, 50, 40), atol=2)
    assert not line[15:35, 15:45].any()


def test_a_box_as_large_as_the_picture_shows_its_whole_line():
    line = coloured(drawn(region(box=Box(0, 0, 256, 128))).box)
    assert all(
        edge.mean() > 0.9
        for edge in (line[:3].any(0), line[-3:].any(0), line[:, :3].any(1), line[:, -3:].any(1))
    )


def test_a_true_box_is_dashed():
    (top,) = drawn(truth=[("cat", RIGHT)]).box[20:21].astype(int).min(axis=2)
    changes = np.count_nonzero(np.diff((top > 220).astype(int)))
    assert changes >= 4
    assert not (top[:70] > 220).any()


def test_without_evidence_only_picture_and_box_are_drawn():
    steps = drawn(region())
    assert (steps.heatmap, steps.mask, steps.contour) == (None, None, None)
    assert coloured(steps.box).any()


def test_the_colour_of_a_label_is_the_same_in_every_process():
    assert label_colour("raccoon") == (61, 245, 182)
    assert label_colour("raccoon") != label_colour("kangaroo")


def test_text_reads_on_every_label_colour():
    for label in map(str, range(300)):
        background = label_colour(label)
        pair = sorted(luminance(colour) for colour in (background, text_colour(background)))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5


def luminance(colour):
    linear = [
        (part / 255 / 12.92) if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_jpeg_keeps_red_red():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    decoded = cv2.imdecode(np.frombuffer(as_jpeg(red), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(decoded, red, atol=6)


def test_png_keeps_the_mask_exactly():
    mask = drawn(seen=[evidence()]).mask
    decoded = cv2.imdecode(np.frombuffer(as_png(mask), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (decoded == mask[..., 0]).all()
