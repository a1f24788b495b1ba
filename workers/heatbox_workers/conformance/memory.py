"""What calls leave behind in memory: tensors that stay alive, and blocks that Python and numpy allocated and keep.

Neither is the size of the process: that moves by megabytes with the allocator's mood, and a heatmap has 256 bytes.
Blocks below 128 bytes are not counted: interpreters keep and reuse them, and torch's own nodes are such. With this both
figures of a clean explainer are flat.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

__all__ = ["kept_per_call"]

_WARM_UP = 4  # calls
_SECONDS = 1.0  # about so long each of the two stretches that are compared takes
_FEWEST, _MOST = 4, 24  # calls per stretch
_BLOCK = 128  # bytes
_KEPT = 256  # bytes per call, one map of 8 x 8 cells; a block that grows now and then is below


@dataclass(frozen=True)
class Mark:
    """What is alive: tensors, and bytes that Python and numpy hold in blocks of some size."""

    tensors: int
    allocated: int


def kept_per_call(call: Callable[[], None]) -> str | None:
    """Call often and say what every call keeps, or None; one that grows in one stretch only is a cache that fills."""
    call()  # it imports and builds what it needs once
    was_tracing = tracemalloc.is_tracing()
    gc.collect()
    gc.freeze()  # what is there already need not be looked at each time
    tracemalloc.start()
    try:
        calls = min(max(int(_SECONDS / _seconds(call)), _FEWEST), _MOST)
        marks = [_mark(), _after(call, calls), _after(call, calls)]
    finally:
        if not was_tracing:
            tracemalloc.stop()
        gc.unfreeze()
    return _growth(marks, calls)


def _seconds(call: Callable[[], None]) -> float:
    """Warm up and return what one call takes."""
    begun = time.perf_counter()
    for _ in range(_WARM_UP):
        call()
    return (time.perf_counter() - begun) / _WARM_UP


def _after(call: Callable[[], None], calls: int) -> Mark:
    for _ in range(calls):
        call()
    return _mark()


def _mark() -> Mark:
    gc.collect()
    tensors = sum(issubclass(type(item), Tensor) for item in gc.get_objects())
    traces = tracemalloc.take_snapshot().traces
    return Mark(tensors, sum(trace.size for trace in traces if trace.size >= _BLOCK))


def _growth(marks: list[Mark], calls: int) -> str | None:
    tensors = min(after.tensors - before.tensors for before, after in pairwise(marks)) / calls
    allocated = min(after.allocated - before.allocated for before, after in pairwise(marks)) / calls
    if tensors >= 1 / 2:
        return f"every call left {tensors:.1f} tensors alive (over {2 * calls} calls)"
    if allocated >= _KEPT:
        return f"every call left {allocated:.0f} bytes allocated (over {2 * calls} calls)"
    return None
