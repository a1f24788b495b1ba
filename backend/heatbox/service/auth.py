"""Who may ask, as ASGI middleware: HTTP Basic for what Label Studio calls, a bearer token or the same for the rest.

Without a password and without a token everything is open. Protocol: https://www.rfc-editor.org/rfc/rfc7617 (Basic)
and https://www.rfc-editor.org/rfc/rfc6750 (Bearer). Every comparison takes the same time, right or wrong.
"""

import binascii
import hashlib
import hmac
import logging
from base64 import b64decode
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from heatbox.errors import AuthenticationError
from heatbox.settings import Settings

__all__ = ["LABEL_STUDIO_PATHS", "OPEN_PATHS", "Authentication", "shown_path"]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # container platforms ask them, and send no password
LABEL_STUDIO_PATHS = frozenset({"/", "/health", "/setup", "/predict", "/webhook", "/versions"})
CHALLENGES = {b"basic": 'Basic realm="heatbox", charset="UTF-8"', b"bearer": 'Bearer realm="heatbox"'}

log = logging.getLogger(__name__)

_Digests = Mapping[bytes, tuple[bytes, ...]]


class Authentication:
    """Answers 401 to a request without the credentials that the settings name."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._basic: _Digests = {b"basic": _basic(settings)} if settings.basic_auth_user else {}
        token = settings.api_token.get_secret_value()
        self._any = {**self._basic, **({b"bearer": (_digest(token.encode()),)} if token else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on where it may ask."""
        wanted = self._wanted(scope["path"]) if scope["type"] == "http" else {}
        if not wanted or _admitted(scope, wanted):
            await self._app(scope, receive, send)
            return
        await _refusal(scope, wanted)(scope, receive, send)

    def _wanted(self, path: str) -> _Digests:
        """Return what is accepted for a path by its scheme; empty: the path is open. An unknown one is not."""
        if path in OPEN_PATHS:
            return {}
        return self._basic if path in LABEL_STUDIO_PATHS else self._any


def shown_path(scope: Scope) -> str:
    """Return the path of a request as the log may have it: short, in one line."""
    return quote(scope["path"])[:200]


def _admitted(scope: Scope, wanted: _Digests) -> bool:
    """Return whether the one Authorization header has what is wanted; two of them are nobody's."""
    given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    scheme, _, credentials = (given[0] if len(given) == 1 else b"").strip().partition(b" ")
    accepted = wanted.get(scheme.lower(), ())
    digest = _digest(_decoded(credentials) if scheme.lower() == b"basic" else credentials.strip())
    matches = [hmac.compare_digest(digest, one) for one in accepted]  # all of them, whichever is right
    return any(matches)


def _refusal(scope: Scope, wanted: _Digests) -> JSONResponse:
    told = AuthenticationError(
        "This address wants the credentials of heatbox.",
        "In Label Studio write user and password into the form of the model; elsewhere send them, or the API token.",
    )
    log.warning("%s: %s", shown_path(scope), told.sentence)
    answer = JSONResponse(told.as_dict(), HTTPStatus.UNAUTHORIZED)
    for scheme in wanted:
        answer.headers.append("WWW-Authenticate", CHALLENGES[scheme])
    return answer


def _basic(settings: Settings) -> tuple[bytes, ...]:
    """Return the digests of user and password: as UTF-8, and as Latin-1 where it can, which Label Studio sends."""
    text = f"{settings.basic_auth_user}:{settings.basic_auth_password.get_secret_value()}"
    forms = {text.encode()} | ({text.encode("latin-1")} if max(text) <= "\xff" else set())
    return tuple(map(_digest, forms))


def _decoded(credentials: bytes) -> bytes:
    """Return what a client wrote in base64; nothing where it is not."""
    try:
        return b64decode(credentials.strip(), validate=True)
    except binascii.Error:
        return b""


def _digest(text: bytes) -> bytes:
    """Return a digest, so that not even the length shows in the time of a comparison."""
    return hashlib.sha256(text).digest()
