"""Where webhooks may be sent: a tenant chooses the URL, so it must not reach what only this server can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from artcafe.errors import Invalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARS: Final = 2048
_NAT64: Final = IPv6Network("64:ff9b::/96")
_OTHER_REFUSED: Final = (
    IPv6Network("64:ff9b:1::/48"),  # NAT64 of a network of its own (RFC 8215)
    IPv6Network("2001::/32"),  # Teredo, with an IPv4 address inside
    IPv6Network("2002::/16"),  # 6to4, likewise
    IPv6Network("fec0::/10"),  # site-local
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
)


class Target(NamedTuple):
    """The parts of a URL that a connection needs."""

    scheme: str
    host: str
    port: int


def parse(url: str, networks: Sequence[Network]) -> Target:
    """Return the target of a webhook's URL. `networks` are those that the operator allows besides public addresses.

    Plain HTTP is for these networks only: `refused` decides, when the addresses are known. Raises `Invalid`.
    """
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise Invalid("url", f"must be a URL of at most {MAX_URL_CHARS} printable ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise Invalid("url", f"is no URL: {exc}") from exc
    if parts.scheme not in (("https", "http") if networks else ("https",)) or not host:
        raise Invalid("url", "must be an https:// URL with a host, such as https://hooks.example.com/agents/scout")
    if "@" in parts.netloc or parts.fragment:
        raise Invalid("url", "must have no user, password or fragment; the signature proves who sends a webhook")
    target = Target(parts.scheme, host, port if port is not None else 443 if parts.scheme == "https" else 80)
    if (address := _literal(host)) is not None and (problem := refused(target, [address], networks)):
        raise Invalid("url", problem)
    return target


def refused(target: Target, addresses: Sequence[Address], networks: Sequence[Network]) -> str | None:
    """Return why nothing is sent to a host with these addresses, or None. One refused address refuses the host."""
    for address in addresses:
        if _is_in(address, networks):
            continue
        if not _is_public(address):
            return f"{target.host} has the address {address}, which is not public; the operator may allow it (WEBHOOK_NETWORKS)"
        if target.scheme != "https":
            return f"{target.host} has the public address {address}, which needs https"
    return None if addresses else f"{target.host} has no address"


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    inner = _embedded(address)
    return any(each.version == network.version and each in network for each in (address, inner) for network in networks)


def _is_public(address: Address) -> bool:
    """Return whether an address is one of the public Internet: with an IPv4 address inside, whether that one is."""
    inner = _embedded(address)
    if inner is not address:
        return _is_public(inner)
    if any(address.version == network.version and address in network for network in _OTHER_REFUSED):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped or NAT64 address leads to; any other one as it is."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
