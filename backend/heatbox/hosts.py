"""Hosts as the settings name them, read in one way by all who compare a connection with them."""

import re
import socket
from ipaddress import ip_address

import httpx

__all__ = ["address_key", "is_loopback", "literal", "read_host"]

_NAME = re.compile(r"[a-z0-9_.-]{1,253}")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")


def literal(host: str) -> str | None:
    """Return the address that a host is, None for a name in ASCII.

    Raises:
        ValueError: it is neither, such as 0177.1.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    if not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        raise ValueError("neither a name nor an address")
    return None


def read_host(text: str) -> tuple[str, int | None]:
    """Return the host, as an address or a name in ASCII, and the port where one is named.

    Raises:
        ValueError: it is not HOST or HOST:PORT.
    """
    reason = f"{text!r} is not HOST or HOST:PORT, and a network is not either"
    try:
        url = httpx.URL(f"any://[{text}]" if text.count(":") > 1 and "[" not in text else f"any://{text}")
        host, port = url.raw_host.decode("ascii"), url.port
        known = literal(host)
    except (httpx.InvalidURL, ValueError) as error:  # UnicodeError is one
        raise ValueError(reason) from error
    more = url.userinfo or url.query or url.fragment or url.path not in {"", "/"}
    if more or not (port is None or 0 < port < 2**16):
        raise ValueError(reason)
    return known or host, port


def is_loopback(host: str) -> bool:
    """Return whether a host, by name or address, means this machine alone."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(ip_address(str(one).partition("%")[0]).is_loopback for one in found)


def address_key(url: str) -> str:
    """Return an address of a server as the ledger writes it, however it is written: capitals, port, last slash."""
    scheme, colon, rest = url.strip().partition(":")
    try:
        return str(httpx.URL(f"{scheme.lower()}{colon}{rest}")).rstrip("/")
    except httpx.InvalidURL:
        return url.strip().rstrip("/")
