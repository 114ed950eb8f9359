"""Convert items to DynamoDB's attribute values and back, in the types of AWS's client."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeAlias

from artcafe.tables.engine.values import Item, Value, ValueKind, kind_of, normal_number

Attribute: TypeAlias = dict[str, Any]
"""One attribute value, such as `{"S": "text"}`: a type descriptor, and the client's value for it."""


def to_attributes(item: Item) -> dict[str, Attribute]:
    """Convert an item in normal form to DynamoDB's attributes; the values are copies."""
    return {name: to_attribute(value) for name, value in item.items()}


def from_attributes(attributes: dict[str, Attribute]) -> dict[str, Value]:
    """Convert an item of any writer to a new item in normal form: everything DynamoDB stores is valid in the port."""
    return {name: from_attribute(attribute) for name, attribute in attributes.items()}


def to_attribute(value: Value) -> Attribute:
    """Convert a value in normal form to an attribute value."""
    kind = kind_of(value)
    return {kind.value: _TO[kind](value)}


def from_attribute(attribute: Attribute) -> Value:
    """Convert an attribute value to a new value in normal form."""
    ((kind, raw),) = attribute.items()
    return _FROM[kind](raw)


def _same(value: Any) -> Any:
    return value


def _number(text: str) -> int | Decimal:
    # Most numbers are integers; `int` alone would also accept "1_0" and blanks, which DynamoDB never writes.
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
