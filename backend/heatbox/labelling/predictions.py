"""Predictions and tasks in Label Studio's JSON: what heatbox sends, and what a task names.

Protocol: https://labelstud.io/guide/predictions and https://labelstud.io/guide/task_format. Label Studio
checks almost nothing by default; with its strict switch one wrong region costs the whole batch. So everything
holds here: labels are in the config, scores in [0, 1], boxes inside the picture, ids unique.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heatbox.annotation import Annotation, Region
from heatbox.errors import LabelUnknownError, TasksFileError
from heatbox.labelling.config import Control

__all__ = ["import_task", "join_predictions", "prediction", "task_addresses"]

OWN_VERSION = "heatbox-"
KEPT_KEYS = ("id", "data", "meta", "annotations")
MOST_CHARACTERS = 80


def prediction(
    annotation: Annotation, control: Control, version: str, item_index: int | None = None
) -> dict[str, Any]:
    """Return one picture's regions as a prediction of Label Studio.

    Args:
        annotation: regions in pixels of the upright picture.
        control: that the regions fill.
        version: `Pipeline.version`, the same in `/setup`.
        item_index: position of the picture in the task's list (`valueList`).

    Raises:
        LabelUnknownError: a region has a label that the control does not.
    """
    regions = [_region(region, annotation, control, version, item_index) for region in annotation.regions]
    return {"result": regions, "score": _lowest_score(regions), "model_version": version}


def join_predictions(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the predictions of the pictures of one task, made with their item indices, as one.

    Args:
        predictions: at least one, all of one version.
    """
    regions = [region for one in predictions for region in one["result"]]
    return {
        "result": regions,
        "score": _lowest_score(regions),
        "model_version": predictions[0]["model_version"],
    }


def import_task(task: Mapping[str, Any], prediction: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a task for Label Studio's import, with a prediction.

    Of a task that was exported, its id, meta, human annotations and other models' predictions are kept;
    counters and heatbox's older predictions are not.

    Args:
        task: a task, or its bare data such as `{"image": address}`.
        prediction: None where the picture could not be annotated: the task is imported without one.
    """
    whole = task if isinstance(task.get("data"), Mapping) else {"data": task}
    kept = {key: whole[key] for key in KEPT_KEYS if key in whole}
    # An export without the predictions' content lists their numbers, which Label Studio's import refuses.
    others = [one for one in whole.get("predictions") or () if isinstance(one, Mapping) and not _is_own(one)]
    return {
        **kept,
        "data": dict(whole["data"]),
        "predictions": [*others, *([prediction] if prediction else [])],
    }


def task_addresses(task: Mapping[str, Any], control: Control) -> list[str]:
    """Return the addresses of a task's pictures, in the order of their item indices; at least one.

    Args:
        task: a task, or its bare data.
        control: whose Image tag names the key.

    Raises:
        TasksFileError: the task has no address under the key.
    """
    data = task["data"] if isinstance(task.get("data"), Mapping) else task
    value = data.get(control.data_key)
    addresses = value if isinstance(value, list) and control.value_list else [value]
    if addresses and all(isinstance(address, str) and address for address in addresses):
        return list(addresses)
    wanted = "a list of addresses" if control.value_list else "one address"
    raise TasksFileError(
        f"Task {task.get('id', '(no id)')} has no picture: data[{control.data_key!r}] is {_short(value)}.",
        f"Put {wanted} there, or let <Image> name another key; the task has: {', '.join(map(str, data))}.",
    )


def _region(
    region: Region, annotation: Annotation, control: Control, version: str, item_index: int | None
) -> dict[str, Any]:
    if region.label not in control.label_names:
        raise LabelUnknownError(
            f"The label {region.label!r} is not in <RectangleLabels> {control.from_name!r}.",
            f"Map the class {region.class_name!r} to one of: {', '.join(control.label_names)}.",
        )
    suffix, item = ("", {}) if item_index is None else (f"-{item_index}", {"item_index": item_index})
    score = _unit(region.score)
    percent = region.box.as_percent(annotation.width, annotation.height)
    return {
        "id": region.id + suffix,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": control.kind,
        "original_width": annotation.width,
        "original_height": annotation.height,
        "image_rotation": 0,
        **item,
        "score": score,
        "value": {**percent, "rotation": 0, control.kind: [region.label]},
        # Label Studio's editor drops unknown keys of a region; those of meta survive until the export.
        "meta": {
            "text": [f"{region.class_name} {score:.2f}"],
            "heatbox": {"class": region.class_name, "version": version},
        },
    }


def _lowest_score(regions: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the score that brings the most doubtful pictures first, or None without regions."""
    return min((float(region["score"]) for region in regions), default=None)


def _unit(score: float) -> float:
    """Return a score clipped to [0, 1]; NaN counts as 0."""
    return min(max(0.0, float(score)), 1.0)


def _is_own(prediction: Mapping[str, Any]) -> bool:
    return str(prediction.get("model_version", "")).startswith(OWN_VERSION)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "..."
