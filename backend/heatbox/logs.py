"""The log: one line per event on standard error, with the name of the process, because several share it.

As text for people, or as one JSON object per line for a collector; then also with the run, task and chunk that the
event is about, where the program named them: `log.info("...", extra={"run": 7})`.
"""

import json
import logging
import os
import traceback
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Literal

__all__ = ["log_to_stderr", "place_of"]

_ABOUT = ("run", "task", "chunk")


def log_to_stderr(level: str, process: str, form: Literal["text", "json"] = "text") -> None:
    """Write log lines from this level on, marked with the process's name and id; warnings of Python are lines too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json(process) if form == "json" else _text(process))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(form == "json")
    for library in ("httpx", "httpcore"):  # they tell whole addresses, and a presigned one is a key
        logging.getLogger(library).setLevel(logging.WARNING)


def place_of(error: BaseException) -> str:
    """Return the kind of an exception and its innermost places, without its text, which may quote a task."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = [f"{PurePath(one.filename).name}:{one.lineno} {one.name}" for one in reversed(frames)]
    return f"{type(error).__name__} in {', from '.join(places)}"


def _text(process: str) -> logging.Formatter:
    return logging.Formatter(f"%(asctime)s {process}[{os.getpid()}] %(levelname)s %(message)s", "%H:%M:%S")


class _Json(logging.Formatter):
    """Writes a record as one line of JSON; newlines in messages and tracebacks are escaped."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in _ABOUT if hasattr(record, name)},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
