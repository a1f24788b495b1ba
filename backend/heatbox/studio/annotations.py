"""Which of a task's annotations counts, where several people, or one person several times, have said something."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["counting_annotation"]

_Annotation = Mapping[str, Any]


def counting_annotation(annotations: object, tells: Callable[[_Annotation], bool]) -> _Annotation | None:
    """Return the annotation that counts, None where none does: ground truth first, then what was changed last.

    Args:
        annotations: of a task, as Label Studio stores them; it promises no order.
        tells: whether an annotation says anything about what is asked. A skipped one never does.
    """
    listed = annotations if isinstance(annotations, list | tuple) else []
    telling = [
        one for one in listed if isinstance(one, Mapping) and not one.get("was_cancelled") and tells(one)
    ]
    return max(reversed(telling), key=_rank, default=None)


def _rank(annotation: _Annotation) -> tuple[bool, str, int]:
    number = annotation.get("id")
    changed = str(annotation.get("updated_at") or "")
    return annotation.get("ground_truth") is True, changed, number if type(number) is int else 0
