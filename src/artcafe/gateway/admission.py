"""Who may open a socket, before anything is known of them: which pages of a browser, from where, and how often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from artcafe.errors import RateLimited
from artcafe.rules.clients import Proxies, counted_as, is_address
from artcafe.rules.throttle import Buckets

BURST_S: Final = 10
"""So many seconds' worth may come at once: a server that comes back is met by all its agents."""


class Admission:
    """`origins`: whose pages may connect beside those of the gateway's own host, such as `https://app.example.com`. `hosts`: the
    names of that host, beside its addresses and `localhost`."""

    def __init__(
        self,
        proxies: Proxies | None = None,
        origins: Iterable[str] = (),
        connects_per_s: float = 0.0,
        hosts: Iterable[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proxies = proxies or Proxies()
        self._origins, self._hosts = frozenset(origins), frozenset(hosts)
        self._buckets = Buckets(connects_per_s, connects_per_s * BURST_S)
        self._monotonic = monotonic

    def is_welcome(self, origins: list[str], host: str) -> bool:
        """Return whether the page that asks may connect (RFC 6455, section 10.2). Programs name no origin, and may.

        `host` is the authority that the request names. A page of the same host may connect where that host is the gateway's: a
        name that somebody else made resolve to this address (DNS rebinding) is not.
        """
        if not origins:
            return True
        name = _host(origins[0])
        return len(origins) == 1 and (origins[0] in self._origins or (name == _host(f"//{host}") and self._is_own(name)))

    def _is_own(self, name: str) -> bool:
        return name in self._hosts or name == "localhost" or is_address(name)

    def admit(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """The address that is believed, of a socket that may stay. Raises RateLimited."""
        address = self._proxies.observed(peer, forwarded)
        wait_s = self._buckets.take(counted_as(address), self._monotonic())
        if wait_s:
            raise RateLimited("connections", wait_s)
        return address


def _host(url: str) -> str:
    """The host without its port: a page beside the gateway, on a port of its own, is at home."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
