"""The data manager's query language, as far as heatbox speaks it: conditions, the range of a page, model versions.

Label Studio joins all conditions of a query by `and`, or all by `or`; each may have one child that must hold too. The
models that predicted a task are the column `predictions_model_versions`, which is cut after 500 characters when it is
shown, and is whole, with repetitions, when a regular expression looks into it.

Source: `data_manager/{managers,prepare_params,serializers}.py` of Label Studio 1.23.2.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from heatbox.studio.task_filter import TaskFilter

__all__ = [
    "VERSIONS",
    "Row",
    "as_query",
    "condition",
    "is_or",
    "once",
    "page_query",
    "takes",
    "twice",
    "versions",
    "with_versions",
]

Row = Mapping[str, Any]

VERSIONS = "predictions_model_versions"
_MAY_BE_CUT = 350  # of 500 characters, because PostgreSQL's are cut before their quotes are taken off
# Columns that Label Studio would compute for each task unless they are hidden.
_HIDDEN = [
    f"tasks:{name}"
    for name in (
        "annotations_ids",
        "annotations_results",
        "annotators",
        "avg_lead_time",
        "completed_at",
        "draft_exists",
        "file_upload",
        "predictions_results",
        "predictions_score",
        "state",
        "storage_filename",
    )
]


def takes(filters: TaskFilter, row: Row) -> bool:
    """Return whether the filter takes a listed task; its view is left to Label Studio."""
    return (
        filters.has_id(row["id"])
        and not (filters.unlabelled and row["is_labeled"])
        and not (filters.unpredicted and row["total_predictions"])
    )


def page_query(view: Row, filters: TaskFilter, first: int) -> Row:
    """Return the query for the tasks from a number on, in ascending order.

    A view joined by `or` gets the range as the child of each condition. What else the filter asks for is left to
    `takes` then; the gaps between ranges always are.
    """
    if filters.ids:
        start = condition("id", "in", "Number", {"min": first, "max": filters.ids[-1][1]})
    else:
        start = condition("id", "greater_or_equal", "Number", first)
    if is_or(view):
        return as_query([{**item, "child_filter": start} for item in view["items"]], "or")
    wanted = [
        *([condition("is_labeled", "equal", "Boolean", value=False)] if filters.unlabelled else []),
        *([condition("total_predictions", "equal", "Number", 0)] if filters.unpredicted else []),
    ]
    return as_query([start, *view["items"], *wanted])


def is_or(view: Row) -> bool:
    """Return whether one of several conditions is enough."""
    return view["conjunction"] == "or" and len(view["items"]) > 1


def as_query(items: Sequence[Row], conjunction: str = "and") -> Row:
    """Return a query, in ascending order of the tasks' numbers."""
    return {"filters": {"conjunction": conjunction, "items": items}, "ordering": ["tasks:id"]}


def condition(column: str, operator: str, kind: str, value: object) -> Row:
    """Return one condition; `kind` is Number, String, Boolean or List."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def versions(row: Row) -> Sequence[str] | None:
    """Return the model versions that predicted a listed task; None where the list may be cut."""
    text = row.get(VERSIONS) or ""
    return None if len(text) >= _MAY_BE_CUT else [name.strip() for name in text.split(",") if name]


def once(version: str) -> str:
    """Return what finds the version in a list of SQLite, `a,b`, or of PostgreSQL, `{a,"b"}`."""
    return f'(^|[{{,"]){re.escape(version)}([,}}"]|$)'


def twice(version: str) -> str:
    """Return what finds the version where the list has it several times."""
    name = re.escape(version)
    return f'(^|[{{,"]){name}[,"](.*[,"])?{name}([,}}"]|$)'


def with_versions(query: Row) -> Row:
    """Return the query with the column of model versions computed, and no other."""
    return {**query, "hiddenColumns": {"explore": _HIDDEN, "labeling": _HIDDEN}}
