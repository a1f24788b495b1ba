"""The contact sheet has a row of five panels per label, with the label written on the box."""

import numpy as np
import pytest

from heatbox.annotation import Annotation, Region, TargetEvidence
from heatbox.boxes import Box
from heatbox.contact_sheet import contact_sheet
from heatbox.drawing import label_colour
from heatbox.errors import PictureUnreadableError
from heatbox.page_entry import PageEntry


def entry(*labels, size=(60, 120), top=40):
    heat = np.linspace(0, 1, 32, dtype=np.float32).reshape(4, 8)
    evidence = tuple(TargetEvidence(label, label, 0.9, heat, heat > 0.5) for label in labels)
    regions = tuple(Region("r", label, label, Box(60, top, 200, 110), 0.9) for label in labels)
    return PageEntry("a.jpg", np.full((*size, 3), 90, np.uint8), Annotation(240, 120, regions, evidence))


@pytest.mark.parametrize(
    ("entries", "height"),
    [
        ([], 32),
        ([entry("cat")], 32 + 62),
        ([entry("cat", "dog")], 32 + 2 * 62),
        ([entry("cat"), entry("cat", size=(50, 50))], 32 + 62 + 112),
    ],
)
def test_a_sheet_has_a_row_for_each_label(entries, height):
    sheet = contact_sheet(entries, side=100)
    assert (sheet.shape, sheet.dtype) == ((height, 5 * 112 + 12, 3), np.uint8)


@pytest.mark.parametrize("top", [0, 40])
def test_the_label_is_written_on_its_colour_above_the_box_or_inside_it(top):
    sheet = contact_sheet([entry("cat", top=top)], side=200)
    plate = (sheet == label_colour("cat")).all(axis=2)
    assert plate.sum() > 300
    assert plate[:32].sum() == 0


def test_failed_and_uncounted_pictures_are_left_out():
    failed = PageEntry("b.jpg", None, None, PictureUnreadableError("It is cut off.", "Copy it again."))
    unseen = PageEntry("c.jpg", None, Annotation(10, 10, ()))
    assert contact_sheet([failed, entry("cat"), unseen], side=100).shape[0] == 32 + 62
