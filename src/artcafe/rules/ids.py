"""Ids and digests: generate ids, derive them from a key, and check ids from peers. `model` defines the types of ids."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from datetime import datetime
from typing import Final

import ulid

MAX_BYTES: Final = 128
"""Longer than any id ArtCafe generates (30). DynamoDB allows 1,024 bytes in a sort key, which must hold two ids and a '#'."""

PREFIXES: Final = ("agt", "ask", "att", "aud", "chl", "chn", "inv", "key", "msg", "req", "ses", "srv", "ten", "tok", "whk")
"""The prefixes of ids. No handle begins with one of them."""

# Crockford's base32, indexed by the lowest five bits of a byte: random bytes become random letters in one step.
_LETTERS: Final = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ" * 8
_PAIRS: Final = tuple(f"{first:c}{second:c}" for first in _LETTERS[:32] for second in _LETTERS[:32])
"""The letters of ten bits."""

_random: Final[list[str]] = []
"""Random parts of the next ids, 16 letters each."""
_RANDOM_PARTS: Final = 256
"""Read from the operating system at once: a read takes 2 to 5 µs, as long as the rest of an id and a tenth of a publish."""


def new_id(prefix: str) -> str:
    """Return `{prefix}_{ULID}`, such as `agt_01KARTC…`: later ids sort later, to the millisecond.

    The other 80 bits are always random: a library that increments within a millisecond would reveal the id of the next challenge
    to anyone requesting one. Every message gets an id; python-ulid took 10 µs, a quarter of a publish, and this function takes 1
    µs.
    """
    try:
        letters = _random.pop()
    except IndexError:
        letters = _more_random()
    time_ms = time.time_ns() // 1_000_000
    return f"{prefix}_{_first_letters(time_ms >> 10)}{_PAIRS[time_ms & 1023]}{letters}"


def id_at(prefix: str, time: datetime) -> str:
    """Return an id as `new_id` does, with another time than the present: `time_of` returns it, to the millisecond."""
    first = ulid.ULID.from_datetime(time)
    return f"{prefix}_{str(first)[:10]}{new_id(prefix)[-16:]}"


def _more_random() -> str:
    """Fill `_random`, and return one more random part."""
    letters = os.urandom(16 * _RANDOM_PARTS).translate(_LETTERS).decode()
    _random.extend(letters[at : at + 16] for at in range(16, len(letters), 16))
    return letters[:16]


os.register_at_fork(after_in_child=_random.clear)  # two processes must not make the same ids


@functools.lru_cache(maxsize=1)
def _first_letters(high_bits: int) -> str:
    """Return the first eight letters of every ULID of these 1,024 ms (github.com/ulid/spec). Two more letters are of its time."""
    return bytes(high_bits >> shift & 31 for shift in range(35, -1, -5)).translate(_LETTERS).decode()


def time_of(id: str, prefix: str) -> datetime | None:
    """Return the time at which `new_id` made the id, or None for other text."""
    head, _, letters = id.partition("_")
    if head != prefix:
        return None
    try:
        return ulid.ULID.from_str(letters).datetime
    except (ValueError, OverflowError):
        return None


def derived_id(prefix: str, *parts: str) -> str:
    """Return the id derived from these parts, in the format of `new_id`; its time has no meaning.

    Used for `Idempotency-Key`: a retry derives the same id, so that the row itself records the first request.
    """
    return f"{prefix}_{ulid.ULID.from_bytes(_hash(parts).digest()[:16])}"


def digest(*parts: str) -> str:
    """Return the SHA-256 of the parts as 64 hexadecimal digits. Parts are separated: ("ab", "c") and ("a", "bc") differ."""
    return _hash(parts).hexdigest()


def is_possible(id: str) -> bool:
    """Return whether text from a peer can be an id: printable, of 1 to 128 bytes, including ids of an older system.

    Other text names no record and is answered like an unknown id.
    """
    # Half a surrogate pair is not printable, so `encode` cannot fail.
    return id.isprintable() and 0 < len(id.encode()) <= MAX_BYTES


def _hash(parts: tuple[str, ...]) -> hashlib._Hash:
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state
