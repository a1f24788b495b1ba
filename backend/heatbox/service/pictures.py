"""Pictures of one request: addresses -> jobs of a few pictures -> what became of each by a deadline.

Nothing here blocks the event loop and no thread waits for a job, so fifty requests may wait while /health
answers. A request has only so many jobs in the queue at once, so a large one leaves room for others. A job that
fails, or whose worker dies, is split: its pictures are tried once more, one by one, so a bad one costs only
itself. A Redis that was restarted is asked again, because it may have forgotten.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from heatbox.errors import InternalError, RedisUnavailableError
from heatbox.pipeline import Pipeline
from heatbox.queueing.job_process import Entry, JobResult
from heatbox.queueing.requests import Batch, Outcome, RequestQueue

__all__ = ["pictures_by"]

log = logging.getLogger(__name__)

_PICTURES_PER_JOB = 4  # few enough that several workers share one request

_JOBS_AT_ONCE = 32  # of one request

_JOBS_IN_QUEUE = 256  # of all requests; above it they wait here

_TRIES = 2  # together with others, then alone

_OUTAGE_SECONDS = 10.0  # for which a request that has begun waits for a restarted Redis

_GRACE_SECONDS = 1.0  # past the deadline, for a Redis that hangs

_FAILED: Entry = {"error": InternalError("The job failed.", "The log says why.").as_dict()}


async def pictures_by(
    deadline: float, queue: RequestQueue, pipeline: Pipeline, addresses: Sequence[str]
) -> dict[str, Entry]:
    """Return what became of each picture by the deadline (`time.monotonic`); a missing one is not ready."""
    batches = [Batch(tuple(some)) for some in _batched(addresses, _PICTURES_PER_JOB)]
    request = _Request(queue, pipeline, deque(batches))
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline - began + _GRACE_SECONDS):
            await request.collect(deadline)
            if request.jobs:
                await asyncio.to_thread(queue.withdraw, list(request.jobs))
    except TimeoutError:
        log.warning("Redis hangs: it did not answer by the deadline")
    except RedisUnavailableError as error:
        log.warning("%s", error)
    return request.entries


@dataclass
class _Request:
    """The jobs of one request: batches not yet submitted, jobs waited for, entries so far."""

    queue: RequestQueue
    pipeline: Pipeline
    waiting: deque[Batch]
    jobs: dict[str, Batch] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    patient_until: float = 0.0  # `time.monotonic`; an outage of Redis is sat out until then

    async def collect(self, deadline: float) -> None:
        """Fill the entries until the deadline; an outage of Redis after the first jobs is sat out."""
        while (self.waiting or self.jobs) and time.monotonic() < deadline:
            try:
                await self._step(deadline)
            except RedisUnavailableError:
                if time.monotonic() > min(self.patient_until, deadline):
                    raise
                self._ask_again()
                await asyncio.sleep(0.2)

    async def _step(self, deadline: float) -> None:
        free = min(_JOBS_AT_ONCE - len(self.jobs), len(self.waiting))
        if free and not self.jobs and await self.queue.length() >= _JOBS_IN_QUEUE:
            await asyncio.sleep(0.2)
            return
        batches = list(islice(self.waiting, free))
        self.jobs |= await self.queue.submit_all(self.pipeline, batches)
        self.patient_until = time.monotonic() + _OUTAGE_SECONDS
        for _ in batches:
            self.waiting.popleft()
        outcomes = await self.queue.wait(self.jobs, max(0.0, deadline - time.monotonic()))
        for job_id, outcome in outcomes.items():
            self._take(self.jobs.pop(job_id), outcome)
        if not outcomes:  # for seconds: has Redis forgotten them? Those that it has are only joined.
            self._ask_again()

    def _take(self, batch: Batch, outcome: Outcome) -> None:
        if outcome.result is None:
            log.warning("a job failed: %s", outcome.failure)
            self._strike(batch, batch.addresses, _FAILED)
        elif outcome.result.failure is not None:
            self.entries |= {address: {"error": outcome.result.failure} for address in batch.addresses}
        else:
            self._take_result(batch, outcome.result)

    def _take_result(self, batch: Batch, result: JobResult) -> None:
        pairs = list(zip(batch.addresses, result.entries, strict=True))
        self.entries |= {address: entry for address, entry in pairs if entry is not None}
        suspects = [batch.addresses[index] for index in result.suspects]
        self._strike(batch, suspects, {"error": result.reason or _FAILED["error"]})
        back = tuple(address for address, entry in pairs if entry is None and address not in suspects)
        if back:
            self.waiting.appendleft(Batch(back, batch.attempt + 1))

    def _strike(self, batch: Batch, suspects: Sequence[str], error: Entry) -> None:
        """Try each suspect once more, alone; the second time it has failed."""
        self.failures.update(suspects)
        again = [address for address in suspects if self.failures[address] < _TRIES]
        self.waiting.extendleft(Batch((address,), batch.attempt + 1) for address in again)
        self.entries |= {address: error for address in suspects if address not in again}

    def _ask_again(self) -> None:
        self.waiting.extendleft(self.jobs.values())
        self.jobs.clear()


def _batched(addresses: Sequence[str], size: int) -> list[list[str]]:
    remaining = iter(addresses)
    return list(iter(lambda: list(islice(remaining, size)), []))
