"""Which hosts a picture may come from: those at public addresses, and those that the settings name.

A name is resolved once, each of its addresses is checked, and the connection goes to an address that was checked:
what the name means a moment later changes nothing (DNS rebinding). Addresses of IPv6 that carry one of IPv4 count as
that: mapped (RFC 4291), 6to4 (RFC 3056) and NAT64 (RFC 6052).
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from queue import Empty, SimpleQueue
from threading import Thread

from heatbox.errors import AddressRefusedError, PictureFetchError
from heatbox.hosts import literal, read_host

__all__ = ["Guard", "Resolve", "is_public", "resolve_by_dns"]

Resolve = Callable[[str, int], Sequence[str]]
"""Returns the addresses, as text, of a host and port; OSError or UnicodeError where it has none."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_OF_CLOUDS = (  # what Azure and Oracle answer each of their machines; Python counts it as public
    IPv4Network("168.63.129.16/32"),
    IPv4Network("192.0.0.0/24"),
)


def resolve_by_dns(host: str, port: int) -> list[str]:
    """Return the addresses that this machine's resolver knows."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Return whether an address, as text, belongs to one host of the public internet."""
    found = ip_address(address)
    if isinstance(found, IPv4Address):
        return found.is_global and not found.is_multicast and not any(found in one for one in _OF_CLOUDS)
    inner = _carried(found)
    if inner is not None:
        return is_public(str(inner))
    return found in _GLOBAL_UNICAST and found.is_global


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class Guard:
    """Says where a connection for a picture may go.

    Args:
        allowed: HOST or HOST:PORT of hosts that may have private addresses (`Settings.private_hosts`).
        resolve: looks names up.

    Raises:
        ValueError: one is not HOST or HOST:PORT.
    """

    def __init__(self, allowed: Iterable[str], resolve: Resolve = resolve_by_dns) -> None:
        self._allowed = frozenset(map(read_host, allowed))
        self._resolve = resolve

    def addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Return the addresses to connect to, each of them checked.

        Args:
            host: a name in ASCII, or an address.
            port: that is connected to.
            seconds: that looking it up may take.

        Raises:
            AddressRefusedError: the host is not allowed.
            PictureFetchError: it has no address.
            TimeoutError: looking it up takes too long.
        """
        known = _literal(host)
        found = [known] if known else self._looked_up(host, port, seconds)
        asked = known or host
        if not {(asked, None), (asked, port)} & self._allowed and not all(map(is_public, found)):
            raise AddressRefusedError(
                f"The host {host[:100]!r} is not on the public internet.",
                f"Add {host[:100]}:{port} to HEATBOX_PRIVATE_HOSTS if tasks may name its pictures.",
            )
        return found

    def _looked_up(self, host: str, port: int, seconds: float) -> list[str]:
        """Look a name up; in a thread, because the system's resolver knows no time limit."""
        answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

        def look_up() -> None:
            try:
                answers.put([address.partition("%")[0] for address in self._resolve(host, port)])
            except (OSError, UnicodeError) as error:
                answers.put(error)

        Thread(target=look_up, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=seconds)
        except Empty:
            raise TimeoutError from None
        if isinstance(answer, Exception) or not answer:
            raise PictureFetchError(
                f"No address is known for the host {host[:100]!r}.", "Check the address in the task."
            )
        return answer


def _literal(host: str) -> str | None:
    """Return the address that a host is, None for a name; what is neither is refused."""
    try:
        return literal(host)
    except ValueError as error:
        raise AddressRefusedError(
            "The address has no usable host in it.", "Correct the address in the task."
        ) from error
