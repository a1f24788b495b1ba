from dataclasses import replace

import pytest

from heatbox.trainings.tables import Training, TrainingState
from heatbox.trainings.verdict import judge

ACTIVE = Training(
    id=1, state=TrainingState.RUNNING, title="birds", project=1, request={}, has_order=True, reference="",
    activate=True, token=str(0), serial=0, strikes=0, progress={}, result=None, code=None, sentence=None, remedy=None,
    challenger=None, base="tiny@1", champion="tiny@1", activated=False, reason="", told=True, note="", created_at=0.0,
    started_at=None, ended_at=None,
)  # fmt: skip
BETTER = {
    "model": "tiny@2",
    "better": True,
    "comparison": {"challenger": {"accuracy": 0.9}, "champion": {"accuracy": 0.8}},
}


@pytest.mark.parametrize(
    ("changes", "active", "named", "expected"),
    [
        ({}, "tiny@1", None, (True, False)),
        ({}, "other@9", None, (False, False)),
        ({"activate": False}, "tiny@1", None, (False, False)),
        ({"champion": ""}, "tiny@1", None, (True, False)),
        ({"champion": ""}, None, None, (True, False)),
        ({"champion": ""}, "other@9", None, (False, False)),
        ({"reference": "tiny@1"}, "tiny@1", None, (False, False)),
        ({"reference": "tiny"}, "tiny@1", "tiny@1", (True, True)),
        ({"reference": "tiny"}, "other@9", "tiny@1", (False, True)),
        ({"reference": "tiny"}, "tiny@1", "tiny@3", (False, False)),
        ({"reference": "birds"}, "tiny@1", "tiny@1", (False, False)),
    ],
)
def test_a_better_challenger_serves_in_the_place_of_what_it_was_compared_with(
    changes, active, named, expected
):
    verdict = judge(replace(ACTIVE, **changes), BETTER, active, named)
    assert (verdict.active, verdict.named) == expected
    assert verdict.serves == any(expected)


def test_the_reason_has_the_figures():
    assert judge(ACTIVE, BETTER, "tiny@1", None).reason == (
        "tiny@2 is better than tiny@1 (accuracy 0.900 against 0.800). It is active."
    )
    missing = {**BETTER, "better": False, "comparison": {"reason": "They cannot be compared."}}
    assert judge(ACTIVE, missing, "tiny@1", None).reason == (
        "They cannot be compared. tiny@2 is kept and does not serve."
    )
    worse = {**BETTER, "better": False}
    assert judge(ACTIVE, worse, "tiny@1", None).reason.endswith("It is kept and does not serve.")


@pytest.mark.parametrize(
    ("champion", "told"),
    [("tiny@1", "But other@9 was activated meanwhile,"), ("", "But other@9 is active,")],
)
def test_only_a_model_that_was_compared_with_can_have_been_replaced_meanwhile(champion, told):
    assert told in judge(replace(ACTIVE, champion=champion), BETTER, "other@9", None).reason


def test_a_pinned_version_is_told_where_to_write_the_new_one():
    reason = judge(replace(ACTIVE, reference="tiny@1"), BETTER, "tiny@1", None).reason
    assert "names its model as tiny@1: write tiny@2 there" in reason
