"""`/v1/tasks/{number}/evidence`: the page that a region's `meta` links to, with what its boxes came from.

The task and its project are asked of Label Studio, in threads of their own: one that hangs must not take those of
/setup and /predict. A worker annotates the picture again and draws it: nothing is kept, so the page shows what the
project's present version finds, under that version's name.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from heatbox.errors import DeadlineError, StudioRefusedError, TasksFileError
from heatbox.labelling.tasks import wanted_pictures
from heatbox.runs.conducting import open_studio
from heatbox.service.pictures import pictures_by
from heatbox.service.predict import Studio
from heatbox.service.protocol import ErrorAnswer
from heatbox.serving import Serving
from heatbox.settings import Settings
from heatbox.studio.client import Studio as Client

__all__ = ["Asking", "router"]

router = APIRouter()

_MOST = 2**31  # what Label Studio's numbers hold

_THREADS = 2
_PAGES = 8  # that may ask Label Studio, or wait for a thread that does
_CLIENT_SECONDS = 5.0  # for one answer of Label Studio
_ASKING_SECONDS = 15.0  # for all of them

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page's own policy allows its script and pictures alone
}


class Asking:
    """The threads that ask Label Studio, and how many pages want them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="evidence")
        self._free = threading.BoundedSemaphore(_PAGES)

    async def ask(self, studio: Studio, project: int, number: int, item: int) -> tuple[Serving, str]:
        """Return what the project of a task is annotated with, and the picture that is wanted.

        Raises:
            DeadlineError: too many pages ask already, or Label Studio takes too long.
        """
        if not self._free.acquire(blocking=False):
            raise DeadlineError("Too many pages wait for Label Studio.", "Try again in some seconds.")
        future = self._threads.submit(_ask, studio, project, number, item)
        future.add_done_callback(
            lambda _: self._free.release()
        )  # when the thread is done, not when we give up
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), _ASKING_SECONDS)
        except TimeoutError:
            raise DeadlineError(
                f"Label Studio took longer than {_ASKING_SECONDS:.0f} s.", "Is it well? Try again."
            ) from None

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@router.get(
    "/v1/tasks/{number}/evidence",
    response_class=HTMLResponse,
    responses={
        404: {"model": ErrorAnswer, "description": "Label Studio has no such task."},
        422: {"model": ErrorAnswer, "description": "The picture cannot be annotated."},
        503: {"model": ErrorAnswer, "description": "Label Studio or the workers do not answer."},
    },
)
async def evidence(
    request: Request,
    number: Annotated[int, Path(gt=0, lt=_MOST)],
    project: Annotated[int, Query(gt=0, lt=_MOST, description="That the task belongs to.")],
    item: Annotated[int, Query(ge=0, lt=_MOST, description="Which picture of the task.")] = 0,
) -> Response:
    """Show a task's picture with heatmap, mask, contour and boxes, and which version found them."""
    studio: Studio = request.app.state.studio
    asking: Asking = request.app.state.asking
    try:
        serving, text = await asking.ask(studio, project, number, item)
    except StudioRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return JSONResponse(error.as_dict(), HTTPStatus.NOT_FOUND)
    deadline = time.monotonic() + studio.settings.predict_deadline
    found = await pictures_by(deadline, studio.queue, serving.pipeline, [text])
    if text not in found:
        raise DeadlineError("The picture was not ready in time.", "Try again; are workers running?")
    if "error" in found[text]:
        return JSONResponse(found[text]["error"], HTTPStatus.UNPROCESSABLE_ENTITY)
    return HTMLResponse(found[text]["page"], headers=_HEADERS)


def _ask(studio: Studio, project: int, number: int, item: int) -> tuple[Serving, str]:
    with _client(studio.settings) as client:
        config = client.project(project).label_config
        task = client.task(project, number)
    serving = studio.serving(config, project)
    wanted = wanted_pictures(task.as_dict(), serving.config, serving.labels)
    if item >= len(wanted):
        raise TasksFileError(
            f"Task {number} has {len(wanted)} pictures, none of them number {item}.", "They count from 0."
        )
    return serving, replace(wanted[item], evidence=True).text


def _client(settings: Settings) -> Client:
    """Return a client of Label Studio that waits for as long as a person before a page does."""
    key = settings.studio_api_key.get_secret_value()
    if not settings.studio_url or not key:
        return open_studio(settings)  # it says what is missing
    return Client(settings.studio_url, key, timeout=_CLIENT_SECONDS, delays=(), ca_file=settings.ca_file)
