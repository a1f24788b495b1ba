"""Connections of the HTTP server: one that does not come to its request is closed, so that they never use up.

uvicorn waits for ever for the head of a request. A process may have about a thousand open files, and a service that
has none left answers nobody; the ledger and Redis need some as well.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_SECONDS", "MOST_CONNECTIONS", "Connection", "close_idle"]

HEAD_SECONDS = 10.0  # for the head of a request; uvicorn closes after 5 seconds of silence between two
MOST_CONNECTIONS = 400


class Connection(H11Protocol):
    """A connection that knows since when it waits for a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self.waiting_since = time.monotonic()

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is being answered: the head of a request, or the rest of a refused body, is still to come."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for a new connection: the one that waits longest goes."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, Connection) and one.is_waiting]
            min(waiting, key=lambda one: one.waiting_since).transport.abort()

    def on_response_complete(self) -> None:
        """Wait for the next request from now on."""
        self.waiting_since = time.monotonic()
        super().on_response_complete()


def close_idle(connections: Iterable[object]) -> None:
    """Close those that wait for a request for too long."""
    latest = time.monotonic() - HEAD_SECONDS
    for one in list(connections):
        if isinstance(one, Connection) and one.is_waiting and one.waiting_since < latest:
            one.transport.close()
