"""`heatbox work`: one worker; it takes jobs from the queues and keeps the classifiers warm."""

import os
from typing import Annotated

import typer

__all__ = ["work"]

_NICE = 10  # a training takes what annotating leaves


def work(
    queue: Annotated[
        list[str] | None,
        typer.Option(
            help="Queue to serve, the most urgent first: interactive, batch or train; default: interactive and batch."
        ),
    ] = None,
) -> None:
    """Run one worker until it is told to stop: it annotates what the service and background runs put on the queues.

    All settings come from the environment. `heatbox up` starts workers by itself; start more, here or on other
    machines, against the same Redis and model store. SIGTERM lets a worker finish the picture in hand and hand the
    rest back. A worker for trainings alone (`--queue train`) starts its job process only when there is one, gives way
    to all others, and lets a training rest at its last checkpoint when it is told to stop.
    """
    from heatbox.logs import log_to_stderr
    from heatbox.pictures.fetching import check_access
    from heatbox.queueing.queues import LANES
    from heatbox.settings import read_settings
    from heatbox_workers.worker import exit_code, make_worker

    unknown = [name for name in queue or () if name not in LANES]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is no queue; there are {', '.join(LANES)}.", param_hint="--queue"
        )
    lanes = queue or ["interactive", "batch"]
    if "train" in lanes and set(lanes) != {"train"}:
        raise typer.BadParameter(
            "A worker for trainings serves no other queue: who waits for a prediction would wait for hours.",
            param_hint="--queue",
        )
    settings = read_settings(os.environ)
    log_to_stderr(settings.log_level, "worker", settings.log_format)
    check_access(settings)
    if "train" in lanes:
        os.nice(_NICE)  # also of its job process
    worker = make_worker(settings, os.environ, [LANES[name] for name in lanes])
    worker.work(logging_level=_rq_level(settings.log_level))
    raise typer.Exit(exit_code(worker))


def _rq_level(level: str) -> str:
    """Return RQ's level: it tells of each job three times at `info`."""
    return "WARNING" if level == "info" else level.upper()
