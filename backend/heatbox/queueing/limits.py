"""What a job process may take before it is ended."""

import os
from dataclasses import dataclass
from typing import Self

__all__ = ["JobLimits"]

_MEMORY_PART = 0.8  # of the machine's, for all workers together


@dataclass(frozen=True)
class JobLimits:
    """After how many seconds with the same pictures in hand, and above how many bytes, the process is ended.

    A training has no pictures in hand: it is ended after `silence` seconds in which it told nothing.
    """

    seconds: float = 300.0
    memory: int = 2**63
    silence: float = 1800.0

    @classmethod
    def for_machine(cls, seconds: float, memory: int, workers: int) -> Self:
        """Return limits; memory 0 means this worker's share of most of the machine's."""
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(seconds, memory or int(physical * _MEMORY_PART / workers))
