"""Process set-up for a worker, before torch is loaded: threads and memory.

Measured with mobilenet_v2, batch 8, on two cores that others use too: OpenMP threads that spin shortly take
10.8-11.8 ms per picture, with the default 13.8-294 ms. glibc keeps freed memory instead of giving every large
tensor back to the kernel.
"""

import ctypes
import os
import sys

__all__ = ["available_cores", "prepare_process"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def prepare_process(threads: int, workers: int) -> int:
    """Set up threads and memory and return the number of threads; call it before torch is imported.

    Args:
        threads: compute threads of this process; 0: the cores divided by the workers.
        workers: how many such processes share the machine.
    """
    count = threads or max(1, available_cores() // workers)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _keep_freed_memory()
    return count


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks; elsewhere do nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
