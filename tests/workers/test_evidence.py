"""What a plugin may return, and what becomes of each kind."""

import numpy as np
import pytest
import torch

from heatbox.contract import Evidence
from heatbox.errors import EvidenceError
from heatbox_plugins.box_fitters.components import Components
from heatbox_workers.evidence import fit_evidence, raise_for_evidence

SIDE = 16
PICTURE = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
BOXES, SCORES = torch.tensor([[1.0, 2, 5, 6]]), torch.tensor([0.5])


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(heatmaps=torch.zeros(2, 7, 5)),
        Evidence(masks=torch.zeros(2, SIDE, SIDE, dtype=torch.bool)),
        Evidence(boxes=[BOXES, BOXES[:0]], scores=[SCORES, SCORES[:0]]),
    ],
)
def test_evidence_of_the_contract_passes(evidence):
    assert raise_for_evidence(evidence, 2, SIDE) is evidence


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (torch.zeros(2, 7, 7), "Tensor, not Evidence"),
        (Evidence(heatmaps=np.zeros((2, 7, 7), np.float32)), "ndarray, not a tensor"),
        (Evidence(heatmaps=torch.zeros(3, 7, 7)), r"2x\*x\*"),
        (Evidence(heatmaps=torch.zeros(2, 1, 7, 7)), "2x1x7x7"),
        (Evidence(heatmaps=torch.zeros(2, 7, 7, dtype=torch.float64)), "float64"),
        (Evidence(masks=torch.zeros(2, 7, 7, dtype=torch.bool)), "2x16x16"),
        (Evidence(masks=torch.zeros(2, SIDE, SIDE)), "bool"),
        (Evidence(boxes=[BOXES], scores=[SCORES]), "Boxes for 1 targets came, 2"),
        (Evidence(boxes=[BOXES, BOXES], scores=[SCORES, torch.zeros(2)]), "scores should be 1"),
    ],
)
def test_evidence_that_breaks_the_contract_says_what_was_expected(evidence, words):
    with pytest.raises(EvidenceError, match=words):
        raise_for_evidence(evidence, 2, SIDE)


@pytest.mark.parametrize(
    "fields",
    [{}, {"heatmaps": 1, "masks": 1}, {"boxes": []}, {"heatmaps": 1, "scores": []}],
)
def test_evidence_is_exactly_one_kind(fields):
    with pytest.raises(ValueError, match=r"exactly one|scores"):
        Evidence(**fields)


def test_a_coarse_heatmap_is_fitted_at_the_input_size():
    raw = torch.zeros(1, 4, 4)
    raw[0, 1, 2] = 3.0
    heatmap, fit = fit_evidence(Evidence(heatmaps=raw), 0, Components(threshold=0.5), "max", PICTURE)
    assert heatmap.shape == (SIDE, SIDE)
    assert heatmap.max() == 1
    assert fit.boxes.tolist() == [[8, 4, 12, 8]]


def test_heat_outside_a_window_is_no_evidence():
    raw = torch.zeros(1, SIDE, SIDE)
    raw[0, 2:6, 2:6], raw[0, 10:14, 10:14] = 3.0, 1.0
    window = (0.5, 0.5, 1.0, 1.0)
    heatmap, fit = fit_evidence(Evidence(heatmaps=raw), 0, Components(), "max", PICTURE, window)
    assert fit.boxes.tolist() == [[10, 10, 14, 14]]
    assert heatmap.max() == heatmap[12, 12] == 1
    _, fit = fit_evidence(Evidence(masks=raw > 0), 0, Components(), "max", PICTURE, window)
    assert fit.boxes.tolist() == [[10, 10, 14, 14]]


def test_a_mask_is_fitted_as_it_is():
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[0, 2:6, 3:9] = True
    _, fit = fit_evidence(Evidence(masks=mask), 0, Components(), "max", PICTURE)
    assert fit.boxes.tolist() == [[3, 2, 9, 6]]


def test_boxes_that_come_ready_are_kept_best_first_and_drawn():
    boxes = torch.tensor([[0.0, 0, 4, 4], [8, 8, 12, 12]])
    evidence = Evidence(boxes=[boxes], scores=[torch.tensor([0.3, 0.9])])
    heatmap, fit = fit_evidence(evidence, 0, Components(), "max", PICTURE)
    assert fit.boxes.tolist() == [[8, 8, 12, 12], [0, 0, 4, 4]]
    assert heatmap[9, 9] == pytest.approx(0.9)
    assert fit.mask.sum() == 32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_told(value):
    for evidence in (
        Evidence(heatmaps=torch.full((1, 4, 4), value)),
        Evidence(boxes=[BOXES * value], scores=[SCORES]),
    ):
        with pytest.raises(EvidenceError, match="finite"):
            fit_evidence(evidence, 0, Components(), "max", PICTURE)
