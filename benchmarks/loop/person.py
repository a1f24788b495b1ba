"""The scripted person: looks at a prediction, knows the true boxes, and leaves what somebody would leave.

A predicted box that is close is accepted as it is, one that is near is moved, another is deleted; what is missing is
drawn. Regions keep their ids and origins, as Label Studio's editor sends them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heatbox.boxes import iou_matrix
from heatbox.studio.client import Studio
from loop.sets import TruePicture

__all__ = ["correct", "predicted_boxes", "prediction_of"]

_CLOSE, _NEAR = 0.85, 0.3
_SECONDS = {"look": 2.0, "move": 4.0, "draw": 7.0, "delete": 1.0}  # how long people take, roughly

Region = Mapping[str, Any]


def correct(studio: Studio, task: int, truth: TruePicture, prediction: Mapping[str, Any] | None) -> None:
    """Submit the annotation of a task."""
    shown = [one for one in (prediction or {}).get("result", ()) if one["type"] == "rectanglelabels"]
    result, seconds = _left(shown, truth)
    content: dict[str, Any] = {"result": result, "lead_time": seconds}
    if prediction is not None:
        content["parent_prediction"] = prediction["id"]
    studio.http.post(f"/api/tasks/{task}/annotations/", content)


def _left(shown: Sequence[Region], truth: TruePicture) -> tuple[list[Region], float]:
    """Return the regions that are left, and the seconds that it took."""
    left: list[Region] = []
    used: set[int] = set()
    seconds = _SECONDS["look"]
    for number, (label, *corners) in enumerate(truth.boxes):
        best, iou = _nearest(shown, used, label, corners)
        if best is not None and iou >= _NEAR:
            used.add(best)
            moved = iou < _CLOSE
            seconds += _SECONDS["move"] if moved else 0.0
            left.append(_moved(shown[best], corners) if moved else {**shown[best], "origin": "prediction"})
        else:
            seconds += _SECONDS["draw"]
            left.append(_drawn(f"person{number}", label, corners, truth))
    return left, seconds + _SECONDS["delete"] * (len(shown) - len(used))


def _nearest(
    shown: Sequence[Region], used: set[int], label: str, corners: Sequence[float]
) -> tuple[int | None, float]:
    found = [
        (float(iou_matrix(np.array([_corners(one)]), np.array([corners]))[0, 0]), index)
        for index, one in enumerate(shown)
        if index not in used and one["value"]["rectanglelabels"] == [label]
    ]
    iou, index = max(found, default=(0.0, None))
    return index, iou


def _moved(region: Region, corners: Sequence[float]) -> Region:
    return {**region, "origin": "prediction-changed", "value": {**region["value"], **_percent(corners)}}


def _drawn(name: str, label: str, corners: Sequence[float], truth: TruePicture) -> Region:
    return {
        "id": name,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": truth.width,
        "original_height": truth.height,
        "image_rotation": 0,
        "origin": "manual",
        "value": {**_percent(corners), "rotation": 0, "rectanglelabels": [label]},
    }


def _percent(corners: Sequence[float]) -> dict[str, float]:
    x1, y1, x2, y2 = (100 * side for side in corners)
    return {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}


def _corners(region: Region) -> tuple[float, float, float, float]:
    value = region["value"]
    x, y = value["x"] / 100, value["y"] / 100
    return x, y, x + value["width"] / 100, y + value["height"] / 100


def prediction_of(studio: Studio, project: int, task: int, version: str) -> Mapping[str, Any] | None:
    """Return what heatbox predicted with a version; None where it holds none."""
    listed: list[dict[str, Any]] = studio.http.get("/api/predictions/", {"project": project, "task": task})
    return next((one for one in listed if one["model_version"] == version), None)


def predicted_boxes(
    prediction: Mapping[str, Any] | None,
) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return label and corners, in parts of the sides, of a prediction's rectangles."""
    regions = (prediction or {}).get("result", ())
    return [
        (one["value"]["rectanglelabels"][0], _corners(one))
        for one in regions
        if one["type"] == "rectanglelabels"
    ]
