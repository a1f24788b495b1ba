"""HTTP to one Label Studio: its token, what is tried again, and which answer is which error.

A personal access token (a JWT) is exchanged for an access token of five minutes; a legacy token is sent as it is.
Redirects are not followed, so the token goes to no other address. Reading is tried again; writing never is, since
an answer that got lost does not say whether Label Studio stored something.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from heatbox.errors import SettingsError, StudioAmbiguousError, StudioError, StudioRefusedError

__all__ = ["StudioHTTP"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_ACCESS_SECONDS = 240.0  # Label Studio's access tokens live for 300
_SHOWN = 300  # characters of Label Studio's reason
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_TRANSIENT = frozenset({408, 429})
_AGAIN = "Is Label Studio running and well? Try again."
_REMEDIES = {
    400: "Correct what it names.",
    401: "Set HEATBOX_STUDIO_API_KEY to a personal access token that is still valid; an organization may have"
    " switched legacy tokens off.",
    403: "Take the token of a user who may see and change the project.",
    404: "Check the numbers of project and view, HEATBOX_STUDIO_URL, and that the token's user may see them.",
    413: "Send less at once, or raise the limit of the proxy before Label Studio.",
}


class StudioHTTP:
    """Requests to one Label Studio; to be closed.

    Args:
        url: address of Label Studio, with the path below which it is installed.
        api_key: personal access token or legacy token.
        timeout: seconds that an answer may take.
        delays: seconds before the second, third, ... try of a reading request.

    Raises:
        SettingsError: the address or the token cannot be one.
    """

    def __init__(self, url: str, api_key: str, timeout: float, delays: Sequence[float]) -> None:
        self.url = _checked_url(url)
        self._key = _checked_key(api_key)
        self._delays = tuple(delays)
        self._access = ""
        self._access_until = 0.0
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            follow_redirects=False,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, params: Mapping[str, str | int]) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that is read.

        Raises:
            StudioError: no good answer came, also not after the last try.
            StudioRefusedError: Label Studio refuses.
        """
        return self._repeated(lambda: self._send("GET", path, params=dict(params)))

    def post(self, path: str, content: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to JSON that is written, once.

        Raises:
            StudioAmbiguousError: no good answer came, and the content may have been stored.
            StudioError: it was certainly not stored, and may be when it is tried again.
            StudioRefusedError: Label Studio refuses.
        """
        return self._answer(lambda: self._send("POST", path, json=content), lost=StudioAmbiguousError)

    def delete(self, path: str) -> None:
        """Delete what has this path; what is gone already is fine. Raises as `get`."""
        self._repeated(lambda: self._send("DELETE", path), gone_is_fine=True)

    def not_understood(self, path: str, kind: type[StudioError] = StudioError) -> StudioError:
        """Return the error for an answer that is JSON, but not what Label Studio would say."""
        return kind(f"What answers at {self.url}{path} does not speak as Label Studio.", _AGAIN)

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        response = self._client.request(method, path, headers=self._headers(), **content)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._access:
            self._access = ""
            response = self._client.request(method, path, headers=self._headers(), **content)
        return response

    def _headers(self) -> dict[str, str]:
        if self._key.count(".") != 2:  # noqa: PLR2004 - a JWT has three parts
            return {"Authorization": f"Token {self._key}"}
        if not self._access or time.monotonic() >= self._access_until:
            self._access = self._new_access()
            self._access_until = time.monotonic() + _ACCESS_SECONDS
        return {"Authorization": f"Bearer {self._access}"}

    def _new_access(self) -> str:
        """Exchange the personal access token; a request whose token cannot be had was certainly not sent."""
        answer = self._answer(lambda: self._client.post("/api/token/refresh/", json={"refresh": self._key}))
        match answer:
            case {"access": str(access)} if access.isascii() and access.isprintable():
                return access
        raise StudioError(f"Label Studio at {self.url} answered no access token.", _AGAIN)

    def _repeated(self, send: Callable[[], httpx.Response], *, gone_is_fine: bool = False) -> Any:  # noqa: ANN401 - JSON
        for delay in self._delays:
            try:
                return self._answer(send, gone_is_fine=gone_is_fine)
            except StudioError as error:
                log.info("%s Next try in %.1f s.", error.sentence, delay)
                time.sleep(delay)
        return self._answer(send, gone_is_fine=gone_is_fine)

    def _answer(
        self,
        send: Callable[[], httpx.Response],
        lost: type[StudioError] = StudioError,
        *,
        gone_is_fine: bool = False,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return what one request answers, as JSON; `lost` is raised where it was sent and the answer is none."""
        try:
            response = send()
        except httpx.RequestError as error:
            kind = StudioError if isinstance(error, _NOT_SENT) else lost
            reason = str(error).rstrip(".") or type(error).__name__
            sentence = self._clean(f"Label Studio at {self.url} gave no answer: {reason}.")
            raise kind(sentence, _AGAIN) from error
        if response.status_code == httpx.codes.NOT_FOUND and gone_is_fine:
            return None
        if not response.is_success:
            raise self._refusal(response, lost)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise lost(f"{_told(response)} something that is not JSON.", _AGAIN) from error

    def _refusal(self, response: httpx.Response, lost: type[StudioError]) -> StudioError | StudioRefusedError:
        status = response.status_code
        sentence = self._clean(f"{_told(response)} HTTP {status}{_reason(response)}.")
        if response.is_redirect:
            return StudioRefusedError(sentence, "Set HEATBOX_STUDIO_URL to the address that it redirects to.")
        if response.is_server_error:
            return lost(sentence, _AGAIN)
        if status in _TRANSIENT:
            return StudioError(sentence, _AGAIN)
        refused = StudioRefusedError(sentence, _REMEDIES.get(status, "Read Label Studio's log."))
        refused.status = status
        return refused

    def _clean(self, text: str) -> str:
        for secret in filter(None, (self._key, self._access)):
            text = text.replace(secret, "***")
        return text


def _told(response: httpx.Response) -> str:
    request = response.request
    return f"{request.method} {request.url.copy_with(query=None)} answered"


def _reason(response: httpx.Response) -> str:
    """Return Label Studio's own reason, or where it redirects to; pages and unknown answers are not quoted."""
    if response.is_redirect:
        return f" to {response.headers.get('location', '').partition('?')[0][:_SHOWN]}"
    try:
        answer = response.json()
    except ValueError:
        return ""
    if not isinstance(answer, dict):
        return ""
    errors = answer.get("validation_errors")
    text = f"{answer.get('detail', '')} {json.dumps(errors, ensure_ascii=False) if errors else ''}".strip()
    return f": {text.rstrip('.')[:_SHOWN]}" if text else ""


def _checked_url(url: str) -> str:
    remedy = "Set HEATBOX_STUDIO_URL to Label Studio's address, as in https://studio.example."
    try:
        parts = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise SettingsError("The address of Label Studio is not one.", remedy) from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise SettingsError(
            "The address of Label Studio has no http:// or https:// with a host, or is not set.", remedy
        )
    if parts.userinfo or parts.query or parts.fragment:
        raise SettingsError("The address of Label Studio has a user, a query or a fragment in it.", remedy)
    return str(parts).rstrip("/")


def _checked_key(key: str) -> str:
    """Return the token; one that no header can hold is told without showing it."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            "The token for Label Studio is not set, or has characters that no token has.",
            "Set HEATBOX_STUDIO_API_KEY to a personal access token (Label Studio: Account & Settings).",
        )
    return key
