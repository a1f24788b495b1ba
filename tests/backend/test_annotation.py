"""Annotations: there and back through JSON, their score, and ids that tell regions apart."""

import dataclasses
import json

import numpy as np
import pytest

from heatbox.annotation import Annotation, Found, Region, Rejected, TargetEvidence, region_id
from heatbox.boxes import Box
from heatbox.masks import Mask

CAT = Region("hb1", "Katze", "tabby", Box(1, 2.5, 30.25, 40), 0.75)
DOG = Region("hb2", "dog", "dog", Box(0, 0, 5, 5), 0.5)


THIN = Rejected(DOG, "its IoU with its mask is 0.210, below 0.5", mask_iou=0.21)


@pytest.mark.parametrize("rejected", [(), (THIN,), (THIN, Rejected(CAT, "no cat", crop_probability=0.1))])
@pytest.mark.parametrize("regions", [(), (CAT,), (CAT, DOG)])
def test_an_annotation_survives_json(regions, rejected):
    annotation = Annotation(64, 48, regions, rejected=rejected)
    assert Annotation.from_dict(json.loads(json.dumps(annotation.as_dict()))) == annotation


def test_masks_raw_scores_finds_and_absence_survive_json():
    region = dataclasses.replace(CAT, mask=Mask(3, 2, (1, 5)), raw_score=0.5, explainer="cam")
    for fields in ({"found": (Found("Katze", "tabby", 0.75),)}, {"absence": 0.25}):
        annotation = Annotation(64, 48, (region,), **fields)
        assert Annotation.from_dict(json.loads(json.dumps(annotation.as_dict()))) == annotation


def test_a_region_from_before_masks_has_none():
    old = Annotation(64, 48, (CAT,)).as_dict()
    for later in ("mask", "raw_score", "explainer"):
        del old["regions"][0][later]
    assert Annotation.from_dict(old) == Annotation(64, 48, (CAT,))


def test_a_result_from_before_the_self_check_has_nothing_rejected():
    old = {"width": 64, "height": 48, "regions": []}
    assert Annotation.from_dict(old) == Annotation(64, 48, ())


def test_a_rejection_is_told_with_its_label_its_place_and_its_reason():
    assert THIN.sentence == "dog 0.50 from (0, 0) to (5, 5): its IoU with its mask is 0.210, below 0.5"


def test_evidence_stays_at_home_and_does_not_make_annotations_differ():
    heat = np.zeros((2, 2), np.float32)
    with_evidence = Annotation(64, 48, (CAT,), (TargetEvidence("Katze", "tabby", 0.9, heat, heat > 0),))
    assert with_evidence == Annotation(64, 48, (CAT,))
    assert "evidence" not in with_evidence.as_dict()


@pytest.mark.parametrize(("regions", "score"), [((), 0.0), ((CAT,), 0.75), ((CAT, DOG), 0.5)])
def test_the_score_is_the_most_doubtful_regions(regions, score):
    assert Annotation(64, 48, regions).score == score


@pytest.mark.parametrize(("absence", "score"), [(None, 0.0), (0.0, 0.0), (0.8, 0.8)])
def test_without_regions_the_score_is_how_sure_it_is_that_there_is_nothing(absence, score):
    assert Annotation(64, 48, (), absence=absence).score == score


def test_the_same_region_has_the_same_id_on_every_machine():
    assert region_id("heatbox-cam-m-0123456789", "cat", 0, Box(1, 2, 3, 4)) == "hb970b832c56"


@pytest.mark.parametrize(
    "changed",
    [
        ("v2", "cat", 0, Box(1, 2, 3, 4)),
        ("v1", "dog", 0, Box(1, 2, 3, 4)),
        ("v1", "cat", 1, Box(1, 2, 3, 4)),
        ("v1", "cat", 0, Box(1, 2, 3, 4.001)),
    ],
)
def test_another_version_label_rank_or_box_is_another_id(changed):
    assert region_id(*changed) != region_id("v1", "cat", 0, Box(1, 2, 3, 4))


def test_noise_below_a_thousandth_of_a_pixel_does_not_change_an_id():
    assert region_id("v", "cat", 0, Box(1, 2, 3, 4.00001)) == region_id("v", "cat", 0, Box(1, 2, 3, 4))
