"""The process that holds torch and the warm classifiers: it does one job after the other for its parent.

Started as `python -m heatbox_workers.job_process DESCRIPTOR [trainings]` by `heatbox.queueing.job_process`, which tells
the protocol. It leaves signals to its parent, which asks it to stop or ends it, and it ends when the parent is gone.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from heatbox.errors import HeatboxError
from heatbox.logs import log_to_stderr
from heatbox.settings import Settings, read_settings
from heatbox_workers.process import prepare_process

__all__: list[str] = []


class _Parent:
    """The parent at the other end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._unread = b""

    def jobs(self) -> Iterator[Mapping[str, Any]]:
        """Yield one job after the other until the parent is gone."""
        while (message := self._next()) is not None:
            if "pipeline" in message or "learn" in message:
                yield message

    def wants_a_stop(self) -> bool:
        """Return whether the parent has asked for the end of this job."""
        while b"\n" in self._unread or select.select([self._socket], [], [], 0)[0]:
            message = self._next()
            if message is None or "stop" in message:
                return True
        return False

    def tell(self, **message: Any) -> None:  # noqa: ANN401 - any JSON value
        """Send a message; a parent that is gone is noticed when the next one is read."""
        with suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _next(self) -> Mapping[str, Any] | None:
        while b"\n" not in self._unread:
            try:
                received = self._socket.recv(1 << 20)
            except OSError:
                return None
            if not received:
                return None
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        message: Mapping[str, Any] = json.loads(line)
        return message


def main(descriptor: int, *, of_trainings: bool = False) -> None:
    """Do jobs until the parent is gone: all of them trainings, or none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as connection:
        parent = _Parent(connection)
        try:
            settings = read_settings(os.environ)
        except HeatboxError as error:
            for _ in parent.jobs():
                parent.tell(failure=error.as_dict())
            return
        log_to_stderr(settings.log_level, "job", settings.log_format)
        threads = prepare_process(settings.threads, settings.workers)
        if of_trainings:
            _train(parent, settings)
        else:
            _annotate(parent, settings, threads)


def _train(parent: _Parent, settings: Settings) -> None:
    from heatbox_workers.train_job import learn

    for job in parent.jobs():
        learn(Path(job["learn"]), settings, parent.tell)


def _annotate(parent: _Parent, settings: Settings, threads: int) -> None:
    import torch

    from heatbox.pipeline import Pipeline
    from heatbox_workers.jobs import Annotators, tell_wrong_options

    torch.set_num_threads(threads)
    tell_wrong_options(settings)
    annotators: Annotators | None = None
    for job in parent.jobs():
        try:
            annotators = annotators or Annotators(settings)
            pipeline = Pipeline.from_dict(job["pipeline"])
            for entries, seconds in annotators.annotate(pipeline, job["addresses"], parent.tell):
                parent.tell(entries=entries, seconds=seconds)
                if parent.wants_a_stop():
                    break
        except HeatboxError as error:
            parent.tell(failure=error.as_dict())
        else:
            parent.tell(end=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), of_trainings=sys.argv[2:] == ["trainings"])
