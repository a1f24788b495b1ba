"""Any address that a task may hold becomes a local file: invariant 8 of the design.

Local files are read where they are, within the allowed folders. Everything else is fetched, by way of Label Studio
where the picture is an upload of it or in one of its storages, and kept in the cache. One deadline covers all of it.
The token goes along only while every address so far was one of Label Studio's own pictures.

Settings that cannot be used cost only the pictures that need them; `check_access` tells of them at the start.
"""

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import httpx

from heatbox.errors import PictureCacheError, PictureFetchError, PictureUnreadableError, SettingsError
from heatbox.pictures import addresses, answers
from heatbox.pictures.cache import CachedPicture, PictureCache, is_full
from heatbox.pictures.deadline import Deadline
from heatbox.pictures.guard import Guard, Resolve, resolve_by_dns
from heatbox.pictures.network import Answer, PictureClient
from heatbox.pictures.places import Place, StudioRoot, find_place, is_of_studio, next_url
from heatbox.settings import Settings
from heatbox.studio.http import StudioHTTP, make_ssl_context

__all__ = ["Fetcher", "check_access"]

_INLINE = re.compile(r"data:image/[\w.+-]+(;[\w=.+-]+)*;base64,", re.IGNORECASE)
_MOST_REDIRECTS = 5
_TOKEN_SECONDS = 15.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_Made = TypeVar("_Made")
_OK, _NOT_MODIFIED, _UNAUTHORIZED = 200, 304, 401


