"""Admission of sockets before `connect`: by the origin of a browser's page, and by rate per client address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from artcafe.errors import RateLimited
from artcafe.rules.clients import Proxies, is_address, rate_limit_key
from artcafe.rules.shared_limits import MakeBuckets
from artcafe.rules.throttle import Buckets

BURST_S: Final = 10
"""Burst, in seconds of the rate: after a restart, all agents connect to the server."""


class Admission:
    """The allowed origins, and the rate of connections per client address."""

    def __init__(
        self,
        proxies: Proxies | None = None,
        origins: Iterable[str] = (),
        connects_per_s: float = 0.0,
        hosts: Iterable[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
        make_buckets: MakeBuckets = Buckets,
    ) -> None:
        """`origins`: allowed in addition to the gateway's own host, such as `https://app.example.com`. `hosts`: names of its
        host, in addition to its addresses and `localhost`. `connects_per_s` 0: any rate."""
        self._proxies = proxies or Proxies()
        self._origins, self._hosts = frozenset(origins), frozenset(hosts)
        self._buckets = make_buckets(connects_per_s, connects_per_s * BURST_S)
        self._monotonic = monotonic

    def is_allowed(self, origins: list[str], host: str) -> bool:
        """Return whether a browser's page may connect (RFC 6455, section 10.2). Programs send no origin and are allowed.

        `host`: the authority of the request. A page of the same host is allowed if the host is the gateway's own, but not a
        foreign name resolved to this address (DNS rebinding).
        """
        if not origins:
            return True
        name = _host(origins[0])
        return len(origins) == 1 and (origins[0] in self._origins or (name == _host(f"//{host}") and self._is_own(name)))

    def _is_own(self, name: str) -> bool:
        return name in self._hosts or name == "localhost" or is_address(name)

    def admit(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """Return the client's address behind trusted proxies. Raises RateLimited."""
        address = self._proxies.client_address(peer, forwarded)
        wait_s = self._buckets.take(rate_limit_key(address), self._monotonic())
        if wait_s:
            raise RateLimited("connections", wait_s)
        return address


def _host(url: str) -> str:
    """Return the host without its port: a page of the same host on another port is allowed."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
