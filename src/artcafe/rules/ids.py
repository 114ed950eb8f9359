"""Ids and digests: new ones, ones that a key derives, and which text of a peer can be one. What an id names is `model`'s."""

from __future__ import annotations

import hashlib
from typing import Final

import ulid

MAX_BYTES: Final = 128
"""Longer than any id that ArtCafe makes (30). DynamoDB takes 1,024 bytes in a sort key, which has to hold two ids and a '#'."""

# The library's default counts up within a millisecond. Whoever asks for a challenge would then know the id of the next one,
# and could spend it before its owner does.
_generator = ulid.ULIDGenerator(policy=ulid.PureRandomPolicy())


def new_id(prefix: str) -> str:
    """`{prefix}_{ULID}`, such as `agt_01KARTC…`: ids made later sort later, to the millisecond."""
    return f"{prefix}_{_generator.generate()}"


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
