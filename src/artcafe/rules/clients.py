"""From where a call comes: which address is believed, and as whose it is counted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN: Final = "unknown"
"""Stands for a peer without an address, such as one of a Unix socket."""
_MAX_HOPS: Final = 32
_SITE_BITS: Final = 64
"""What one customer of a network has of IPv6, so that no one counts as many (RFC 6177)."""


class Proxies:
    """The proxies whose word is taken for where a request comes from. Without any, a peer's own address is all there is."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client_address(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """The nearest address that is no proxy of ours. `forwarded` are the values of X-Forwarded-For, in their order.

        Each proxy puts behind what it got the address it got that from; so the header is read from its end, and no further than
        the first address that is not ours: what stands before it anybody may have written.
        """
        address = _parse(peer or "")
        if address is None:
            return UNKNOWN
        if self._networks:
            hops = [hop for each in forwarded for hop in each.split(",")][-_MAX_HOPS:]
            while hops and self._has(address):
                nearer = _parse(hops.pop())
                if nearer is None:
                    break  # A proxy that hides its client, or a text that is none: the proxy's own address is what is known.
                address = nearer
        return str(address)

    def trusts(self, peer: str | None) -> bool:
        """Whether the peer is one of the proxies."""
        address = _parse(peer or "") if self._networks else None
        return address is not None and self._has(address)

    def _has(self, address: IpAddress) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def rate_limit_key(address: str) -> str:
    """What stands for everybody behind this address where calls are counted: an IPv6 address by its /64."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, _SITE_BITS), strict=False))
    return address


def is_address(host: str) -> bool:
    """Return whether a host is an IP address and no name."""
    return _parse(host) is not None


def _parse(text: str) -> IpAddress | None:
    """The address, without a port, a zone or IPv6 around IPv4; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
