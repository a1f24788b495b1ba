"""Label Studio's switches against private addresses, opened for one address and for nothing else.

Since 1.23.1 Label Studio calls no loopback and no private address. Two of its switches lift that altogether
(`ML_BLOCK_LOCAL_IP=false`, `SSRF_PROTECTION_ENABLED=false`). Narrower is to leave both as they are and to replace the
list of refused networks by the same list without one address: then redirects and names that resolve to something else
are still checked at every connection. The list is that of Label Studio 1.23.2, `core/utils/io.py`, `validate_ip`.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from heatbox.errors import SettingsError

__all__ = ["REFUSED", "switches"]

REFUSED = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "233.252.0.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:0000::/32",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)
"""The networks that Label Studio refuses by default."""

Network = IPv4Network | IPv6Network
_N = TypeVar("_N", IPv4Network, IPv6Network)


def switches(allowed: str) -> dict[str, str]:
    """Return the environment variables with which Label Studio calls this address and no other private one.

    Args:
        allowed: an IP address, or a network such as 172.18.0.0/16.

    Raises:
        SettingsError: it is neither.
    """
    try:
        network = ip_network(allowed)
    except ValueError as error:
        remedy = (
            "Name heatbox's IP address for Label Studio, as in 127.0.0.1, or a network, as in 172.18.0.0/16."
        )
        raise SettingsError(f"{allowed!r} is no IP address and no network.", remedy) from error
    left = [part for one in REFUSED for part in _without(ip_network(one), network)]
    return {
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(map(str, left)),
    }


def _without(refused: Network, allowed: Network) -> Iterator[Network]:
    """Yield the parts of a refused network that stay refused."""
    match refused, allowed:
        case IPv4Network(), IPv4Network():
            yield from _rest(refused, allowed)
        case IPv6Network(), IPv6Network():
            yield from _rest(refused, allowed)
        case _:
            yield refused


def _rest(refused: _N, allowed: _N) -> Iterator[_N]:
    if not refused.overlaps(allowed):
        yield refused
    elif allowed.prefixlen > refused.prefixlen:
        yield from refused.address_exclude(allowed)
