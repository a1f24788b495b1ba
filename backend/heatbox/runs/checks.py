"""The doctor's checks of what background runs stand on: the queues, the runs themselves, Label Studio."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from redis import Redis

from heatbox.ledger import Ledger
from heatbox.queueing.queues import BATCH, INTERACTIVE, TRAIN, alive_key, connect, open_queue, translated
from heatbox.queueing.state import QueueState, queue_state
from heatbox.runs.conducting import is_conducted, open_studio
from heatbox.runs.records import Runs
from heatbox.runs.tables import RunState
from heatbox.settings import Settings

__all__ = ["Check", "label_studio", "queues", "runs"]

_SECONDS = 3.0
_MOST_JOBS = 5000  # looked at
_OLD_SECONDS = 600.0


@dataclass(frozen=True)
class Check:
    """What one check found, in words, and what to do where it is not ok."""

    name: str
    state: Literal["ok", "warning", "error"]
    found: str
    remedy: str = ""


def queues(settings: Settings) -> Check:
    """Look for workers, for jobs that nobody takes, and for jobs on no list."""
    url = settings.redis_url or _private_url(settings.home)
    if not url:
        return Check("queues", "ok", "no Redis runs here now; `heatbox up` starts one")
    state = queue_state(url)
    with connect(url, _SECONDS) as connection, translated():
        lost = _lost_jobs(connection)
    found = f"{state.workers} workers listen; {_waiting(state)}"
    if not state.workers:
        return Check("queues", "warning", found, "Start `heatbox up`, or `heatbox work` on any machine.")
    if lost:
        remedy = "Runs ask for theirs again by themselves; a worker that was just killed explains it for ten seconds."
        return Check("queues", "warning", f"{found}; {lost} jobs are in nobody's hands", remedy)
    if max(state.oldest_seconds.values()) > _OLD_SECONDS:
        return Check("queues", "warning", found, "Start more workers: `heatbox work`.")
    return Check("queues", "ok", found)


def runs(settings: Settings) -> Check:
    """Look for runs that nobody moves on, and for what others wait for."""
    ledger = Ledger(settings.ledger_url)
    try:
        known = Runs(ledger)
        running, paused = known.with_state(RunState.RUNNING), known.with_state(RunState.PAUSED)
    finally:
        ledger.close()
    conducted = is_conducted(settings)
    found = (
        f"{len(running)} running, {len(paused)} paused; {'a' if conducted else 'no'} service conducts them"
    )
    notes = "; ".join(f"run {run.id}: {run.note}" for run in (*running, *paused) if run.note)
    if notes:
        return Check("runs", "warning", f"{found}; {notes}", "`heatbox runs ID` shows one of them.")
    if running and not conducted:
        first = running[0].id
        return Check("runs", "warning", found, f"Start `heatbox up`, or `heatbox resume {first}`.")
    return Check("runs", "ok", found)


def label_studio(settings: Settings) -> Check:
    """Ask Label Studio whether it knows us."""
    if not settings.studio_url:
        return Check("label studio", "ok", "none is named: LABEL_STUDIO_URL is for runs over projects")
    with open_studio(settings) as studio:
        return Check("label studio", "ok", f"{settings.studio_url} accepts the token of {studio.user()}")


def _private_url(home: Path) -> str:
    """Return the URL of the Redis that a running `heatbox up` has started, empty where there is none."""
    path = home / "redis" / "redis.sock"
    return f"unix://{quote(str(path.absolute()))}" if path.exists() else ""


def _waiting(state: QueueState) -> str:
    parts = [
        f"{name}: {count} jobs wait"
        + (f", the oldest for {state.oldest_seconds[name]:.0f} s" if count else "")
        for name, count in state.jobs.items()
    ]
    return "; ".join(parts)


def _lost_jobs(connection: Redis) -> int:
    """Return how many jobs count as queued and are on no list, or as started and show no life."""
    names = (INTERACTIVE, BATCH, TRAIN)
    lists = [open_queue(connection, name) for name in names]
    listed = {job for one in lists for job in (*one.job_ids, *one.intermediate_queue.get_job_ids())}
    lost = 0
    for index, key in enumerate(connection.scan_iter("rq:job:*", 500)):
        if index >= _MOST_JOBS:
            break
        job_id = key.decode().removeprefix("rq:job:")
        status = connection.hget(key, "status")
        lost += status == b"queued" and job_id not in listed
        lost += status == b"started" and not connection.exists(alive_key(job_id))
    return lost
