"""The log: one line per event on standard error, with the name of the process, because several share it."""

import logging
import os

__all__ = ["log_to_stderr"]


def log_to_stderr(level: str, process: str) -> None:
    """Write log lines from this level on, marked with the process's name and id."""
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s {process}[{os.getpid()}] %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
