"""Child processes that die with their parent, and that stop in order.

On Linux a child asks the kernel for a signal at its parent's death (PR_SET_PDEATHSIG, prctl(2)), so that
even a parent that is killed leaves nothing running. A child has a process group of its own: Ctrl-C reaches
the parent alone, which stops the rest.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

__all__ = ["spawn", "stop"]

_PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    at_parents_death: signal.Signals = signal.SIGKILL,
    output: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child process; call it from a thread that lives as long: its end is the parent's death for Linux.

    Args:
        command: program and arguments.
        environment: all of its environment; None hands on our own.
        at_parents_death: the signal it is sent when this process is gone.
        output: where its standard output and error go; None: where ours go.
        pass_fds: file descriptors that it inherits.
    """
    return subprocess.Popen(  # noqa: S603 - only our own programs and redis-server
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=pass_fds,
        process_group=0,
        preexec_fn=_bind_to_parent(at_parents_death),  # noqa: PLW1509 - the callers have one thread and no torch
    )


def stop(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Ask a child to end, wait so many seconds, then kill it; return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _bind_to_parent(at_death: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(at_death))
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return bind
