"""Predictions and tasks in Label Studio's JSON: what heatbox sends.

Protocol: https://labelstud.io/guide/predictions and https://labelstud.io/guide/task_format. Label Studio
checks almost nothing by default; with its strict switch one wrong region costs the whole batch. So everything
holds here: labels are in the config, scores in [0, 1], boxes inside the picture, ids unique.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from heatbox.annotation import Annotation, Found, Region
from heatbox.errors import LabelUnknownError
from heatbox.labelling.brush import encode_mask
from heatbox.labelling.tags import Control, Kind, LabelConfig, LabelTag

__all__ = ["evidence_url", "import_task", "prediction"]

OWN_VERSION = "heatbox-"
KEPT_KEYS = ("id", "data", "meta", "annotations")


def prediction(
    annotations: Sequence[Annotation | None], config: LabelConfig, version: str, evidence: str = ""
) -> dict[str, Any]:
    """Return what came of a task's pictures as a prediction of Label Studio.

    Args:
        annotations: one for each picture, in their order; None: it has none.
        config: whose controls are filled.
        version: `Pipeline.version`, the same in `/setup`.
        evidence: address of the page that shows what the regions came from; empty: there is none.

    Raises:
        LabelUnknownError: a region has a label that the config does not.
    """
    tags = {label.name: label for label in config.labels}
    for annotation in filter(None, annotations):
        _check_labels(annotation, tags)
    made = _Made(tags, version, evidence)
    regions = [
        region
        for index, annotation in enumerate(annotations)
        if annotation is not None
        for control in config.controls
        if control.kind != "choices"
        for region in made.regions(annotation, control, index if config.value_list else None)
    ]
    if config.question is not None:
        regions += made.answers(annotations, config.question)
    score = min((_unit(one.score) for one in annotations if one is not None), default=None)
    return {"result": regions, "score": score, "model_version": version}


def evidence_url(people_url: str, project: int | None, task: int | None) -> str:
    """Return the address of the page that shows what a task's regions came from; empty where there is none."""
    if not people_url or project is None or task is None:
        return ""
    return f"{people_url}/v1/tasks/{task}/evidence?project={project}"


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


