"""HTTP for pictures, the one door to httpcore: connections go only to addresses that the guard has checked.

httpcore is the layer below httpx, and lets a client bring the part that connects. Ours asks the guard, and connects
to the address that it returns; the Host header, SNI and the check of the certificate keep the name. No proxy of the
environment is used, no redirect followed, no cookie kept, and no compressed answer asked for.

A number that stands where httpcore speaks of a timeout is a moment of the monotonic clock here: each read gets what
is left, so that a host which sends a byte a second comes to an end as well.
"""

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpcore
import httpx

from heatbox import __version__
from heatbox.errors import PictureFetchError
from heatbox.pictures.deadline import Deadline
from heatbox.pictures.guard import Guard

__all__ = ["Answer", "PictureClient", "port_of"]

_HEADERS = {"User-Agent": f"heatbox/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
_CONNECT_SECONDS = 10.0  # to one address of a host that may have several
_IDLE_SECONDS = 15.0
_MOST_CONNECTIONS = 16
_AGAIN = "Does the address open in a browser? Try again."
_BROKEN = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)


@dataclass(frozen=True)
class Answer:
    """What a host answered: status, headers with lower-case names, and the body, which is still to be read."""

    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]


class PictureClient:
    """Asks hosts for pictures; threads may share it; to be closed.

    Args:
        guard: says where connections may go.
        context: checks certificates.
    """

    def __init__(self, guard: Guard, context: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=_MOST_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_Network(guard),
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextmanager
    def get(self, url: httpx.URL, headers: Mapping[str, str], deadline: Deadline) -> Iterator[Answer]:
        """Give the answer to one GET, for the time of the block.

        Raises:
            PictureFetchError: no answer came, or its body was cut while the block read it.
            PictureSlowError: it took too long.
            AddressRefusedError: the guard refuses the host.
        """
        with _told(url, deadline):
            response = self._send(_request(url, headers, deadline))
            try:
                found = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                yield Answer(response.status, found, iter(response.iter_stream()))
            finally:
                response.close()

    def _send(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; once more where a kept connection turns out to be closed."""
        try:
            return self._pool.handle_request(request)
        except _BROKEN:
            return self._pool.handle_request(request)


def port_of(url: httpx.URL) -> int:
    """Return the port that an http or https URL means."""
    return url.port if url.port is not None else 443 if url.scheme == "https" else 80


def _request(url: httpx.URL, headers: Mapping[str, str], deadline: Deadline) -> httpcore.Request:
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=port_of(url), target=url.raw_path)
    moments = {
        "connect": deadline.ends,
        "read": deadline.ends,
        "write": deadline.ends,
        "pool": deadline.left(),
    }
    sent = {"Host": url.netloc.decode("ascii"), **_HEADERS, **headers}
    return httpcore.Request("GET", target, headers=list(sent.items()), extensions={"timeout": moments})


@contextmanager
def _told(url: httpx.URL, deadline: Deadline) -> Iterator[None]:
    host = url.host[:100]
    try:
        yield
    except httpcore.TimeoutException as error:
        raise deadline.missed() from error
    except httpcore.ConnectError as error:
        raise PictureFetchError(f"The host {host!r} cannot be reached.", _AGAIN) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise PictureFetchError(f"The answer of the host {host!r} is cut off, or no HTTP.", _AGAIN) from error


class _Network(httpcore.NetworkBackend):
    """Connects to addresses that the guard has checked."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        error: Exception | None = None
        for address in self._addresses(host, port, timeout):
            seconds = min(_left(timeout), _CONNECT_SECONDS)
            try:
                stream = self._plain.connect_tcp(address, port, seconds, local_address, socket_options)
                return _Stream(stream, host)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
        _left(timeout)
        raise httpcore.ConnectError from error

    def _addresses(self, host: str, port: int, moment: float | None) -> list[str]:
        try:
            return self._guard.addresses(host, port, _left(moment))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error


class _Stream(httpcore.NetworkStream):
    """A connection whose timeouts are moments."""

    def __init__(self, stream: httpcore.NetworkStream, host: str) -> None:
        self._stream = stream
        self._host = host

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)), self._host)
        except httpcore.ConnectError as error:
            if not isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise
            raise PictureFetchError(
                f"The certificate of the host {self._host[:100]!r} is not good: {error.__cause__.verify_message}.",
                "Set HEATBOX_CA_FILE if an authority of your own has signed it.",
            ) from error

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left(moment: float | None) -> float:
    """Return the seconds until a moment."""
    left = (moment or 0.0) - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left
