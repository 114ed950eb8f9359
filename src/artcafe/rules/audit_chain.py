"""The hash chain of an audit: each entry contains the digest of the previous one.

Anyone with the last digest can verify that no earlier entry was changed, removed or added. `fabric.audit_log` stores the entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from artcafe.model import Entry
from artcafe.rules import times

FIRST: Final = ""
"""The previous digest in the first entry."""

BEGINNING: Final = "tenant.create"
"""The action of the first entry in the audit of a tenant created here."""


class ChainBreak(NamedTuple):
    """A break in the chain: the number of the entry, and the problem."""

    number: int
    problem: str


def canonical(entry: Entry) -> bytes:
    """Return the stored form of an entry, the input of its digest: JSON with sorted keys, no spaces, ArtCafe's times.

    `json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)` returns the same text for an entry parsed from
    JSON.
    """
    fields: dict[str, Any] = msgspec.to_builtins(entry, builtin_types=(datetime,))
    fields["time"] = times.to_text(entry.time)
    return msgspec.json.encode(fields, order="sorted")


def digest(text: bytes) -> str:
    """Return the SHA-256 of an entry's canonical text in hexadecimal."""
    return hashlib.sha256(text).hexdigest()


def read(text: bytes) -> Entry:
    """Parse a stored entry. Raises ValueError for malformed text."""
    return msgspec.json.decode(text, type=Entry)


def first_break(entries: Iterable[Entry], number: int = 1, before: str = FIRST) -> ChainBreak | None:
    """Return the first break in the entries, oldest first, or None.

    The first entry has `number` and follows the digest `before`.
    """
    for entry in entries:
        if entry.number != number:
            return ChainBreak(number, f"is missing: the next entry is number {entry.number}")
        if entry.before != before:
            return ChainBreak(number, "does not contain the digest of the entry before it: one of the two was changed")
        number, before = number + 1, digest(canonical(entry))
    return None
