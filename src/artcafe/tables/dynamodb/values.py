"""An item as DynamoDB's attribute values, and back: the types that the port keeps, on their way through AWS's client."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeAlias

from artcafe.tables.engine.values import Item, Value, ValueKind, kind_of, normal_number

Attribute: TypeAlias = dict[str, Any]
"""One attribute value, such as `{"S": "text"}`: a type descriptor, and what the client takes and gives for it."""


def to_attributes(item: Item) -> dict[str, Attribute]:
    """An item in normal form as DynamoDB's; its values are fresh."""
    return {name: to_attribute(value) for name, value in item.items()}


def from_attributes(attributes: dict[str, Attribute]) -> dict[str, Value]:
    """A fresh item in normal form, of whoever wrote it: what DynamoDB stores, the port can hold."""
    return {name: from_attribute(attribute) for name, attribute in attributes.items()}


def to_attribute(value: Value) -> Attribute:
    """A value in normal form as DynamoDB's."""
    kind = kind_of(value)
    return {kind.value: _TO[kind](value)}


def from_attribute(attribute: Attribute) -> Value:
    """A fresh value in normal form."""
    ((kind, raw),) = attribute.items()
    return _FROM[kind](raw)


def _same(value: Any) -> Any:
    return value


def _number(text: str) -> int | Decimal:
    # Whole numbers are most; `int` alone would also take "1_0" and blanks, which DynamoDB does not write.
    return int(text) if text.lstrip("-").isdecimal() else normal_number(Decimal(text), "number")


_TO: Final[dict[ValueKind, Callable[[Any], Any]]] = {
    ValueKind.STRING: _same,
    ValueKind.NUMBER: str,
    ValueKind.BINARY: _same,
    ValueKind.BOOLEAN: _same,
    ValueKind.NULL: lambda _: True,
    ValueKind.LIST: lambda members: [to_attribute(member) for member in members],
    ValueKind.MAP: to_attributes,
    ValueKind.STRINGS: sorted,
    ValueKind.NUMBERS: lambda members: sorted(map(str, members)),
    ValueKind.BINARIES: sorted,
}
_FROM: Final[dict[str, Callable[[Any], Value]]] = {
    ValueKind.STRING.value: _same,
    ValueKind.NUMBER.value: _number,
    ValueKind.BINARY.value: _same,
    ValueKind.BOOLEAN.value: _same,
    ValueKind.NULL.value: lambda _: None,
    ValueKind.LIST.value: lambda members: [from_attribute(member) for member in members],
    ValueKind.MAP.value: from_attributes,
    ValueKind.STRINGS.value: frozenset,
    ValueKind.NUMBERS.value: lambda members: frozenset(map(_number, members)),
    ValueKind.BINARIES.value: frozenset,
}
