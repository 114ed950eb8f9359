"""An item as the JSON text of one SQLite row, and back, exactly.

Text, whole numbers, booleans, null, lists and maps stand as themselves, so that a person can read a row with the sqlite3
shell. What JSON lacks is a map with an empty name, which no item can have, and DynamoDB's type: `{"":["N","1.5"]}`.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from decimal import Decimal

from artcafe.tables.engine.values import Item, Value, ValueKind

_TAG = '{"":'


def to_text(item: Item) -> str:
    """The text of an item in normal form; equal items with their attributes in the same order have the same text."""
    return _ENCODER.encode(item)


def from_text(text: str) -> dict[str, Value]:
    """A fresh item in normal form, from what `to_text` gave."""
    # JSON escapes every quote within a string, so this text stands there only where a tagged value does; looking for it
    # saves the plain items, which are most, a call per map.
    decoder = _TAGGED_DECODER if _TAG in text else _DECODER
    item: dict[str, Value] = decoder.decode(text)
    return item


def _tagged(value: object) -> dict[str, list[object]]:
    match value:
        case Decimal():
            return {"": [ValueKind.NUMBER, str(value)]}
        case bytes():
            return {"": [ValueKind.BINARY, b64encode(value).decode()]}
        case frozenset():
            return {"": [_set_kind(value), *sorted(map(_member, value))]}
        case _:
            raise TypeError(f"{type(value).__name__} is not in normal form")


def _set_kind(members: frozenset[str] | frozenset[bytes] | frozenset[int | Decimal]) -> ValueKind:
    match next(iter(members)):
        case str():
            return ValueKind.STRINGS
        case bytes():
            return ValueKind.BINARIES
        case _:
            return ValueKind.NUMBERS


def _member(member: str | bytes | int | Decimal) -> str:
    return b64encode(member).decode() if isinstance(member, bytes) else str(member)


def _untagged(entries: dict[str, Value]) -> Value:
    tagged = entries.get("")
    if not isinstance(tagged, list):
        return entries
    kind, *texts = tagged
    match kind:
        case ValueKind.NUMBER:
            return Decimal(texts[0])
        case ValueKind.BINARY:
            return b64decode(texts[0])
        case ValueKind.STRINGS:
            return frozenset(texts)
        case ValueKind.BINARIES:
            return frozenset(map(b64decode, texts))
        case ValueKind.NUMBERS:
            return frozenset(int(text) if text.lstrip("-").isdecimal() else Decimal(text) for text in texts)
        case _:
            raise ValueError(f"a row of a newer version: it has a value of kind {kind!r}")


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_tagged)
_DECODER = json.JSONDecoder()
_TAGGED_DECODER = json.JSONDecoder(object_hook=_untagged)
