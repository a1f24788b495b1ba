"""Where the conductor runs: in a thread of the web service, or in the foreground of `heatbox run`."""

import logging
import os
import time
from collections.abc import Callable, Mapping

from heatbox.background import Background
from heatbox.errors import HeatboxError, LedgerError, StudioRefusedError
from heatbox.ledger import Ledger
from heatbox.ledger_lock import LedgerLock
from heatbox.queueing.job_process import JobLimits, JobProcess
from heatbox.runs.conductor import Conductor
from heatbox.runs.lanes import Lane, LocalLane, RedisLane
from heatbox.runs.project_tasks import ProjectTasks
from heatbox.runs.records import Runs
from heatbox.settings import Settings, as_environment
from heatbox.studio.client import Studio

__all__ = ["ConductorThread", "conduct", "is_conducted", "make_conductor", "open_lane", "open_studio"]

log = logging.getLogger(__name__)

_BUSY_SECONDS, _IDLE_SECONDS, _OTHER_SECONDS, _TROUBLE_SECONDS = 0.1, 0.5, 2.0, 2.0


def open_studio(settings: Settings, *, patient: bool = True) -> Studio:
    """Return a client of the Label Studio that the settings name.

    Args:
        settings: name its address and the token.
        patient: whether to wait long and try again; the conductor does so by itself, and has other runs meanwhile.

    Raises:
        StudioRefusedError: they name none.
    """
    key = settings.studio_api_key.get_secret_value()
    if not settings.studio_url or not key:
        missing = "LABEL_STUDIO_API_KEY is not set" if settings.studio_url else "LABEL_STUDIO_URL is not set"
        raise StudioRefusedError(
            f"No Label Studio is named: {missing}.",
            "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY (Account & Settings, Access Token).",
        )
    return (
        Studio(settings.studio_url, key, ca_file=settings.ca_file)
        if patient
        else Studio(settings.studio_url, key, timeout=30.0, delays=(), ca_file=settings.ca_file)
    )


def open_lane(settings: Settings, environment: Mapping[str, str]) -> Lane:
    """Return the lane to Redis where one is named, else one job process of our own."""
    if settings.redis_url:
        return RedisLane(settings.redis_url)
    limits = JobLimits.for_machine(settings.picture_seconds, settings.job_memory, 1)
    own = settings.model_copy(update={"workers": 1})
    return LocalLane(JobProcess({**environment, **as_environment(own)}, limits))


def make_conductor(
    settings: Settings, runs: Runs, environment: Mapping[str, str], only: int | None = None
) -> Conductor:
    """Return the conductor of runs that the settings mean, perhaps of one run only."""
    tasks = ProjectTasks(runs, lambda: open_studio(settings, patient=False))
    return Conductor(runs, open_lane(settings, environment), tasks, only, settings.people_url)


def is_conducted(settings: Settings) -> bool:
    """Return whether a service, such as `heatbox up`, conducts the runs of this ledger now."""
    ledger = Ledger(settings.ledger_url)
    with LedgerLock(ledger, settings.home, of_services=True) as lock:
        taken = lock.take()
    ledger.close()
    return not taken


def conduct(conductor: Conductor, lock: LedgerLock, is_over: Callable[[], bool]) -> None:
    """Move runs on until it is over; wait where somebody else conducts, and where something does not answer."""
    while not is_over():
        try:
            if not lock.take():
                time.sleep(_OTHER_SECONDS)
                continue
            conductor.lane.wait(_BUSY_SECONDS if conductor.step() else _IDLE_SECONDS)
        except LedgerError as error:
            log.error("%s", error)  # noqa: TRY400 - the sentence says it all
            time.sleep(_TROUBLE_SECONDS)


class ConductorThread(Background):
    """The conductor of a web service."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        super().__init__("conductor")
        self._settings = settings
        self._ledger = ledger

    def run(self) -> None:
        """Move runs on until the service stops."""
        settings = self._settings
        conductor = make_conductor(settings, Runs(self._ledger), os.environ)
        services = LedgerLock(self._ledger, settings.home, of_services=True)

        def is_over() -> bool:
            services.take()  # as a sign for commands that somebody conducts for good
            return self.stopping.is_set()

        with LedgerLock(self._ledger, settings.home) as lock, services:
            while not self.stopping.is_set():
                try:
                    conduct(conductor, lock, is_over)
                except HeatboxError as error:
                    log.error("%s", error)  # noqa: TRY400 - the sentence says it all
                except Exception:  # an edge: a defect must not end all runs until the next start
                    log.exception("the conductor met a defect and goes on")
                self.stopping.wait(_TROUBLE_SECONDS)
        conductor.close()
