"""HTTP to one Label Studio: its token, what is tried again, and which answer is which error.

Redirects are not followed, so the token goes to no other address. Reading is tried again; writing never is, since
an answer that got lost does not say whether Label Studio stored something.
"""

import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from heatbox.errors import SettingsError, StudioAmbiguousError, StudioError, StudioRefusedError
from heatbox.hosts import read_host
from heatbox.studio.token import Token

__all__ = ["StudioHTTP", "make_ssl_context"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_LEAST_SECONDS = 0.01
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
        ca_file: further CA certificates (PEM) to trust.

    Attributes:
        url: the address, without a slash at its end.
        token: of the user.

    Raises:
        SettingsError: the address, the token or the certificates cannot be used.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        timeout: float,
        delays: Sequence[float],
        ca_file: Path | None = None,
    ) -> None:
        self.url = _checked_url(url)
        self.token = Token(api_key, self._new_access)
        self._delays = tuple(delays)
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            follow_redirects=False,
            verify=make_ssl_context(ca_file),
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

    def patch(self, path: str, content: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to JSON that changes what has this path, once. Raises as `post`."""
        return self._answer(lambda: self._send("PATCH", path, json=content), lost=StudioAmbiguousError)

    def delete(self, path: str) -> None:
        """Delete what has this path; what is gone already is fine. Raises as `get`."""
        self._repeated(lambda: self._send("DELETE", path), gone_is_fine=True)

    def not_understood(self, path: str, kind: type[StudioError] = StudioError) -> StudioError:
        """Return the error for an answer that is JSON, but not what Label Studio would say."""
        return kind(f"What answers at {self.url}{path} does not speak as Label Studio.", _AGAIN)

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        header = self.token.header()
        response = self._client.request(method, path, headers=header, **content)
        if response.status_code == httpx.codes.UNAUTHORIZED and self.token.can_replace(header):
            response = self._client.request(method, path, headers=self.token.header(), **content)
        return response

    def _new_access(self, key: str, seconds: float | None) -> str:
        """Exchange the personal access token; a request whose token cannot be had was certainly not sent."""
        timeout = self._client.timeout
        if seconds is not None:
            usual = (timeout.connect or 0.0, timeout.read or 0.0)
            connect, read = (min(one, max(seconds, _LEAST_SECONDS)) for one in usual)
            timeout = httpx.Timeout(read, connect=connect)
        answer = self._answer(
            lambda: self._client.post("/api/token/refresh/", json={"refresh": key}, timeout=timeout)
        )
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
            sentence = self.token.clean(f"Label Studio at {self.url} gave no answer: {reason}.")
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
        sentence = self.token.clean(f"{_told(response)} HTTP {status}{_reason(response)}.")
        if response.is_redirect:
            return StudioRefusedError(sentence, "Set HEATBOX_STUDIO_URL to the address that it redirects to.")
        if response.is_server_error:
            return lost(sentence, _AGAIN)
        if status in _TRANSIENT:
            return StudioError(sentence, _AGAIN)
        refused = StudioRefusedError(sentence, _REMEDIES.get(status, "Read Label Studio's log."))
        refused.status = status
        return refused


def make_ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return what checks certificates: the usual authorities, and those of a PEM file.

    Raises:
        SettingsError: the file cannot be read, or has no certificate.
    """
    context = httpx.create_ssl_context()
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # also SSLError
        reason = "it has no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            f"The CA certificates in {ca_file.name!r} cannot be used: {reason}.",
            "Set HEATBOX_CA_FILE to a file with certificates in PEM.",
        ) from error
    return context


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
        is_complete = parts.scheme in {"http", "https"} and bool(parts.host)
        if is_complete:
            read_host(parts.netloc.decode("ascii"))
    except (httpx.InvalidURL, ValueError) as error:  # UnicodeError: a name that only looks like IDNA
        raise SettingsError("The address of Label Studio is not one.", remedy) from error
    if not is_complete:
        raise SettingsError(
            "The address of Label Studio has no http:// or https:// with a host, or is not set.", remedy
        )
    if parts.userinfo or parts.query or parts.fragment:
        raise SettingsError("The address of Label Studio has a user, a query or a fragment in it.", remedy)
    return str(parts).rstrip("/")
