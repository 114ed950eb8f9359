"""Admission of sockets before `connect`: by the origin of a browser's page, and by rate per client address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from artcafe.errors import RateLimited
from artcafe.rules.clients import Proxies, rate_limit_key
from artcafe.rules.origins import Origins
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
        self.origins = Origins(origins, hosts)
        self._buckets = make_buckets(connects_per_s, connects_per_s * BURST_S)
        self._monotonic = monotonic

    def admit(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """Return the client's address behind trusted proxies. Raises RateLimited."""
        address = self._proxies.client_address(peer, forwarded)
        wait_s = self._buckets.take(rate_limit_key(address), self._monotonic())
        if wait_s:
            raise RateLimited("connections", wait_s)
        return address
