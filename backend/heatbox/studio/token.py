"""The Authorization header of one Label Studio user; several threads may share it.

A personal access token (a JWT) is exchanged for an access token of five minutes, which is renewed before it ends and
when it is refused. A legacy token is sent as it is. Who has a limited time waits no longer than that, and is told at
once what failed for another a moment ago: many pictures behind a Label Studio that is down wait for it once.
"""

import threading
import time
from collections.abc import Callable, Mapping
from copy import copy

from heatbox.errors import HeatboxError, SettingsError

__all__ = ["Token"]

_ACCESS_SECONDS = 240.0  # Label Studio's access tokens live for 300
_FAILED_SECONDS = 10.0


class Token:
    """A token for Label Studio.

    Args:
        key: personal access token or legacy token.
        exchange: returns a new access token for a personal one, in at most so many seconds where they are named.

    Raises:
        SettingsError: the key cannot be a token.
    """

    def __init__(self, key: str, exchange: Callable[[str, float | None], str]) -> None:
        self._key = _checked_key(key)
        self._exchange = exchange
        self._lock = threading.Lock()
        self._access = ""
        self._access_until = 0.0
        self._failure: HeatboxError | None = None
        self._failed_until = 0.0

    def header(self, seconds: float | None = None) -> dict[str, str]:
        """Return the header for one request; what `exchange` raises passes.

        Args:
            seconds: that there are for it; None: as many as it takes, and what failed a moment ago is tried again.

        Raises:
            TimeoutError: others were exchanging the token for all of this time.
        """
        if self._key.count(".") != 2:  # noqa: PLR2004 - a JWT has three parts
            return {"Authorization": f"Token {self._key}"}
        began = time.monotonic()
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError
        try:
            if not self._access or time.monotonic() >= self._access_until:
                self._renew(None if seconds is None else seconds - (time.monotonic() - began))
            return _bearer(self._access)
        finally:
            self._lock.release()

    def _renew(self, seconds: float | None) -> None:
        """Exchange the token, for somebody who holds the lock."""
        if seconds is not None and self._failure and time.monotonic() < self._failed_until:
            raise copy(self._failure)  # each thread has a traceback of its own
        try:
            self._access = self._exchange(self._key, seconds)
        except HeatboxError as error:
            self._failure, self._failed_until = error, time.monotonic() + _FAILED_SECONDS
            raise
        self._failure, self._access_until = None, time.monotonic() + _ACCESS_SECONDS

    def can_replace(self, refused: Mapping[str, str]) -> bool:
        """Return whether there is another header than this one, which Label Studio refused."""
        with self._lock:
            if refused == _bearer(self._access):
                self._access = ""
        return refused["Authorization"].startswith("Bearer ")

    def clean(self, text: str) -> str:
        """Return the text without the token."""
        for secret in filter(None, (self._key, self._access)):
            text = text.replace(secret, "***")
        return text


def _bearer(access: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access}"}


def _checked_key(key: str) -> str:
    """Return the token; one that no header can hold is told without showing it."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            "The token for Label Studio is not set, or has characters that no token has.",
            "Set HEATBOX_STUDIO_API_KEY to a personal access token (Label Studio: Account & Settings).",
        )
    return key
