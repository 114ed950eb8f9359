"""Client addresses: the trusted address of a request, and the key for its rate limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN: Final = "unknown"
"""The address of a peer without one, such as a peer on a Unix socket."""
_MAX_HOPS: Final = 32
_MAX_ADDRESS_CHARS: Final = 100
"""The longest address has 39, and a zone and a port besides."""
_SITE_BITS: Final = 64
"""Prefix bits of one customer in IPv6, so that one customer does not count as many (RFC 6177)."""


class Proxies:
    """The trusted proxies. Without any, the peer's own address is used."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client_address(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """Return the nearest address outside the trusted proxies. `forwarded` are the values of X-Forwarded-For, in order.

        Each proxy appends the address of its own peer. So the header is read from the end, up to the first address outside the
        proxies: anyone may have written the addresses before that.
        """
        address = _parse(peer or "")
        if address is None:
            return UNKNOWN
        if self._networks:
            hops = [hop for each in forwarded for hop in each.split(",")][-_MAX_HOPS:]
            while hops and self._has(address):
                nearer = _parse(hops.pop())
                if nearer is None:
                    break  # A proxy hiding its client, or malformed text: use the proxy's own address.
                address = nearer
        return str(address)

    def trusts(self, peer: str | None) -> bool:
        """Return whether the peer is a trusted proxy."""
        address = _parse(peer or "") if self._networks else None
        return address is not None and self._has(address)

    def _has(self, address: IpAddress) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def rate_limit_key(address: str) -> str:
    """Return the rate limit key of an address: the /64 network for IPv6."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, _SITE_BITS), strict=False))
    return address


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, not a name."""
    return _parse(host) is not None


def _parse(text: str) -> IpAddress | None:
    """Parse an address, ignoring a port and a zone, and unwrapping IPv4 in IPv6; None for other text."""
    # A request asks for its address three times, 15 µs each. Longer text, of a header, must not fill the cache.
    return _parse_cached(text) if len(text) <= _MAX_ADDRESS_CHARS else None


@lru_cache(maxsize=4096)
def _parse_cached(text: str) -> IpAddress | None:
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
