"""A checksum over a set of items, independent of the engine and of the order of reading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from artcafe.tables.engine.item_json import to_text
from artcafe.tables.engine.values import Item, Value

_SIZE: Final = 2**256


class Checksum:
    """The number of items and the sum of their SHA-256 digests: equal sets have equal sums in any order.

    Detects lost, duplicated or accidentally changed items. It does not protect against deliberate forgery.
    """

    def __init__(self) -> None:
        self.rows, self._sum = 0, 0

    def add(self, item: Item) -> None:
        """Add an item in normal form."""
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(canonical(item).encode()).digest())) % _SIZE

    @property
    def text(self) -> str:
        """Return the sum as 64 hexadecimal digits."""
        return f"{self._sum:064x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]  # it changes


def canonical(item: Item) -> str:
    """Return the canonical text of an item: includes the types, ignores the order of names in maps."""
    return to_text({name: _sorted(item[name]) for name in sorted(item)})


def _sorted(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(member) for member in value]
    return value
