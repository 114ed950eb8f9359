"""Encode an item as JSON text for one SQLite row, and decode it without loss.

Text, integers, booleans, null, lists and maps are plain JSON, so that rows are readable in the sqlite3 shell. A type missing in
JSON is encoded with DynamoDB's type descriptor in a map with an empty name, which no item can contain: `{"":["N","1.5"]}`.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from decimal import Decimal

from artcafe.tables.engine.values import Item, Value, ValueKind

_TAG = '{"":'


def to_text(item: Item) -> str:
    """Return the JSON text of an item in normal form. Equal items with the same attribute order have the same text."""
    return _ENCODER.encode(item)


def from_text(text: str) -> dict[str, Value]:
    """Parse text written by `to_text` into a new item in normal form."""
    # JSON escapes quotes inside strings, so this text occurs only where a tagged value does. The check saves plain items, the
    # majority, one call per map.
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
