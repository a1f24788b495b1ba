"""From what Label Studio stores on a task to what the ledger keeps of each annotation.

What a person was shown is found from the best source that is left: the prediction that the annotation began with; else
heatbox's newest prediction that is older than the annotation; else the regions that the editor marks as untouched. What
an earlier pull has found out from as good a source is kept, because predictions are replaced.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from heatbox.corrections.comparing import compare
from heatbox.errors import TasksFileError
from heatbox.labelling.mapping import meanings
from heatbox.labelling.tags import LabelConfig
from heatbox.labelling.tasks import known_labels, task_addresses
from heatbox.plugins import EXPLAINERS, plugin_names
from heatbox.studio.client import is_own
from heatbox.studio.corrections import AnsweredTask
from heatbox.studio.regions import BoxRegion, read_boxes

__all__ = ["boxes_from", "boxes_text", "correction_row"]

_PREFIX = "heatbox-"
_MOST_SECONDS = 1e9
_SOURCES = ("none", "regions", "older", "parent")
"""How it is known what a person was shown, the best last."""

_Json = Mapping[str, Any]


@dataclass(frozen=True)
class _Shown:
    """What a person was shown, and how that is known."""

    source: str = "none"
    version: str = ""
    boxes: tuple[BoxRegion, ...] = ()


def correction_row(
    task: AnsweredTask, annotation: _Json, config: LabelConfig, known: _Json | None = None
) -> dict[str, Any]:
    """Return the columns of an annotation's row, but for its place.

    Args:
        task: that it belongs to.
        annotation: as Label Studio stores it.
        config: of the project.
        known: the row that the ledger has; None: it has none.
    """
    addresses, problems = _addresses(task, config)
    skipped = bool(annotation.get("was_cancelled"))
    drawn, wrong = read_boxes(annotation.get("result") or [])
    drawn = _named(drawn, config, len(addresses))
    shown = _kept_or(_shown(task, annotation, drawn), known)
    shown = replace(shown, boxes=tuple(_named(shown.boxes, config, len(addresses))))
    looked = not skipped and _looked(annotation, drawn, shown, wrong)
    verdicts = compare(shown.boxes, drawn) if looked and shown.source != "none" else []
    return {
        "task": task.id,
        "annotation": annotation["id"],
        "addresses": json.dumps(addresses),
        "created_at": _moment(annotation.get("created_at")),
        "updated_at": _moment(annotation.get("updated_at")),
        "who": _who(annotation.get("completed_by")),
        "seconds": _seconds(annotation.get("lead_time")),
        "skipped": skipped,
        "ground_truth": annotation.get("ground_truth") is True,
        "version": shown.version[:300],
        "explainer": _explainer(shown.version)[:200],
        "source": shown.source,
        "predicted": boxes_text(shown.boxes),
        "boxes": boxes_text(drawn),
        "labels": json.dumps(_chosen(annotation, config, len(addresses))),
        "looked": looked,
        "verdicts": json.dumps([one.as_dict() for one in verdicts]),
        "problems": json.dumps(Counter([*problems, *wrong])),
        "deleted_at": None,
    }


def boxes_text(boxes: Sequence[BoxRegion]) -> str:
    """Return boxes as the ledger keeps them."""
    return json.dumps([asdict(one) for one in boxes])


def boxes_from(text: str) -> tuple[BoxRegion, ...]:
    """Read what `boxes_text` wrote."""
    return tuple(BoxRegion(**{**one, "corners": tuple(one["corners"])}) for one in json.loads(text))


def _addresses(task: AnsweredTask, config: LabelConfig) -> tuple[list[str], list[str]]:
    try:
        return task_addresses({"id": task.id, "data": task.data}, config), []
    except TasksFileError:  # its sentence quotes the data, and that may hold a token
        return [], ["the task names no picture"]


def _named(boxes: Sequence[BoxRegion], config: LabelConfig, pictures: int) -> list[BoxRegion]:
    """Return the boxes with labels by the names of the project, without those on pictures that the task has not."""
    meaning = meanings(config.labels)
    return [
        replace(one, label=meaning(one.label) or one.label)
        for one in boxes
        if one.item < pictures or not pictures
    ]


def _looked(annotation: _Json, drawn: Sequence[BoxRegion], shown: _Shown, wrong: Sequence[str]) -> bool:
    """Return whether the person said where things are, and not only what is there.

    An empty annotation says that there is nothing, and one that began with predicted boxes that those were seen.
    """
    result = annotation.get("result") or []
    if drawn or not result:
        return True
    has_masks = any(isinstance(one, Mapping) and one.get("type") == "brushlabels" for one in result)
    return shown.source == "parent" and bool(shown.boxes) and not has_masks and not wrong


def _shown(task: AnsweredTask, annotation: _Json, drawn: Sequence[BoxRegion]) -> _Shown:
    predictions = [one for one in task.predictions if isinstance(one, Mapping) and type(one.get("id")) is int]
    parent = annotation.get("parent_prediction")
    began = [one for one in predictions if one["id"] == parent]
    if began:
        return _prediction("parent", began[0])
    created = _moment(annotation.get("created_at"))
    own = [one for one in predictions if is_own(str(one.get("model_version")))]
    older = [one for one in own if _moment(one.get("created_at")) < created]
    if older:
        return _prediction("older", max(older, key=lambda one: int(one["id"])))
    versions = [one.version for one in drawn if one.version and one.origin.startswith("prediction")]
    if versions:
        untouched = tuple(one for one in drawn if one.origin == "prediction")
        return _Shown("regions", _storable(versions[0]), untouched)
    return _Shown()


def _prediction(source: str, prediction: _Json) -> _Shown:
    boxes, _ = read_boxes(prediction.get("result") or [])
    return _Shown(source, _storable(prediction.get("model_version") or ""), tuple(boxes))


def _storable(version: object) -> str:
    """Return a text as every database takes it."""
    return str(version).encode(errors="replace").decode().replace("\0", "?")


def _kept_or(found: _Shown, known: _Json | None) -> _Shown:
    """Return what an earlier pull has found out, unless a better source says more now."""
    if known is None or _SOURCES.index(found.source) > _SOURCES.index(known["source"]):
        return found
    return _Shown(known["source"], known["version"], boxes_from(known["predicted"]))


def _explainer(version: str) -> str:
    """Return which explainer a version of ours names; of another program's there is none."""
    if not is_own(version):
        return ""
    rest = version.removeprefix(_PREFIX)
    named = [name for name in plugin_names(EXPLAINERS) if rest.startswith(f"{name}-")]
    return max(named, key=len, default=rest.partition("-")[0])


def _chosen(annotation: _Json, config: LabelConfig, pictures: int) -> list[list[str]]:
    """Return for each picture the labels that were chosen."""
    if config.question is None:
        return [[] for _ in range(pictures)]
    task: _Json = {"id": annotation.get("task"), "data": {}, "annotations": [annotation]}
    known = known_labels(task, config, config.label_names, pictures)
    return [list(labels or ()) for labels in known]


def _who(value: object) -> int | None:
    number = value.get("id") if isinstance(value, Mapping) else value
    return number if type(number) is int else None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _MOST_SECONDS else None


def _moment(value: object) -> str:
    """Return a time so that earlier ones sort first as text, empty where it is none."""
    try:
        at = datetime.fromisoformat(str(value))
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return ""
