"""What the queues look like from outside: how much waits, for how long, who listens, which processes died."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.utils import now

from heatbox.queueing.queues import BATCH, CHILD_DEATHS, INTERACTIVE, TRAIN, connect, open_queue, translated

__all__ = ["QueueState", "queue_state"]

_QUEUES = (INTERACTIVE, BATCH, TRAIN)
_NUMBER = re.compile(r"-?[0-9]{1,12}\Z")
_SECONDS = 0.5  # for one try at a command; whoever asks waits for the answer


@dataclass(frozen=True)
class QueueState:
    """The queues at one moment.

    Attributes:
        jobs: waiting in each queue.
        oldest_seconds: since the next job of each queue was put on it; 0: none waits.
        workers: that listen on any of them; one that was killed counts until its key has expired.
        child_deaths: how many job processes ended with each exit code.
    """

    jobs: Mapping[str, int]
    oldest_seconds: Mapping[str, float]
    workers: int
    child_deaths: Mapping[int, int]


def queue_state(url: str) -> QueueState:
    """Return the state of the queues of a Redis.

    Raises:
        RedisUnavailableError: it does not answer.
    """
    with connect(url, _SECONDS) as connection, translated():
        return QueueState(
            {name: open_queue(connection, name).count for name in _QUEUES},
            {name: _oldest_seconds(connection, name) for name in _QUEUES},
            len(_workers(connection)),
            _child_deaths(connection),
        )


def _oldest_seconds(connection: Redis, name: str) -> float:
    queue = open_queue(connection, name)
    for job_id in queue.get_job_ids(0, 1):
        job = queue.fetch_job(job_id)
        since = job and (job.enqueued_at or job.created_at)
        if since:
            return max(0.0, (now() - since).total_seconds())
    return 0.0


def _workers(connection: Redis) -> set[str]:
    """Return the names of the workers that listen; the registry also has those that are gone (`count`)."""
    return {
        worker.name
        for name in _QUEUES
        for worker in SimpleWorker.all(queue=open_queue(connection, name), serializer=JSONSerializer)
    }


def _child_deaths(connection: Redis) -> dict[int, int]:
    """Return the deaths by exit code; whoever can write to Redis could write anything there."""
    found = [(_text(code), _text(count)) for code, count in connection.hgetall(CHILD_DEATHS).items()]
    return {int(code): int(count) for code, count in found if _NUMBER.match(code) and _NUMBER.match(count)}


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
