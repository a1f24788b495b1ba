"""The process that does the heavy work: a parent without torch starts it, hands it pictures, and ends it when it must.

The parent always knows which pictures are in hand, so that when the process crashes, hangs in C code or eats the
memory, these alone are suspected and what was finished is kept. JSON lines over a socket pair:

    to the process    {"pipeline": {...}, "addresses": [...]}    one job after the other
                      {"stop": true}                             end this job after the pictures in hand
    from it           {"begin": [0, 1]}                          the positions of the pictures in hand
                      {"entries": [{...}, {...}], "seconds": s}  what became of them, and how long it took
                      {"end": true} or {"failure": {...}}        the job is over, or could not be begun
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from heatbox.errors import HeatboxError, PictureMemoryError, PictureTimeoutError, WorkerDiedError
from heatbox.processes import spawn

__all__ = ["Entry", "JobLimits", "JobProcess", "JobResult"]

Entry = Mapping[str, Any]  # {"annotation": ...} or {"error": {"code", "message", "remedy"}}

_PROGRAM = "heatbox_workers.job_process"
_LOAD_SECONDS = 600.0  # for torch and the classifier, before the first picture
_LOOK_SECONDS = 0.25  # between two looks at the memory and the clock
_END_SECONDS = 2.0
_MEMORY_PART = 0.8  # of the machine's, for all workers together


@dataclass(frozen=True)
class JobLimits:
    """After how many seconds with the same pictures in hand, and above how many bytes, the process is ended."""

    seconds: float = 300.0
    memory: int = 2**63

    @classmethod
    def for_machine(cls, seconds: float, memory: int, workers: int) -> Self:
        """Return limits; memory 0 means this worker's share of most of the machine's."""
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(seconds, memory or int(physical * _MEMORY_PART / workers))


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        entries: one for each address; None: not tried, or not finished.
        suspects: positions of the pictures that were in hand when the process ended.
        reason: why it ended, as `HeatboxError.as_dict`; None: it did not.
        failure: why no picture could be tried at all.
        seconds: spent on what was finished.
        exit_code: of the process where it ended; negative: the signal.
        addresses: that the entries belong to.
    """

    entries: tuple[Entry | None, ...]
    suspects: tuple[int, ...] = ()
    reason: Mapping[str, str] | None = None
    failure: Mapping[str, str] | None = None
    seconds: float = 0.0
    exit_code: int | None = None
    addresses: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        lists = ("entries", "suspects", "addresses")
        return cls(**{**value, **{name: tuple(value[name]) for name in lists}})


@dataclass
class _Job:
    """A job under way."""

    addresses: tuple[str, ...]
    entries: list[Entry | None]
    in_hand: tuple[int, ...] = ()
    since: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    begun: bool = False

    def result(self, **why: Any) -> JobResult:  # noqa: ANN401 - JobResult's fields
        return JobResult(tuple(self.entries), seconds=self.seconds, addresses=self.addresses, **why)


class JobProcess:
    """One process and the job that it has; a process that ended is started again with the next job.

    Use it from one thread: the kernel ends the process when the thread that started it is gone.
    """

    def __init__(self, environment: Mapping[str, str], limits: JobLimits) -> None:
        self._environment = dict(environment)
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._unread = b""
        self._job: _Job | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process, None before the first job."""
        return self._process.pid if self._process else None

    @property
    def has_begun(self) -> bool:
        """Whether the job is past loading: pictures are or were in hand."""
        return self._job is not None and self._job.begun

    def start(self) -> None:
        """Start the process if there is none; it loads torch while nobody waits."""
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", _PROGRAM, str(theirs.fileno())]
            self._process = spawn(command, self._environment, pass_fds=[theirs.fileno()])
        self._socket = ours

    def begin(self, pipeline: Mapping[str, Any], addresses: Sequence[str]) -> None:
        """Hand over a job.

        Args:
            pipeline: `Pipeline.as_dict()`.
            addresses: of the pictures.
        """
        if self._job is not None:  # its result was never taken, and must not be taken for this one's
            self.close()
        self.start()
        self._job = _Job(tuple(addresses), [None] * len(addresses))
        self._send({"pipeline": pipeline, "addresses": list(addresses)})

    def ask_to_stop(self) -> None:
        """Ask for the end of the job after the pictures in hand."""
        self._send({"stop": True})

    def poll(self, seconds: float = _LOOK_SECONDS) -> JobResult | None:
        """Take messages for at most so many seconds; return the result when the job is over.

        A process that is over a limit is ended here, whatever it does.
        """
        job, connection = self._job, self._socket
        if job is None or connection is None:
            return None
        ready, _, _ = select.select([connection], [], [], seconds)
        result = self._read(job, connection) if ready else None
        result = result or self._check(job)
        if result is not None:
            self._job = None
        return result

    def close(self) -> None:
        """End the process."""
        self._end()
        self._job = None

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is not None:
            try:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:  # it has ended; the next poll tells how
                return

    def _read(self, job: _Job, connection: socket.socket) -> JobResult | None:
        try:
            received = connection.recv(1 << 20)
        except OSError:
            received = b""
        if not received:
            code = self._end()
            told = f"signal {-code}" if code < 0 else f"code {code}"
            error = WorkerDiedError(
                f"The process that worked on the picture ended with {told}.",
                "Look at the picture and the log.",
            )
            return self._ended(job, error, code)
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            result = _take(job, json.loads(line))
            if result is not None:
                return result
        return None

    def _check(self, job: _Job) -> JobResult | None:
        spent = time.monotonic() - job.since
        limit = self._limits.seconds if job.begun else max(_LOAD_SECONDS, self._limits.seconds)
        if spent > limit:
            error: HeatboxError = PictureTimeoutError(
                f"The picture was not finished after {limit:g} s.",
                "Look at the picture, or raise HEATBOX_PICTURE_SECONDS.",
            )
        elif self._memory() > self._limits.memory:
            error = PictureMemoryError(
                f"The process needed more than {self._limits.memory / 2**20:.0f} MiB.",
                "Shrink the picture, or raise HEATBOX_JOB_MEMORY.",
            )
        else:
            return None
        return self._ended(job, error, self._end())

    def _ended(self, job: _Job, error: HeatboxError, code: int) -> JobResult:
        """Return the result of a job whose process is gone; while it was loading, no picture is to blame."""
        open_ones = tuple(index for index, entry in enumerate(job.entries) if entry is None)
        suspects = (job.in_hand or open_ones[:1]) if job.begun else ()
        return job.result(suspects=suspects, reason=error.as_dict(), exit_code=code)

    def _memory(self) -> int:
        """Return the resident bytes of the process; 0 where they cannot be seen."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _end(self) -> int:
        """End the process and return its exit code."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._unread = b""
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(_END_SECONDS if self._job is None else 0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _take(job: _Job, message: Mapping[str, Any]) -> JobResult | None:
    """Note a message of the process and return the result where it was the last."""
    now = time.monotonic()
    if "begin" in message:
        job.in_hand, job.since, job.begun = tuple(message["begin"]), now, True
    elif "entries" in message:
        for index, entry in zip(job.in_hand, message["entries"], strict=True):
            job.entries[index] = entry
        job.seconds += message["seconds"]
        job.in_hand, job.since = (), now
    elif "failure" in message:
        return job.result(failure=message["failure"])
    elif "end" in message:
        return job.result()
    return None
