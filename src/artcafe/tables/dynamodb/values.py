"""An item as DynamoDB's attribute values, and back: the types that the port keeps, on their way through AWS's client."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeAlias

from artcafe.tables.engine.values import Item, Kind, Value, kind_of, normal_number

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


_TO: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.STRING: _same,
    Kind.NUMBER: str,
    Kind.BINARY: _same,
    Kind.BOOLEAN: _same,
    Kind.NULL: lambda _: True,
    Kind.LIST: lambda members: [to_attribute(member) for member in members],
    Kind.MAP: to_attributes,
    Kind.STRINGS: sorted,
    Kind.NUMBERS: lambda members: sorted(map(str, members)),
    Kind.BINARIES: sorted,
}
_FROM: Final[dict[str, Callable[[Any], Value]]] = {
    Kind.STRING.value: _same,
    Kind.NUMBER.value: _number,
    Kind.BINARY.value: _same,
    Kind.BOOLEAN.value: _same,
    Kind.NULL.value: lambda _: None,
    Kind.LIST.value: lambda members: [from_attribute(member) for member in members],
    Kind.MAP.value: from_attributes,
    Kind.STRINGS.value: frozenset,
    Kind.NUMBERS.value: lambda members: frozenset(map(_number, members)),
    Kind.BINARIES.value: frozenset,
}
