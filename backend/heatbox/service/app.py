"""The ASGI application: its parts, its life and how errors leave it.

Every answer that is not a success is {"code", "message", "remedy"}: Label Studio shows it to people. No
traceback, path or token is in it.
"""

import asyncio
import importlib.metadata
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from heatbox.errors import HeatboxError, RequestError, RunNotFoundError, ServiceError
from heatbox.ledger import Ledger
from heatbox.queueing.requests import RequestQueue
from heatbox.remote_store import open_store
from heatbox.runs.conducting import ConductorThread
from heatbox.runs.records import Runs
from heatbox.service import evidence, metrics, run_pages, runs
from heatbox.service.auth import Authentication, shown_path
from heatbox.service.body_limit import BodyError, BodyLimit, answer_body_error
from heatbox.service.corrections import Pulls
from heatbox.service.description import ERRORS, complete_description
from heatbox.service.edge import Edge
from heatbox.service.hosts import HostCheck
from heatbox.service.predict import Studio
from heatbox.service.routes import router
from heatbox.service.watch import Watch
from heatbox.settings import Settings
from heatbox.trainings.moving import TrainerThread

__all__ = ["create_app"]

log = logging.getLogger(__name__)

_VERSIONS = 100  # remembered for /versions


def create_app(settings: Settings) -> FastAPI:
    """Return the web service.

    Raises:
        LedgerError: the ledger cannot be opened.
        RedisUnavailableError: no Redis is named; whether it answers is seen when it is needed.
    """
    queue = RequestQueue(settings.redis_url)
    asking = evidence.Asking()
    studio = Studio(settings, open_store(settings), Ledger(settings.ledger_url), queue)
    pulls = Pulls(settings, studio.ledger)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(_read_once, studio)
        conductor = ConductorThread(settings, studio.ledger)
        conductor.start()
        pulls.start()
        trainer = TrainerThread(settings, studio.ledger)
        trainer.start()
        yield
        await asyncio.to_thread(trainer.stop)
        await asyncio.to_thread(conductor.stop)
        await asyncio.to_thread(pulls.stop)
        asking.close()
        await queue.aclose()
        studio.ledger.close()

    app = FastAPI(
        title="heatbox",
        summary="Boxes for Label Studio that nobody drew.",
        version=importlib.metadata.version("heatbox"),
        lifespan=lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # these pages load scripts from other hosts; /openapi.json says the same
        redoc_url=None,
        responses=ERRORS,
        redirect_slashes=False,  # a redirect would go to whatever host the request names
    )
    app.state.studio = studio
    app.state.asking = asking
    app.state.pulls = pulls
    app.state.versions = deque[str](maxlen=_VERSIONS)
    app.state.watch = Watch(Runs(studio.ledger))
    for some in (router, evidence.router, runs.router, run_pages.router, metrics.router):
        app.include_router(some)
    complete_description(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(Authentication, settings=settings)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(Edge)  # the last one is the outermost
    app.add_exception_handler(HeatboxError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    app.add_exception_handler(BodyError, answer_body_error)
    app.add_exception_handler(HTTPException, _answer_http)
    return app


def _read_once(studio: Studio) -> None:
    """Read what the first /setup would: the plugins' names, the model's card, the ledger."""
    with suppress(HeatboxError):  # /setup will say it
        studio.serving(None)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HeatboxError):
        raise error
    log.warning("%s: %s", shown_path(request.scope), error)
    return JSONResponse(error.as_dict(), _status(error))


def _status(error: HeatboxError) -> HTTPStatus:
    if isinstance(error, RunNotFoundError):
        return HTTPStatus.NOT_FOUND
    unavailable = isinstance(error, ServiceError)
    return HTTPStatus.SERVICE_UNAVAILABLE if unavailable else HTTPStatus.UNPROCESSABLE_ENTITY


async def _answer_malformed(_request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": ""}
    where = ".".join(str(part) for part in first["loc"])
    told = RequestError(
        f"{where}: {first['msg']}.", "Send JSON as Label Studio does, with Content-Type: application/json."
    )
    return JSONResponse(told.as_dict(), HTTPStatus.BAD_REQUEST)


async def _answer_http(_request: Request, error: Exception) -> JSONResponse:
    status = (
        HTTPStatus(error.status_code)
        if isinstance(error, HTTPException)
        else HTTPStatus.INTERNAL_SERVER_ERROR
    )
    told = RequestError(f"{status.phrase}.", "The routes are listed in /openapi.json.")
    return JSONResponse(told.as_dict(), status)