class Fetcher:
    """Fetches pictures; threads may share it; to be closed.

    Args:
        settings: name the allowed folders and hosts, Label Studio, the limits and the home of the cache.
        resolve: looks names of hosts up.
    """

    def __init__(self, settings: Settings, *, resolve: Resolve = resolve_by_dns) -> None:
        self._settings = settings
        studio = _tried(lambda: _open_studio(settings))
        self._wrong_studio = studio if isinstance(studio, SettingsError) else None
        self._studio = None if isinstance(studio, SettingsError) else studio
        self._root = StudioRoot(httpx.URL(self._studio.url)) if self._studio else None
        guard = Guard((*settings.private_hosts, *([self._root.host] if self._root else [])), resolve)
        self._client = _tried(lambda: PictureClient(guard, make_ssl_context(settings.ca_file)))
        self._cache = PictureCache(settings.home / "picture-cache", settings.cache_bytes)

    def close(self) -> None:
        """Close the connections."""
        if isinstance(self._client, PictureClient):
            self._client.close()
        if self._studio:
            self._studio.close()

    def fetch(self, address: str, task: int | None = None) -> Path:
        """Return a local file with the picture of an address; a fetched one is there for ten minutes at least.

        Args:
            address: as a task has it.
            task: number of the task in Label Studio, which cloud addresses need.

        Raises:
            PictureError: it is not allowed, not there, too large, too slow, or no picture.
            HeatboxError: Label Studio gives no access for the token, or a setting that it needs cannot be used.
        """
        address = address.strip()
        deadline = Deadline(self._settings.fetch_seconds)
        if _INLINE.match(address):
            return self._with_room(lambda: self._inline(address, deadline))
        local = None if addresses.is_remote(address) else self._local(address)
        if local is not None:
            return local
        if self._wrong_studio and (addresses.is_cloud(address) or is_of_studio(address, None)):
            raise copy(self._wrong_studio)  # each picture's has a traceback of its own
        place = find_place(address, task, self._root)
        return self._with_room(lambda: self._kept(place, deadline))

    def _with_room(self, fetch: Callable[[], Path]) -> Path:
        """Fetch, once more where the disk was full and others' pictures made room."""
        try:
            return fetch()
        except PictureCacheError as error:
            if not is_full(error) or not self._cache.make_room():
                raise
        return fetch()

    def _local(self, address: str) -> Path | None:
        """Return the file that a local address names, None where Label Studio is to be asked for it."""
        path = addresses.find(address, self._settings.local_roots)
        if path is None and not self._may_ask_studio(address):
            return addresses.resolve(address, self._settings.local_roots)  # says why not
        return path

    def _may_ask_studio(self, address: str) -> bool:
        if self._wrong_studio:  # which says why it is not asked
            return is_of_studio(address, None)
        if self._root is None:  # an upload needs Label Studio, a local file needs only its folder
            return is_of_studio(address, None) and not addresses.is_local_files(address)
        if address.startswith("/"):
            return is_of_studio(address, self._root)
        is_url = addresses.is_local_files(address)
        return is_url and self._root.has_pictures_at(find_place(address, None, self._root).url)

    def _inline(self, address: str, deadline: Deadline) -> Path:
        """Decode a picture that stands in its address."""
        encoded = address.partition(",")[2]
        answers.check_length(len(encoded) * 3 // 4 - 2, self._settings.max_bytes)
        try:
            content = base64.b64decode(b"".join(unquote_to_bytes(encoded).split()), validate=True)
        except ValueError as error:
            raise PictureUnreadableError(
                "The picture in the task's data is not base64.", "Import the task again."
            ) from error
        with self._cache.picture(address, "picture", deadline) as kept:
            if not kept.is_there:
                self._cache.stored(kept.replace([content], {}, address))
            return kept.used()

    def _kept(self, place: Place, deadline: Deadline) -> Path:
        """Return the picture from the cache, which is brought up to date first."""
        with self._cache.picture(place.key, place.name, deadline) as kept:
            if not kept.is_fresh(place.asked):
                self._refresh(kept, place, deadline)
            return kept.used()

    def _refresh(self, kept: CachedPicture, place: Place, deadline: Deadline) -> None:
        condition = kept.condition()
        with self._answered(place.url, condition, deadline) as (answer, url, with_token):
            if answer.status == _NOT_MODIFIED and condition:
                kept.confirm(place.asked)
                return
            if answer.status != _OK:
                raise answers.refusal(answer.status, url.host, with_token=with_token)
            content = answers.content(answer, url.host, self._settings.max_bytes)
            size = kept.replace(content, answers.validators(answer), place.asked)
        self._cache.stored(size)

    @contextmanager
    def _answered(
        self, url: httpx.URL, headers: dict[str, str], deadline: Deadline
    ) -> Iterator[tuple[Answer, httpx.URL, bool]]:
        """Give the answer after all redirects, who gave it, and whether the token went along."""
        is_own, may_renew = True, True
        redirects = 0
        while redirects <= _MOST_REDIRECTS:
            token = self._token_for(url, deadline) if is_own else {}
            is_own = bool(token)
            with self._reached().get(url, {**headers, **token}, deadline) as answer:
                if answer.status == _UNAUTHORIZED and may_renew and self._can_replace(token):
                    may_renew = False
                    continue
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None:
                    yield answer, url, is_own
                    return
            url = next_url(url, location)
            redirects += 1
        raise PictureFetchError(
            f"The host {url.host[:100]!r} redirects more than {_MOST_REDIRECTS} times.",
            "Check the address in the task.",
        )

    def _reached(self) -> PictureClient:
        if isinstance(self._client, SettingsError):
            raise copy(self._client)
        return self._client

    def _token_for(self, url: httpx.URL, deadline: Deadline) -> dict[str, str]:
        if self._studio is None or self._root is None or not self._root.has_pictures_at(url):
            return {}
        try:
            return self._studio.token.header(deadline.left())
        except TimeoutError as error:
            raise deadline.missed() from error

    def _can_replace(self, token: dict[str, str]) -> bool:
        return bool(token) and self._studio is not None and self._studio.token.can_replace(token)


def check_access(settings: Settings) -> None:
    """Raise where the settings have what no picture can be fetched with.

    Raises:
        SettingsError: Label Studio's address or token, or the CA certificates cannot be used.
    """
    make_ssl_context(settings.ca_file)
    studio = _open_studio(settings)
    if studio is not None:
        studio.close()


def _tried(make: Callable[[], _Made]) -> _Made | SettingsError:
    """Return what is made, or what is wrong with the settings."""
    try:
        return make()
    except SettingsError as error:
        return error


def _open_studio(settings: Settings) -> StudioHTTP | None:
    """Return Label Studio, which is asked for access tokens here; None where it or the token is not named."""
    key = settings.studio_api_key.get_secret_value()
    if not settings.studio_url or not key:
        return None
    return StudioHTTP(
        settings.studio_url, key, min(settings.fetch_seconds, _TOKEN_SECONDS), (), settings.ca_file
    )
