"""The process that does the heavy work: a parent without torch starts it, hands it pictures, and ends it when it must.

The parent always knows which pictures are in hand, so that when the process crashes, hangs in C code or eats the
memory, these alone are suspected and what was finished is kept. JSON lines over a socket pair:

    to the process    {"pipeline": {...}, "addresses": [...]}    one job after the other
                      {"learn": "FOLDER"}                        a training; its order lies in the folder
                      {"stop": true}                             end this job after the pictures in hand
    from it           {"begin": [0, 1]}                          the positions of the pictures in hand
                      {"entries": [{...}, {...}], "seconds": s}  what became of them, and how long it took
                      {"progress": {...}}                        how far a training is
                      {"learnt": {...}}                          the result of a training
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
from typing import Any, Protocol, Self, TypeVar

from heatbox.errors import HeatboxError, PictureMemoryError, PictureTimeoutError, WorkerDiedError
from heatbox.processes import spawn
from heatbox.queueing.limits import JobLimits
from heatbox.queueing.training_job import Trained, TrainingJob

__all__ = ["Entry", "JobLimits", "JobProcess", "JobResult"]

Entry = Mapping[str, Any]  # {"annotation": ...} or {"error": {"code", "message", "remedy"}}

_Result_co = TypeVar("_Result_co", covariant=True)

_PROGRAM = "heatbox_workers.job_process"
_LOAD_SECONDS = 600.0  # for torch and the classifier, before the first picture
_LOOK_SECONDS = 0.25  # between two looks at the memory and the clock
_END_SECONDS = 2.0


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

    def take(self, message: Mapping[str, Any]) -> JobResult | None:
        """Note a message of the process and return the result where it was the last."""
        now = time.monotonic()
        if "begin" in message:
            self.in_hand, self.since, self.begun = tuple(message["begin"]), now, True
        elif "entries" in message:
            for index, entry in zip(self.in_hand, message["entries"], strict=True):
                self.entries[index] = entry
            self.seconds += message["seconds"]
            self.in_hand, self.since = (), now
        elif "failure" in message:
            return self.result(failure=message["failure"])
        elif "end" in message:
            return self.result()
        return None

    def trouble(self, limits: JobLimits, memory: int) -> HeatboxError | None:
        """Return over which limit the job is; `memory` is in bytes."""
        limit = limits.seconds if self.begun else max(_LOAD_SECONDS, limits.seconds)
        if time.monotonic() - self.since > limit:
            return PictureTimeoutError(
                f"The picture was not finished after {limit:g} s.",
                "Look at the picture, or raise HEATBOX_PICTURE_SECONDS.",
            )
        if memory > limits.memory:
            return PictureMemoryError(
                f"The process needed more than {limits.memory / 2**20:.0f} MiB.",
                "Shrink the picture, or raise HEATBOX_JOB_MEMORY.",
            )
        return None

    def died(self, told: str) -> HeatboxError:
        """Return the error of a process that ended by itself."""
        return WorkerDiedError(
            f"The process that worked on the picture ended with {told}.", "Look at the picture and the log."
        )

    def ended(self, error: HeatboxError, code: int) -> JobResult:
        """Return the result of a job whose process is gone; while it was loading, no picture is to blame."""
        open_ones = tuple(index for index, entry in enumerate(self.entries) if entry is None)
        suspects = (self.in_hand or open_ones[:1]) if self.begun else ()
        return self.result(suspects=suspects, reason=error.as_dict(), exit_code=code)


class _AnyJob(Protocol[_Result_co]):
    """What a process does: it takes messages, and knows what is too much and what comes of a process that is gone."""

    def take(self, message: Mapping[str, Any]) -> _Result_co | None: ...
    def trouble(self, limits: JobLimits, memory: int) -> HeatboxError | None: ...
    def died(self, told: str) -> HeatboxError: ...
    def ended(self, error: HeatboxError, code: int) -> _Result_co: ...


class JobProcess:
    """One process and the job that it has; a process that ended is started again with the next job.

    Use it from one thread: the kernel ends the process when the thread that started it is gone.
    """

    def __init__(
        self, environment: Mapping[str, str], limits: JobLimits, *, of_trainings: bool = False
    ) -> None:
        self._options = ["trainings"] if of_trainings else []
        self._environment = dict(environment)
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._unread = b""
        self._job: _Job | TrainingJob | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process, None before the first job."""
        return self._process.pid if self._process else None

    @property
    def has_begun(self) -> bool:
        """Whether the job is past loading: pictures are or were in hand."""
        return isinstance(self._job, _Job) and self._job.begun

    def start(self) -> None:
        """Start the process if there is none; one that annotates loads torch while nobody waits."""
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", _PROGRAM, str(theirs.fileno()), *self._options]
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

    def begin_training(self, folder: Path) -> TrainingJob:
        """Hand over a training whose order lies in a folder (`training_job.write_order`); return what it tells."""
        if self._job is not None:
            self.close()
        self.start()
        self._job = training = TrainingJob()
        self._send({"learn": str(folder)})
        return training

    def poll(self, seconds: float = _LOOK_SECONDS) -> JobResult | None:
        """Take messages for at most so many seconds; return the result when the job is over.

        A process that is over a limit is ended here, whatever it does.
        """
        return self._poll(self._job, seconds) if isinstance(self._job, _Job) else None

    def poll_training(self, seconds: float = _LOOK_SECONDS) -> Trained | None:
        """Do the same for a training."""
        return self._poll(self._job, seconds) if isinstance(self._job, TrainingJob) else None

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

    def _poll(self, job: _AnyJob[_Result_co], seconds: float) -> _Result_co | None:
        if self._socket is None:
            return None
        ready, _, _ = select.select([self._socket], [], [], seconds)
        result = self._read(job, self._socket) if ready else None
        result = result or self._check(job)
        if result is not None:
            self._job = None
        return result

    def _read(self, job: _AnyJob[_Result_co], connection: socket.socket) -> _Result_co | None:
        try:
            received = connection.recv(1 << 20)
        except OSError:
            received = b""
        if not received:
            code = self._end()
            return job.ended(job.died(f"signal {-code}" if code < 0 else f"code {code}"), code)
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            result = job.take(json.loads(line))
            if result is not None:
                return result
        return None

    def _check(self, job: _AnyJob[_Result_co]) -> _Result_co | None:
        trouble = job.trouble(self._limits, self._memory())
        return None if trouble is None else job.ended(trouble, self._end())

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
