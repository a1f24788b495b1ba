"""What people see of a training: how far it is in one line, how fast its losses fall, and all of it as JSON."""

from collections.abc import Mapping
from typing import Any

from heatbox.trainings.tables import Training

__all__ = ["as_json", "far", "share"]

_FIGURES = ("loss", "val_error")
_INNER = {"token", "serial", "told", "has_order"}


def as_json(training: Training) -> dict[str, Any]:
    """Return the training as JSON-ready values."""
    shown = {name: value for name, value in vars(training).items() if name not in _INNER}
    return {**shown, "state": str(training.state)}


def far(training: Training) -> str:
    """Return how far it is, in one line, such as `epoch 12 of 60, loss 0.21, val error 0.3`."""
    told = training.progress
    if not told:
        return "waits for a worker" if training.has_order else "waits for its order"
    parts = [_count(told), *(_figure(name, value) for name, value in told.items() if name in _FIGURES)]
    return ", ".join(part for part in parts if part) or "has begun"


def share(training: Training) -> tuple[int, int] | None:
    """Return how many of how many steps are done; None where that is not known."""
    told = training.progress
    for one, many in (("epoch", "epochs"), ("done", "total")):
        if _is_count(told.get(one)) and _is_count(told.get(many)):
            return told[one], told[many]
    return None


def _count(told: Mapping[str, Any]) -> str:
    stage = str(told.get("stage", ""))
    if _is_count(told.get("epoch")):
        return " ".join(filter(None, [stage, f"epoch {told['epoch']} of {told.get('epochs', '?')}"]))
    if _is_count(told.get("done")):
        return " ".join(filter(None, [stage, f"{told['done']} of {told.get('total', '?')}"]))
    return stage


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _figure(name: str, value: object) -> str:
    return f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, (int, float)) else ""
