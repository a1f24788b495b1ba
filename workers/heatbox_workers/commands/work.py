"""`heatbox work`: one worker process; it takes jobs from the queue and keeps the classifiers warm."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heatbox.settings import Settings

__all__ = ["work"]


def work() -> None:
    """Run one worker until it is told to stop: it annotates what the service puts on the queue.

    All settings come from the environment. `heatbox up` starts workers by itself; start more, here or on
    other machines, against the same Redis and model store. SIGTERM lets a worker finish its job.
    """
    from heatbox.logs import log_to_stderr
    from heatbox.settings import read_settings

    settings = read_settings(os.environ)
    log_to_stderr(settings.log_level, "worker")
    _work(settings)


def _work(settings: "Settings") -> None:
    from heatbox_workers.process import prepare_process
    from heatbox_workers.worker import make_worker

    worker = make_worker(settings.redis_url)
    threads = prepare_process(settings.threads, settings.workers)
    import torch

    from heatbox_workers.jobs import Annotators, tell_wrong_options, use

    tell_wrong_options(settings)
    torch.set_num_threads(threads)
    with use(Annotators(settings)):
        worker.work(logging_level=_rq_level(settings.log_level))


def _rq_level(level: str) -> str:
    """Return RQ's level: it tells of each job three times at `info`."""
    return "WARNING" if level == "info" else level.upper()
