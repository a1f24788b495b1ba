"""The pages `/runs` and `/runs/{number}`: a look at background runs in the browser, kept up to date by events.

The server renders a card for each run and sends it again when it has changed; the script only puts it in its place.
Titles, names and reasons come from others: everything is escaped, and the policy allows our own script and style alone.
"""

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import jinja2
from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup

from heatbox.runs.view import RunView, duration, speed
from heatbox.service.runs import After, Number, Watching, failed_page, found
from heatbox.templating import make_templates

__all__ = ["router"]

router = APIRouter()

_FAILED_SHOWN = 100

Cards = dict[int, str]


@router.get("/runs", response_class=HTMLResponse)
async def runs_page(watch: Watching) -> HTMLResponse:
    """Show the newest runs."""
    views = await watch.newest()
    return _page("runs.html.j2", runs=views, events="/runs/events")


@router.get("/runs/events", response_class=EventSourceResponse, include_in_schema=False)
async def runs_events(watch: Watching) -> AsyncIterator[ServerSentEvent]:
    """Send the card of each run now, and again when it has changed."""
    shown: Cards = {}
    async for views in watch.changes(watch.newest):
        for event in _changed(shown, views[::-1]):
            yield event


@router.get("/runs/{number}", response_class=HTMLResponse)
async def run_page(watch: Watching, number: Number, after: After = 0) -> HTMLResponse:
    """Show a run with its failed items."""
    run = await watch.run(number)
    page = await failed_page(watch, run.id, after, _FAILED_SHOWN)
    events = f"/runs/{run.id}/events" if run.is_open else ""
    return _page("run.html.j2", run=run, page=page, after=after, events=events)


@router.get(
    "/runs/{number}/events",
    response_class=EventSourceResponse,
    include_in_schema=False,
    dependencies=[Depends(found)],
)
async def run_events(watch: Watching, number: Number) -> AsyncIterator[ServerSentEvent]:
    """Send the run's card now and when it has changed; `end` when the run has ended."""
    shown: Cards = {}
    async for view in watch.changes(lambda: watch.run(number)):
        for event in _changed(shown, [view]):
            yield event
        if not view.is_open:
            yield ServerSentEvent(event="end", raw_data="")
            return


def _changed(shown: Cards, views: Sequence[RunView]) -> list[ServerSentEvent]:
    """Return the cards that look otherwise than those shown, and note them as shown."""
    cards = {view.id: _templates().get_template("run_card.html.j2").render(run=view) for view in views}
    changed = {number: card for number, card in cards.items() if shown.get(number) != card}
    shown |= changed
    return [ServerSentEvent(event="card", raw_data=card) for card in changed.values()]


def _page(template: str, **values: Any) -> HTMLResponse:  # noqa: ANN401 - what the template names
    style, script = (_templates().get_template(name).render() for name in ("runs.css", "runs.js"))
    values |= {"style": Markup(style), "script": Markup(script)}  # noqa: S704 - our own files
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(_templates().get_template(template).render(values), headers=headers)


def _source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@cache
def _templates() -> jinja2.Environment:
    return make_templates(duration=duration, speed=speed, number=_number, moment=_moment)


def _number(value: float) -> str:
    return f"{value:,}"


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"
