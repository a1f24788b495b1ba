"""Background runs over HTTP, to look at only: views as JSON, and as server-sent events while they change.

Protocol of the events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from heatbox.runs.view import FailedItem, RunView, failed_items
from heatbox.service.protocol import ErrorAnswer
from heatbox.service.watch import Watch, watch

__all__ = ["After", "FailedPage", "Number", "Watching", "failed_page", "found", "router"]

router = APIRouter(responses={404: {"model": ErrorAnswer, "description": "There is no such run."}})

Watching = Annotated[Watch, Depends(watch)]

_MOST = 2**31 - 1  # what the ledger's numbers hold
Number = Annotated[int, Path(ge=0, le=_MOST, description="Number of the run.")]


async def found(watch: Watching, number: Number) -> None:
    """Answer 404 before a stream begins."""
    await watch.run(number)


After = Annotated[int, Query(ge=0, le=_MOST, description="Number of the last item of the page before.")]


class FailedPage(BaseModel):
    """Some of a run's failed items."""

    failed: list[FailedItem] = Field(description="In the order in which they came.")
    next: int | None = Field(description="`after` of the next page; null: there is none.")


@router.get("/v1/runs")
async def runs(watch: Watching) -> dict[str, list[RunView]]:
    """Return the newest runs, the newest first, at most fifty."""
    return {"runs": await watch.newest()}


@router.get("/v1/runs/{number}")
async def run(watch: Watching, number: Number) -> RunView:
    """Return how far a run is."""
    return await watch.run(number)


@router.get("/v1/runs/{number}/failed")
async def failed(
    watch: Watching, number: Number, after: After = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> FailedPage:
    """Return a page of a run's failed items, with code and reason."""
    await watch.run(number)
    return await failed_page(watch, number, after, limit)


@router.get("/v1/runs/{number}/events", response_class=EventSourceResponse, dependencies=[Depends(found)])
async def events(watch: Watching, number: Number) -> AsyncIterator[ServerSentEvent]:
    """Send the run as an event `run` now and whenever it has changed, until it has ended."""
    async for view in watch.changes(lambda: watch.run(number)):
        yield ServerSentEvent(event="run", data=view)
        if not view.is_open:
            return


async def failed_page(watch: Watch, number: int, after: int, most: int) -> FailedPage:
    """Return a page of a run's failed items.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = await asyncio.to_thread(failed_items, watch.views.runs, number, most + 1, after)
    page = found[:most]
    return FailedPage(failed=page, next=page[-1].id if len(found) > most else None)
