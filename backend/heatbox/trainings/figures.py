"""The figures of a training for people: the comparison of challenger and champion in one line.

The engine gives a comparison as nested names and numbers; what is a number on both sides is told.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["figures"]

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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
