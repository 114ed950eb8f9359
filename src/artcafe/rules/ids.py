"""Ids and digests: new ones, ones that a key derives, and which text of a peer can be one. What an id names is `model`'s."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from typing import Final

import ulid

MAX_BYTES: Final = 128
"""Longer than any id that ArtCafe makes (30). DynamoDB takes 1,024 bytes in a sort key, which has to hold two ids and a '#'."""

# Crockford's base32, by the lowest five bits of a byte: random bytes become random letters in one step.
_LETTERS: Final = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ" * 8


def new_id(prefix: str) -> str:
    """`{prefix}_{ULID}`, such as `agt_01KARTC…`: ids made later sort later, to the millisecond.

    The other 80 bits are random, always: a library that counts up within a millisecond would let whoever asks for a challenge
    know the id of the next one. Every message gets an id, and python-ulid took 10 µs, a quarter of a publish; this takes 2.
    """
    return f"{prefix}_{_time_letters(time.time_ns() // 1_000_000)}{os.urandom(16).translate(_LETTERS).decode()}"


@functools.lru_cache(maxsize=1)
def _time_letters(time_ms: int) -> str:
    """The first ten letters of every ULID of a millisecond (github.com/ulid/spec)."""
    return bytes(time_ms >> shift & 31 for shift in range(45, -1, -5)).translate(_LETTERS).decode()


def derived_id(prefix: str, *parts: str) -> str:
    """The id that these parts always give, in the form of `new_id`; its time means nothing.

    For `Idempotency-Key`: a repeated request makes the same id, so that the row itself is the memory of the first.
    """
    return f"{prefix}_{ulid.ULID.from_bytes(_hash(parts).digest()[:16])}"


def digest(*parts: str) -> str:
    """SHA-256 of the parts as 64 hexadecimal digits. Parts never run together: ("ab", "c") and ("a", "bc") differ."""
    return _hash(parts).hexdigest()


def is_possible(id: str) -> bool:
    """Whether text that a peer sent can be an id at all: printable, of 1 to 128 bytes, as an older system may have chosen it.

    What fails this names nothing, and is answered like any id that is absent.
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
