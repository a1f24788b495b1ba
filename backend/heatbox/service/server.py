"""The HTTP server: uvicorn, which on its way down first ends the streams that would hold it up."""

import socket
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from heatbox.service.connections import Connection, close_idle

if TYPE_CHECKING:
    from heatbox.service.watch import Watch

__all__ = ["Server"]

_STOP_SECONDS = 2  # for requests that are being answered
_TICKS = 10  # of a tenth of a second, between two looks at the connections


class Server(uvicorn.Server):
    """Serves the application of `create_app`."""

    def __init__(self, app: FastAPI) -> None:
        self._watch: Watch = app.state.watch
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """Close idle connections, besides what uvicorn does."""
        if counter % _TICKS == 0:
            close_idle(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        self._watch.end_streams()
        await super().shutdown(sockets)
