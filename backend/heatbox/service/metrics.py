"""`/metrics` for Prometheus and `/readyz`: what the ledger and Redis say at the moment of the question.

No label holds free text: states, error codes, explainers, queues, exit codes only. Protocol:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from heatbox.errors import LedgerError, RedisUnavailableError, ServiceError
from heatbox.queueing.state import QueueState, queue_state
from heatbox.runs.tables import RunState
from heatbox.runs.view import RunView, RunViews
from heatbox.service.predict import Studio
from heatbox.service.watch import watch

__all__ = ["router"]

router = APIRouter()

_RUNS = 1000  # the newest; a counter over fewer would go down with each new run
_RECENT_SECONDS = 24 * 3600.0


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Return the measures of runs, queues and workers."""
    registry = CollectorRegistry()
    registry.register(_Measures(*await _parts(request)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/readyz", responses={503: {"description": "Something is missing."}})
async def ready(request: Request) -> JSONResponse:
    """Say whether work can be done: the ledger can be read, Redis answers, a worker listens."""
    views, queues = await _parts(request)
    workers = queues.workers if queues else 0
    parts = {"ledger": views is not None, "redis": queues is not None, "worker": workers > 0}
    missing = [name for name, there in parts.items() if not there]
    if not missing:
        return JSONResponse({"ready": True, "workers": workers})
    told = ServiceError(f"Missing: {', '.join(missing)}.", "The log and `heatbox doctor` say why.")
    answer = {"ready": False, "missing": missing, **told.as_dict()}
    return JSONResponse(answer, HTTPStatus.SERVICE_UNAVAILABLE)


async def _parts(request: Request) -> tuple[list[RunView] | None, QueueState | None]:
    """Read the ledger and Redis in threads; None: it does not answer."""
    watching, studio = watch(request), _studio(request)
    views, queues = await asyncio.gather(
        watching.fresh("metrics", lambda: _views(watching.views)),
        watching.fresh("queues", lambda: _queues(studio.settings.redis_url)),
    )
    return views, queues


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


def _views(views: RunViews) -> list[RunView] | None:
    try:
        return views.newest(_RUNS)
    except LedgerError:
        return None


def _queues(url: str) -> QueueState | None:
    try:
        return queue_state(url)
    except RedisUnavailableError:
        return None


@dataclass(frozen=True, eq=False)  # a registry keeps collectors by identity
class _Measures(Collector):
    """What was read, as Prometheus wants it; a part that does not answer is left out."""

    views: Sequence[RunView] | None
    queues: QueueState | None

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        up = GaugeMetricFamily("heatbox_up", "Whether the part answers.", labels=["part"])
        up.add_metric(["ledger"], self.views is not None)
        up.add_metric(["redis"], self.queues is not None)
        yield up
        if self.views is not None:
            yield from _of_runs(self.views)
        if self.queues is not None:
            yield from _of_queues(self.queues)


def _of_runs(views: Sequence[RunView]) -> Iterator[Metric]:
    since = time.time() - _RECENT_SECONDS
    recent = [one for one in views if one.ended_at is None or one.ended_at.timestamp() > since]
    states, codes = (
        Counter[str](dict.fromkeys(("waiting", "computed", "done", "failed", "kept"), 0)),
        Counter[str](),
    )
    for one in recent:
        states.update(
            waiting=one.left - one.computed,
            computed=one.computed,
            done=one.done,
            failed=one.failed,
            kept=one.kept,
        )
        codes.update(one.errors)
    runs = Counter[str](dict.fromkeys(RunState, 0))
    runs.update(one.state for one in views)
    running = [one for one in views if one.state is RunState.RUNNING]
    backlog = sum(one.left * (one.seconds_per_picture or 0.0) for one in running)
    told = "of runs that are open or ended within a day"
    yield _gauge("heatbox_items", f"Items {told}, by state.", "state", states.items())
    yield _gauge("heatbox_items_failed", f"Failed items {told}, by error code.", "code", codes.items())
    yield _gauge("heatbox_runs", "Runs by state.", "state", runs.items())
    yield GaugeMetricFamily(
        "heatbox_backlog_seconds", "Computing time of what is left in running runs, by one worker.", backlog
    )
    yield _picture_seconds(views)


def _picture_seconds(views: Sequence[RunView]) -> Metric:
    counts, seconds = defaultdict[str, int](int), defaultdict[str, float](float)
    for one in views:
        counts[one.explainer] += one.timed
        seconds[one.explainer] += one.timed * (one.seconds_per_picture or 0.0)
    family = SummaryMetricFamily(
        "heatbox_picture_seconds", "Computing time of a picture of a run.", labels=["explainer"]
    )
    for explainer, count in counts.items():  # rounded: a sum that is a hair lower would count as a restart
        family.add_metric([explainer], count, round(seconds[explainer], 3))
    return family


def _of_queues(queues: QueueState) -> Iterator[Metric]:
    yield _gauge("heatbox_queue_jobs", "Jobs that wait.", "queue", queues.jobs.items())
    yield _gauge(
        "heatbox_queue_oldest_seconds", "How long the next job waits.", "queue", queues.oldest_seconds.items()
    )
    yield GaugeMetricFamily("heatbox_workers", "Workers that listen.", queues.workers)
    deaths = CounterMetricFamily(
        "heatbox_child_deaths", "Job processes that died, by exit code.", labels=["exit_code"]
    )
    for code, count in queues.child_deaths.items():
        deaths.add_metric([str(code)], count)
    yield deaths


def _gauge(name: str, told: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for value, count in values:
        family.add_metric([value], count)
    return family
