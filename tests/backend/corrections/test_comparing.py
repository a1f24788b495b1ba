"""What became of each predicted box."""

import pytest
from fixtures_corrections import box

from heatbox.corrections.comparing import Verdict, compare
from heatbox.studio.regions import read_boxes


def verdicts(before, after):
    found = compare(*(read_boxes(some)[0] for some in (before, after)))
    assert [Verdict.from_dict(one.as_dict()) for one in found] == found
    return [(one.kind.value, one.label, None if one.iou is None else round(one.iou, 2)) for one in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param([box()], [box()], [("kept", "cat", 1)], id="kept"),
        pytest.param([box()], [box(10.04)], [("kept", "cat", 1)], id="rounded"),
        pytest.param([box()], [box(12)], [("moved", "cat", 0.82)], id="moved"),
        pytest.param([box()], [box(side=25)], [("resized", "cat", 0.64)], id="resized"),
        pytest.param([box()], [box(label="dog")], [("relabelled", "dog", 1)], id="relabelled"),
        pytest.param([box()], [], [("deleted", "cat", None)], id="deleted"),
        pytest.param([], [box()], [("added", "cat", None)], id="added"),
        pytest.param([box(id="a")], [box(70, id="a")], [("moved", "cat", 0)], id="moved-far-by-its-id"),
        pytest.param([box()], [box(70)], [("deleted", "cat", None), ("added", "cat", None)], id="elsewhere"),
        pytest.param(
            [box()],
            [box(item_index=1)],
            [("deleted", "cat", None), ("added", "cat", None)],
            id="other-picture",
        ),
        pytest.param(
            [box(), box(14)],
            [box(14, label="dog"), box(10)],
            [("kept", "cat", 1), ("relabelled", "dog", 1)],
            id="same-label-first",
        ),
        pytest.param(
            [], [box(origin="prediction-changed")], [("moved", "cat", None)], id="changed-from-what-is-gone"
        ),
    ],
)
def test_a_box_gets_the_verdict_that_people_gave_it(before, after, expected):
    assert verdicts(before, after) == expected
