"""Which `Host` a request may name, as ASGI middleware, where only this machine reaches the service without a password.

A web page of somebody else can let its own name point to 127.0.0.1 and then read what the service answers a browser on
this machine (DNS rebinding); the browser names that host. Such a page needs a name that can be registered. So
addresses pass, names without a dot, and those below `.localhost` and `.internal`, which are nobody's. Where others
reach the service too, it may have any name, and only a password keeps people out.
"""

import ipaddress
import logging
from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from heatbox.errors import RequestError
from heatbox.hosts import is_loopback
from heatbox.service.auth import OPEN_PATHS, shown_path
from heatbox.settings import Settings

__all__ = ["HostCheck"]

log = logging.getLogger(__name__)

_NOBODYS = (".localhost", ".internal")  # RFC 6761, and reserved by ICANN; as in host.docker.internal


class HostCheck:
    """Answers 421 to a request that names a host under which nobody is meant to reach the service."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._checks = is_loopback(settings.host) and not settings.basic_auth_user
        public = _name(settings.public_url.rpartition("://")[2].partition("/")[0])
        self._own = {settings.host.lower(), public} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on where it names a host of ours."""
        if scope["type"] == "http" and self._checks and not self._passes(scope):
            told = RequestError(
                "The service is not known by the host that the request names.",
                "Use http://127.0.0.1 with its port, or set HEATBOX_PUBLIC_URL to the address that people use.",
            )
            log.warning("%s: %s %s", shown_path(scope), told.sentence, told.remedy)
            await JSONResponse(told.as_dict(), HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        given = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
        return scope["path"] in OPEN_PATHS or all(self._is_ours(_name(one)) for one in given)

    def _is_ours(self, name: str) -> bool:
        return name in self._own or "." not in name or name.endswith(_NOBODYS) or _is_address(name)


def _name(host: str) -> str:
    """Return the name in `NAME:PORT`, also of an IPv6 address in brackets."""
    name = host.strip().lower().rpartition("@")[2]
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
