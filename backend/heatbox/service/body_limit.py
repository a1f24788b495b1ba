"""Limits on the body of a request, as ASGI middleware: its bytes, the seconds it may take, and the bytes of all.

JSON is parsed in one piece, and nothing else runs then. A request that says its length is refused before it is read,
another one when it has become too long. Protocol: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heatbox.errors import RequestError
from heatbox.service.auth import shown_path

__all__ = [
    "BODY_SECONDS",
    "MAX_BODIES_BYTES",
    "MAX_BODY_BYTES",
    "MAX_PARTS",
    "BodyError",
    "BodyLimit",
    "answer_body_error",
]

MAX_BODY_BYTES = 16 * 2**20  # half a second of parsing; /health has one second
MAX_PARTS = 10**6  # lists and objects in it; five million empty lists take three seconds
MAX_BODIES_BYTES = 8 * MAX_BODY_BYTES  # of all requests that are being answered; parsed they take much more
BODY_SECONDS = 30.0

log = logging.getLogger(__name__)


class BodyError(HTTPException):
    """The body breaks a limit; no other kind of exception leaves FastAPI's reading as it is."""

    def __init__(self, status: HTTPStatus, sentence: str, remedy: str) -> None:
        super().__init__(status)
        self.told = RequestError(sentence, remedy)


class BodyLimit:
    """Answers 413 to a request with too many bytes, 408 to one that takes too long, 503 to one too many."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bytes = 0  # of all that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
            refusal = await answer_body_error(Request(scope), _too_long())
            await refusal(scope, receive, send)
            return
        body = _Body(receive, self)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._bytes -= body.count

    def hold(self, count: int) -> None:
        """Count bytes of one more message.

        Raises:
            BodyError: they are too many.
        """
        self._bytes += count
        if self._bytes > MAX_BODIES_BYTES:
            raise BodyError(
                HTTPStatus.SERVICE_UNAVAILABLE, "Too many large requests at once.", "Try again in a minute."
            )


class _Body:
    """The body of one request."""

    def __init__(self, receive: Receive, limit: BodyLimit) -> None:
        self._receive = receive
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._complete = False
        self._parts = 0
        self.count = 0

    async def receive(self) -> Message:
        """Return the next message; after the last of the body it may take as long as it likes."""
        try:
            async with asyncio.timeout_at(None if self._complete else self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The request was not whole after {BODY_SECONDS:.0f} seconds.",
                "Check the network between the two, or select fewer tasks at a time.",
            ) from None
        self._complete = not message.get("more_body", False)
        self._take(message.get("body", b""))
        return message

    def _take(self, part: bytes) -> None:
        self.count += len(part)
        self._limit.hold(len(part))
        self._parts += part.count(b"[") + part.count(b"{")
        if self.count > MAX_BODY_BYTES or self._parts > MAX_PARTS:
            raise _too_long()


def _too_long() -> BodyError:
    return BodyError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request has more than {MAX_BODY_BYTES:,} bytes, or {MAX_PARTS:,} lists and objects.",
        "Select fewer tasks at a time.",
    )


async def answer_body_error(request: Request, error: Exception) -> JSONResponse:
    """Return the answer to a request whose body breaks a limit; the rest of it is not read."""
    if not isinstance(error, BodyError):
        raise error
    log.warning("%s: %s", shown_path(request.scope), error.told)
    return JSONResponse(error.told.as_dict(), error.status_code, headers={"Connection": "close"})
