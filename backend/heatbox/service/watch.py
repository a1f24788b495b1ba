"""Looking at runs from many browsers at once: the ledger is read in a thread, and once however many ask."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from heatbox.errors import LedgerError
from heatbox.runs.records import Runs
from heatbox.runs.view import RunView, RunViews, look

__all__ = ["LISTED", "Watch", "watch"]

log = logging.getLogger(__name__)

LISTED = 50  # runs that a list shows

_FRESH_SECONDS = 0.5
_LOOK_SECONDS = 1.0

T = TypeVar("T")


class Watch:
    """What was read half a second ago is not read again."""

    def __init__(self, runs: Runs) -> None:
        self.views = RunViews(runs)
        self._read: dict[Hashable, asyncio.Task[Any]] = {}
        self._ending = asyncio.Event()

    def end_streams(self) -> None:
        """Let all `changes` end: the server is told to stop, and waits for them."""
        self._ending.set()

    async def run(self, number: int) -> RunView:
        """Return the view of a run.

        Raises:
            RunNotFoundError: there is none of this number.
            LedgerError: the ledger cannot be read.
        """
        return await self.fresh(("run", number), lambda: look(self.views.runs, number))

    async def newest(self) -> list[RunView]:
        """Return the views of the newest runs.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return await self.fresh("newest", lambda: self.views.newest(LISTED))

    async def changes(self, read: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
        """Yield what `read` says now, and again whenever it says something else, until the server stops.

        A ledger that does not answer for a moment says nothing else.
        """
        before: T | None = None
        while not self._ending.is_set():
            try:
                now = await read()
            except LedgerError as error:
                log.warning("%s", error)
            else:
                if now != before:
                    yield now
                before = now
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _LOOK_SECONDS)

    async def fresh(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what `read` says in a thread; whoever asks for the same key meanwhile, or soon, gets the same."""
        task = self._read.get(key)
        if task is None:
            task = self._read[key] = asyncio.create_task(asyncio.to_thread(read))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: Hashable, done: asyncio.Task[Any]) -> None:
        failed = done.cancelled() or done.exception() is not None
        asyncio.get_running_loop().call_later(0 if failed else _FRESH_SECONDS, self._read.pop, key, None)


def watch(request: Request) -> Watch:
    """Return the application's watch."""
    found: Watch = request.app.state.watch
    return found
