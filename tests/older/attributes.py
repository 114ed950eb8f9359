"""Encode values like the older system's converter for DynamoDB, which differs from ArtCafe's.

It wrote a bool as N 1 or 0 and never as BOOL, a list of texts as a string set, an empty list as L, a list of numbers as a number
set, and None as NULL. It wrote floats with `str`, so 152.3 may be stored as 152.29999999999998.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Attribute = dict[str, Any]
"""An attribute value in the format of DynamoDB's API, such as `{"S": "text"}`."""


@dataclass(frozen=True)
class Raw:
    """An attribute value entered in the console, bypassing the converter."""

    attribute: Attribute


def attribute_of(value: object) -> Attribute:
    """Return the older system's attribute value for a Python value."""
    match value:
        case Raw():
            return value.attribute
        case bool():
            return {"N": str(int(value))}
        case str():
            return {"S": value}
        case int() | float():
            return {"N": str(value)}
        case None:
            return {"NULL": True}
        case Mapping():
            return {"M": {name: attribute_of(member) for name, member in value.items()}}
        case Sequence():
            return _of_list(value)
    raise TypeError(f"the first system wrote no {type(value).__name__}")


def _of_list(members: Sequence[object]) -> Attribute:
    if members and all(isinstance(member, str) for member in members):
        return {"SS": list(members)}
    if members and all(isinstance(member, int | float) and not isinstance(member, bool) for member in members):
        return {"NS": [str(member) for member in members]}
    return {"L": [attribute_of(member) for member in members]}