class _Made:
    """Makes regions of one version."""

    def __init__(self, tags: Mapping[str, LabelTag], version: str, evidence: str) -> None:
        self._tags = tags
        self._version = version
        self._evidence = evidence

    def regions(
        self, annotation: Annotation, control: Control, item_index: int | None
    ) -> Iterator[dict[str, Any]]:
        """Yield the regions of a picture that this control can hold."""
        for region in annotation.regions:
            name = control.name_of(self._tags[region.label])
            value = _VALUES[control.kind](region, annotation)
            if name is None or value is None:
                continue
            score = _unit(region.score)
            yield {
                "id": "-".join(_id_parts(region.id, control, item_index)),
                "from_name": control.from_name,
                "to_name": control.to_name,
                "type": control.kind,
                "original_width": annotation.width,
                "original_height": annotation.height,
                "image_rotation": 0,
                **({} if item_index is None else {"item_index": item_index}),
                "score": score,
                "value": {**value, control.kind: [name]},
                "meta": self._meta(region.class_name, score, item_index, self._found_by(region)),
            }

    def answers(
        self, annotations: Sequence[Annotation | None], question: Control
    ) -> Iterator[dict[str, Any]]:
        """Yield the image-level labels: of the whole task, or of each picture where the project asks so."""
        indexed = [(index, one) for index, one in enumerate(annotations) if one is not None]
        whole: list[tuple[int | None, list[Annotation]]] = [(None, [one for _, one in indexed])]
        groups = [(index, [one]) for index, one in indexed] if question.per_item else whole
        for index, group in groups:
            best: dict[str, Found] = {}
            for found in (found for one in group for found in one.found):
                name = question.name_of(self._tags[found.label])
                if name is not None and (name not in best or best[name].probability < found.probability):
                    best[name] = found
            ordered = sorted(best.items(), key=lambda pair: (-pair[1].probability, pair[0]))
            kept = ordered if question.several else ordered[:1]
            if kept:
                yield self._answer(question, index, kept)

    def _answer(
        self, question: Control, item_index: int | None, kept: Sequence[tuple[str, Found]]
    ) -> dict[str, Any]:
        names = [name for name, _ in kept]
        digest = hashlib.sha256("\n".join([self._version, question.from_name, *names]).encode()).hexdigest()
        score = _unit(kept[0][1].probability)
        return {
            "id": f"hb{digest[:10]}" + ("" if item_index is None else f"-{item_index}"),
            "from_name": question.from_name,
            "to_name": question.to_name,
            "type": "choices",
            **({} if item_index is None else {"item_index": item_index}),
            "score": score,
            "value": {"choices": names},
            "meta": self._meta(kept[0][1].class_name, score, item_index),
        }

    @staticmethod
    def _found_by(region: Region) -> dict[str, Any]:
        """Return what the version of a prediction does not say of one of its regions."""
        raw = {} if region.raw_score is None else {"raw_score": _unit(region.raw_score)}
        return {**raw, **({"explainer": region.explainer} if region.explainer else {})}

    def _meta(
        self, class_name: str, score: float, item_index: int | None, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return where a region comes from; of a region's unknown keys Label Studio's editor keeps those of `meta`."""
        origin = {"class": class_name, "version": self._version}
        address = f"{self._evidence}&item={item_index}" if item_index else self._evidence
        page = {"evidence": address} if self._evidence else {}
        text = "\n".join([f"{class_name} {score:.2f}", *page.values()])
        return {"text": [text], "heatbox": {**origin, **(more or {}), **page}}


def _rectangle(region: Region, annotation: Annotation) -> dict[str, Any]:
    return {**region.box.as_percent(annotation.width, annotation.height), "rotation": 0}


def _polygon(region: Region, annotation: Annotation) -> dict[str, Any]:
    """Return the outline of the region's mask, or its box where it has none."""
    outline = region.mask.polygon() if region.mask is not None else []
    if not outline:
        x1, y1, x2, y2 = region.box.as_xyxy()
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        outline = [(x / annotation.width, y / annotation.height) for x, y in corners]
    points = [[round(100 * _unit(x), 4), round(100 * _unit(y), 4)] for x, y in outline]
    return {"points": points, "closed": True}


def _brush(region: Region, annotation: Annotation) -> dict[str, Any] | None:
    if region.mask is None:
        return None
    pixels = region.mask.scaled(annotation.width, annotation.height)
    return {"format": "rle", "rle": encode_mask(pixels)} if pixels.any() else None


_VALUES: Mapping[Kind, Callable[[Region, Annotation], dict[str, Any] | None]] = {
    "rectanglelabels": _rectangle,
    "polygonlabels": _polygon,
    "brushlabels": _brush,
}


def _check_labels(annotation: Annotation, tags: Mapping[str, LabelTag]) -> None:
    named: list[Region | Found] = [*annotation.regions, *annotation.found]
    for one in named:
        if one.label not in tags:
            raise LabelUnknownError(
                f"The label {one.label!r} is not in the label config.",
                f"Map the class {one.class_name!r} to one of: {', '.join(tags)}.",
            )


def _id_parts(region_id: str, control: Control, item_index: int | None) -> Iterator[str]:
    """Yield the parts of an id: one find is a region of each kind, and on each picture of a list."""
    yield region_id
    if control.kind != "rectanglelabels":
        yield control.kind.removesuffix("labels")
    if item_index is not None:
        yield str(item_index)


def _unit(score: float) -> float:
    """Return a score clipped to [0, 1]; NaN counts as 0."""
    return min(max(0.0, float(score)), 1.0)


def _is_own(prediction: Mapping[str, Any]) -> bool:
    return str(prediction.get("model_version", "")).startswith(OWN_VERSION)
