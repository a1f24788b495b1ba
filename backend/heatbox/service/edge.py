"""The outermost part of the application, as ASGI middleware: headers of every answer, and what a defect becomes.

A defect is answered with a code, and the log names its place. Its text is left out of both: it may quote a task, a
label config or a token. With `HEATBOX_LOG_LEVEL=debug` the log has the whole traceback.
"""

import logging
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heatbox.errors import InternalError
from heatbox.logs import place_of
from heatbox.service.auth import shown_path

__all__ = ["Edge"]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # a page has its own
)

log = logging.getLogger(__name__)


class Edge:
    """Adds the headers, and turns a defect into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Content-Security-Policy", POLICY)
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            log.error("%s failed: %s", shown_path(scope), place_of(error))  # noqa: TRY400 - see above
            log.debug("in full:", exc_info=error)
            defect = InternalError("The request failed.", "The log of `heatbox serve` says where.")
            if started:  # the connection is cut, so that half an answer is not taken for a whole one
                raise defect from None
            answer = JSONResponse(defect.as_dict(), HTTPStatus.INTERNAL_SERVER_ERROR)
            await answer(scope, receive, with_headers)
