"""Rate limits and connection counts shared by several server processes, in memory mapped by all of them.

Each key has one of 65,536 slots, by a hash with a salt of the process group. Of a thousand addresses at a time one in 65 shares
its slot with another, and both count as one; nobody can provoke that without the salt. No lock is used: if two processes change a
slot in the same microsecond, one of the changes is lost. A process counts connections in its own column, so that its count can be
removed when it dies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple

from artcafe.rules.throttle import Buckets

SLOTS: Final = 1 << 16
SALT_BYTES: Final = 16
_BUCKET: Final = struct.Struct("=dd")
_COUNT_BYTES: Final = 4
_TABLES: Final = 3
_TABLE_BYTES: Final = SLOTS * _BUCKET.size
_COLUMN_BYTES: Final = SLOTS * _COUNT_BYTES

MakeBuckets = Callable[[float, float], Buckets]
"""Create the buckets of one limit, from a rate per second and a burst."""


class PeerLimits(NamedTuple):
    """The limits before authentication, counted by one process alone or by several together."""

    requests: MakeBuckets = Buckets
    connects: MakeBuckets = Buckets
    challenges: MakeBuckets = Buckets
    by_address: SharedCounts | None = None
    """Connections of each address in all processes."""


ONE_PROCESS: Final = PeerLimits()
"""The limits of a single process."""


def size_bytes(columns: int) -> int:
    """Return the memory size for this many processes: 3 MiB, and 256 KiB for each."""
    return SALT_BYTES + _TABLES * _TABLE_BYTES + columns * _COLUMN_BYTES


def peer_limits(memory: memoryview, column: int, columns: int) -> PeerLimits:
    """Return the limits in the memory, for the process with this column.

    `memory` has `size_bytes(columns)`, all zero except the salt at its start, written by `write_salt`.
    """
    head = bytes(memory[:SALT_BYTES])
    tables = [memory[SALT_BYTES + at * _TABLE_BYTES :][:_TABLE_BYTES] for at in range(_TABLES)]
    requests, connects, challenges = (partial(SharedBuckets, table, head) for table in tables)
    return PeerLimits(requests, connects, challenges, SharedCounts(_counts(memory), head, column, columns))


def write_salt(memory: memoryview, salt: bytes) -> None:
    """Write the group's salt to new memory. Raises ValueError unless it has 16 bytes."""
    memory[:SALT_BYTES] = salt


def clear_column(memory: memoryview, column: int) -> None:
    """Remove the connection counts of a dead process."""
    begin = SALT_BYTES + _TABLES * _TABLE_BYTES + column * _COLUMN_BYTES
    memory[begin : begin + _COLUMN_BYTES] = bytes(_COLUMN_BYTES)


def _counts(memory: memoryview) -> memoryview:
    return memory[SALT_BYTES + _TABLES * _TABLE_BYTES :].cast("I")


def _slot(key: Hashable, salt: bytes) -> int:
    # Not `hash`: each interpreter has its own hash salt.
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=4, key=salt).digest()) % SLOTS


class SharedBuckets(Buckets):
    """Token buckets in a table mapped by several processes. Their clock is the machine's (CLOCK_MONOTONIC)."""

    def __init__(self, table: memoryview, salt: bytes, rate_per_s: float, burst: float) -> None:
        super().__init__(rate_per_s, burst)
        self._table, self._salt = table, salt

    def _spent_by(self, key: Hashable, now: float) -> float:
        spent, at = _BUCKET.unpack_from(self._table, _slot(key, self._salt) * _BUCKET.size)
        return max(0.0, float(spent) - (now - float(at)) * self._rate)

    def _keep(self, key: Hashable, spent: float, now: float) -> None:
        _BUCKET.pack_into(self._table, _slot(key, self._salt) * _BUCKET.size, spent, now)


class SharedCounts:
    """The amount held by each key in all processes; each process counts in its own column."""

    def __init__(self, counts: memoryview, salt: bytes, column: int, columns: int) -> None:
        self._counts, self._salt, self._columns = counts, salt, columns
        self._first = column * SLOTS

    def held(self, key: Hashable) -> int:
        """Return the amount the key holds in all processes."""
        slot = _slot(key, self._salt)
        return sum(self._counts[column * SLOTS + slot] for column in range(self._columns))

    def add(self, key: Hashable, amount: int) -> None:
        """Add an amount taken by the key in this process; a negative amount returns it."""
        self._counts[self._first + _slot(key, self._salt)] += amount
