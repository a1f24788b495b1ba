"""The figures of a training for people: the comparison of challenger and champion in one line.

The engine gives a comparison as nested names and numbers; what is a number on both sides is told.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["figures", "label_figures", "told_apart"]

_SIDES = ("challenger", "champion")


def figures(result: Mapping[str, Any]) -> str:
    """Return ` (accuracy 0.91 against 0.85, box quality 0.62 against 0.55)`; empty where nothing was measured."""
    comparison = result.get("comparison")
    if not isinstance(comparison, Mapping):
        return ""
    ours, theirs = (comparison.get(side) for side in _SIDES)
    if not isinstance(ours, Mapping):
        return ""
    before = theirs if isinstance(theirs, Mapping) else {}
    parts = [
        f"{name.replace('_', ' ')} {value:.3f}"
        + (f" against {before[name]:.3f}" if _is_number(before.get(name)) else "")
        for name, value in ours.items()
        if _is_number(value)
    ]
    return f" ({', '.join(parts)})" if parts else ""


def label_figures(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each label: its name, held-out pictures, accuracy and box quality of champion and challenger."""
    comparison = result.get("comparison")
    ours, theirs = (_labels(comparison, side) for side in _SIDES)
    return [
        (
            label,
            str(row.get("pictures", "")),
            *(
                _number(side.get(name))
                for name in ("accuracy", "box_quality")
                for side in (theirs.get(label, {}), row)
            ),
        )
        for label, row in ours.items()
    ]


def told_apart(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a training could not use or learn, each as a name and words: reasons of rejected pictures, ..."""
    reasons = Counter(str(one["code"]) for one in result.get("rejected") or () if isinstance(one, Mapping))
    rejected = ", ".join(f"{code} {count}" for code, count in reasons.most_common(5))
    unlearnt = ", ".join(map(str, result.get("unlearnt") or ()))
    untaught = " ".join(map(str, result.get("untaught") or ()))
    rows = (("rejected", rejected), ("no picture of", unlearnt), ("not fitted", untaught))
    return [(name, words) for name, words in rows if words]


def _labels(comparison: object, side: str) -> Mapping[str, Mapping[str, Any]]:
    whole = comparison.get(side) if isinstance(comparison, Mapping) else None
    found = whole.get("labels") if isinstance(whole, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else "-"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
