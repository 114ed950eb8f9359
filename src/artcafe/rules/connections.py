"""How many connections may be open: in all, below what the system lets this process open, and by address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from artcafe.errors import Overloaded, RateLimited
from artcafe.rules.clients import UNKNOWN, Proxies, rate_limit_key
from artcafe.rules.quotas import Quota, QuotaExceeded

MIN_RESERVE: Final = 64
RESERVED_SHARE: Final = 8
"""One in so many descriptors is kept back, for NATS, the tables, the listeners and health checks."""
SPARE: Final = 32
"""Connections beyond all others, on which nothing but health is answered. They are among the descriptors kept back."""
SPARE_PER_ADDRESS: Final = 4
RETRY_S: Final = 1.0
LINGERING: Final = 16
"""Of the connections that are refused, so many at once may stay until their peers have read why: closed at once, over a request
that is just coming, a connection is reset."""
LINGER_S: Final = 0.5
LINGER_BYTES: Final = 1024 * 1024
"""What is read and discarded of it meanwhile: loopback carries gigabytes in that time, and reading them is work."""


def capacity(descriptors: int) -> int:
    """Return how many connections of peers a process takes that may have so many descriptors."""
    return max(1, descriptors - max(MIN_RESERVE, descriptors // RESERVED_SHARE))


@dataclass(slots=True)
class CountedConnection:
    """One open connection, as it is counted. `counted` is None behind a proxy, until its client is known."""

    counted: str | None
    is_spare: bool = False


class OpenConnections:
    """Counts the connections of both listeners together. A bound of 0 bounds nothing."""

    def __init__(self, proxies: Proxies | None = None, most: int = 0, most_per_address: int = 0) -> None:
        """One address never holds more than half of `most`, so that others always find a place."""
        if most and most_per_address:
            most_per_address = min(most_per_address, max(1, most // 2))
        self._proxies = proxies or Proxies()
        self._all: Quota = Quota(most, 0)
        self._by_address = Quota(0, most_per_address)
        self._spare = Quota(SPARE, SPARE_PER_ADDRESS)
        self._lingering = Quota(LINGERING, 0)

    @property
    def count(self) -> int:
        """How many are open now, spare ones left out."""
        return self._all.held

    def enter(self, peer: str | None, *, may_use_spare: bool = False) -> CountedConnection:
        """Count a connection of this peer until `leave`. Raises RateLimited (its address has too many) or Overloaded.

        A proxy stands for many clients, so only the clients that it names are counted by address.
        """
        if self._proxies.trusts(peer):
            entry = CountedConnection(None)
        else:
            entry = CountedConnection(rate_limit_key(self._proxies.client_address(peer, ())))
            self._count(entry.counted)
        if self._all.take(None) is None:
            return entry
        self._discount(entry.counted)
        key = entry.counted or UNKNOWN
        if may_use_spare and self._spare.take(key) is None:
            return CountedConnection(key, is_spare=True)
        raise Overloaded("connections")

    def identify(self, entry: CountedConnection, address: str) -> None:
        """Count a proxy's connection by the client that it names. Raises RateLimited."""
        if entry.counted is None:
            counted = rate_limit_key(address)
            self._count(counted)
            entry.counted = counted

    def leave(self, entry: CountedConnection) -> None:
        """The connection is closed."""
        if entry.is_spare:
            self._spare.release(entry.counted)
            return
        self._all.release(None)
        self._discount(entry.counted)

    def linger(self) -> bool:
        """Return whether a connection that was refused may stay for `LINGER_S`, until `stop_lingering`."""
        return self._lingering.take(None) is None

    def stop_lingering(self) -> None:
        """A connection that was refused is closed."""
        self._lingering.release(None)

    def _count(self, counted: str | None) -> None:
        if self._by_address.take(counted) is QuotaExceeded.KEY:
            raise RateLimited("open connections", RETRY_S)

    def _discount(self, counted: str | None) -> None:
        if counted is not None:
            self._by_address.release(counted)
