"""The chain of an audit: each entry names the digest of the one before, so that whoever has the last digest can tell that
nothing before it was changed, removed or added. Where entries are kept is `fabric.audit_log`'s.
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
"""What the first entry names, which has none before it."""

BEGINNING: Final = "tenant.create"
"""The action of the first entry in the audit of a tenant that was made here."""


class ChainBreak(NamedTuple):
    """Where a chain does not hold: at which entry, and how."""

    number: int
    problem: str


def canonical(entry: Entry) -> bytes:
    """The entry as it is kept, and as its digest is taken: JSON, keys in order, no spaces, times as everywhere else.

    `json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)` makes the same of an entry read as JSON.
    """
    fields: dict[str, Any] = msgspec.to_builtins(entry, builtin_types=(datetime,))
    fields["time"] = times.to_text(entry.time)
    return msgspec.json.encode(fields, order="sorted")


def digest(text: bytes) -> str:
    """SHA-256 of an entry's canonical text, in hexadecimal."""
    return hashlib.sha256(text).hexdigest()


def read(text: bytes) -> Entry:
    """An entry as it was kept. Raises ValueError for what is none."""
    return msgspec.json.decode(text, type=Entry)


def first_break(entries: Iterable[Entry], number: int = 1, before: str = FIRST) -> ChainBreak | None:
    """Where the entries, oldest first, do not follow each other; None where they do. The first is `number`, behind `before`."""
    for entry in entries:
        if entry.number != number:
            return ChainBreak(number, f"is missing: the next one there is number {entry.number}")
        if entry.before != before:
            return ChainBreak(number, "does not name the one before it: one of the two was changed")
        number, before = number + 1, digest(canonical(entry))
    return None
