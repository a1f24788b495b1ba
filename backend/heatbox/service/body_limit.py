"""A limit on the bytes of a request, as ASGI middleware: JSON is parsed in one piece, and nothing else runs then.

A request that says its length is refused before it is read, another one when it has become too long.
Protocol: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heatbox.errors import RequestError

__all__ = ["MAX_BODY_BYTES", "BodyLimit", "TooLongError", "answer_too_long"]

MAX_BODY_BYTES = 16 * 2**20  # a quarter of a second of parsing; /health has one second

log = logging.getLogger(__name__)


class TooLongError(HTTPException):
    """The body has more bytes than the limit; no other kind of exception leaves FastAPI's reading as it is."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class BodyLimit:
    """Answers 413 to a request with more bytes than the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > MAX_BODY_BYTES:
                raise TooLongError
            return message

        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
            refusal = await answer_too_long(Request(scope), TooLongError())
            await refusal(scope, receive, send)
        else:
            await self._app(scope, counted, send)


async def answer_too_long(request: Request, _error: Exception) -> JSONResponse:
    """Return the answer to a request that is too long."""
    told = RequestError(
        f"The request has more than {MAX_BODY_BYTES:,} bytes.", "Select fewer tasks at a time."
    )
    log.warning("%s: %s", request.url.path, told)
    return JSONResponse(told.as_dict(), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, headers={"Connection": "close"})
