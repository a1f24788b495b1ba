"""The result of a run over files: JSON lines, one task for each item that has come to an end, in their order.

A line is a task of Label Studio's import with its prediction, `{"id"?, "data", "predictions", ...}`; one that failed
has `"error": {"code", "message"}` and no prediction of ours, so that nothing is lost silently. A JSON list of the
lines without an error is what Label Studio imports.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatbox.errors import RunStateError
from heatbox.import_file import atomic_text, config_path
from heatbox.labelling.config import make_label_config
from heatbox.labelling.predictions import import_task
from heatbox.labelling.tags import LabelConfig
from heatbox.runs.records import Runs
from heatbox.runs.tables import Item, ItemState, Run

__all__ = ["Written", "write_results"]

_ENDED = (ItemState.DONE, ItemState.KEPT, ItemState.FAILED)


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        lines: of the file, also those with an error.
        failed: lines with an error.
        left: items of the run that have not come to an end and are not in the file.
        label_config: file with the labels that were found, where the run has no label config of its own.
    """

    lines: int
    failed: int
    left: int
    label_config: Path | None = None


def write_results(runs: Runs, number: int, out: Path) -> Written:
    """Write what has come to an end; a file that is there is replaced when the new one is whole.

    Raises:
        RunNotFoundError: there is none of this number.
        RunStateError: the run is over a project: its predictions are in Label Studio.
        OutputError: a file cannot be written.
    """
    run = runs.find(number)
    if run.project is not None:
        raise RunStateError(
            f"Run {number} is over project {run.project}, so its predictions are in Label Studio.",
            "Export them there.",
        )
    config = run.config
    lines = failed = 0
    labels: set[str] = set()
    with atomic_text(out) as file:
        for item in runs.items(number, _ENDED):
            file.write(json.dumps(_line(item), ensure_ascii=False) + "\n")
            lines += 1
            failed += item.state is ItemState.FAILED
            labels |= _labels(item)
    written = _write_config(run, config, labels, config_path(out)) if out.is_file() else None
    return Written(lines, failed, runs.counts(number).left, written)


def _line(item: Item) -> dict[str, Any]:
    task = import_task(item.content or {"data": {}}, item.prediction)
    if item.state is not ItemState.FAILED:
        return task
    return {**task, "error": {"code": item.code, "message": item.reason}}


def _labels(item: Item) -> set[str]:
    regions = item.prediction["result"] if item.prediction else ()
    return {label for region in regions for label in region["value"][region["type"]]}


def _write_config(run: Run, config: LabelConfig, labels: set[str], path: Path) -> Path | None:
    """Write a label config with the labels that were found, unless the run has one that somebody else made."""
    made = make_label_config(config.label_names, config.data_key)
    if run.label_config != made or not labels:
        return None
    with atomic_text(path) as file:
        file.write(make_label_config(sorted(labels), config.data_key))
    return path
