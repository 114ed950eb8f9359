"""Limits for open connections: in total, below the process's limit of file descriptors, and by client address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from artcafe.errors import Overloaded, RateLimited
from artcafe.rules.clients import UNKNOWN, Proxies, rate_limit_key
from artcafe.rules.quotas import Quota, QuotaExceeded
from artcafe.rules.shared_limits import SharedCounts

MIN_RESERVE: Final = 64
RESERVED_SHARE: Final = 8
"""One in this many descriptors is reserved for NATS, the tables, the listeners and health checks."""
SPARE: Final = 32
"""Connections above the limit, for health requests only. They use reserved descriptors."""
SPARE_PER_ADDRESS: Final = 4
RETRY_S: Final = 1.0
LINGERING: Final = 16
"""Refused connections kept open at once until their peers have read the error: closing immediately resets a connection with a
request in flight."""
LINGER_S: Final = 0.5
LINGER_BYTES: Final = 1024 * 1024
"""Bytes read and discarded from a lingering connection: loopback delivers gigabytes in that time, and reading costs CPU."""


def capacity(descriptors: int) -> int:
    """Return the number of client connections for a process with this many file descriptors."""
    return max(1, descriptors - max(MIN_RESERVE, descriptors // RESERVED_SHARE))


@dataclass(slots=True)
class CountedConnection:
    """An open connection. `address_key` is the key of its client's address; None behind a proxy until the client is known."""

    address_key: str | None
    is_spare: bool = False


class OpenConnections:
    """Counts the connections of both listeners together. A limit of 0 means no limit."""

    def __init__(
        self, proxies: Proxies | None = None, most: int = 0, most_per_address: int = 0, in_all: SharedCounts | None = None
    ) -> None:
        """Limit each address to `most_per_address`, and to at most half of `most`, unless `most_per_address` is 0.

        Half, so that other clients always find a free connection. `in_all` counts the connections of an address in all
        processes, and `most_per_address` limits that count too.
        """
        self._in_all, self._most_in_all = in_all, most_per_address
        if most and most_per_address:
            most_per_address = min(most_per_address, max(1, most // 2))
        self._proxies = proxies or Proxies()
        self._all: Quota = Quota(most, 0)
        self._by_address = Quota(0, most_per_address)
        self._spare = Quota(SPARE, SPARE_PER_ADDRESS)
        self._lingering = Quota(LINGERING, 0)

    @property
    def count(self) -> int:
        """Return the number of open connections, without spare ones."""
        return self._all.held

    def enter(self, peer: str | None, *, may_use_spare: bool = False) -> CountedConnection:
        """Count a peer's connection until `leave`. Raises RateLimited (too many from its address) or Overloaded.

        A proxy forwards many clients, so only its clients are counted by address.
        """
        if self._proxies.trusts(peer):
            entry = CountedConnection(None)
        else:
            entry = CountedConnection(rate_limit_key(self._proxies.client_address(peer, ())))
            self._count(entry.address_key)
        if self._all.take(None) is None:
            return entry
        self._discount(entry.address_key)
        key = entry.address_key or UNKNOWN
        if may_use_spare and self._spare.take(key) is None:
            return CountedConnection(key, is_spare=True)
        raise Overloaded("connections")

    def identify(self, entry: CountedConnection, address: str) -> None:
        """Count a proxy's connection by its client's address. Raises RateLimited."""
        if entry.address_key is None:
            key = rate_limit_key(address)
            self._count(key)
            entry.address_key = key

    def leave(self, entry: CountedConnection) -> None:
        """Release a closed connection."""
        if entry.is_spare:
            self._spare.release(entry.address_key)
            return
        self._all.release(None)
        self._discount(entry.address_key)

    def try_linger(self) -> bool:
        """Reserve one of `LINGERING` slots, until `stop_lingering`. False if all are taken: then close the connection at once."""
        return self._lingering.take(None) is None

    def stop_lingering(self) -> None:
        """Release a closed, refused connection."""
        self._lingering.release(None)

    def _count(self, counted: str | None) -> None:
        if self._by_address.take(counted) is QuotaExceeded.KEY:
            raise RateLimited("open connections", RETRY_S)
        if self._in_all is None or counted is None:
            return
        if self._most_in_all and self._in_all.held(counted) >= self._most_in_all:
            self._by_address.release(counted)
            raise RateLimited("open connections", RETRY_S)
        self._in_all.add(counted, 1)

    def _discount(self, counted: str | None) -> None:
        if counted is not None:
            self._by_address.release(counted)
            if self._in_all is not None:
                self._in_all.add(counted, -1)
