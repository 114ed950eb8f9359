"""Attribute values: the normal form common to all engines, and DynamoDB's limits and sizes.

The rules are DynamoDB's (developer guide, "Supported data types and naming rules", "Item sizes and formats" and "Service
quotas"). They are checked here, before a request reaches an engine, so that every engine refuses the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Context, Decimal, Inexact
from enum import StrEnum
from typing import TypeAlias

Value: TypeAlias = (
    "bool | int | Decimal | str | bytes | Sequence[Value] | Mapping[str, Value]"
    " | AbstractSet[str] | AbstractSet[bytes] | AbstractSet[int | Decimal] | None"
)
Item: TypeAlias = Mapping[str, Value]

MAX_ITEM_BYTES = 400 * 1024
MAX_PARTITION_KEY_BYTES = 2048
MAX_SORT_KEY_BYTES = 1024
MAX_NAME_BYTES = 65_535
MAX_DIGITS = 38
MAX_LEVELS = 32
MIN_EXPONENT, MAX_EXPONENT = -130, 125

# Rounding would silently change a number. DynamoDB refuses numbers with more than 38 digits, and so does this context.
_EXACT = Context(prec=MAX_DIGITS, traps=[Inexact])


class ValueKind(StrEnum):
    """DynamoDB's type descriptors."""

    STRING = "S"
    NUMBER = "N"
    BINARY = "B"
    BOOLEAN = "BOOL"
    NULL = "NULL"
    LIST = "L"
    MAP = "M"
    STRINGS = "SS"
    NUMBERS = "NS"
    BINARIES = "BS"


class Unstorable(ValueError):
    """A value, key or item outside DynamoDB's limits; nothing was changed. `path` locates it (`limits.agents`, `parts[2]`)."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def normal(value: object, path: str, level: int = 2) -> Value:
    """Return a copy of `value` in normal form, the form every engine returns.

    Normal form consists of None, bool, int, Decimal, str, bytes, list, dict and frozenset. DynamoDB cannot distinguish 1 from
    Decimal("1.0"): integers become int, other numbers a Decimal without trailing zeros. A tuple becomes a list. `level` is the
    nesting level of at most 32; the item itself is level 1. Raises TypeError for an unsupported type (a float, a datetime) and
    `Unstorable` for a value out of bounds.
    """
    if isinstance(value, str):
        return _text(value, path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, Decimal)):
        return normal_number(value, path)
    if isinstance(value, bytes):
        return bytes(value)
    # Check the plain types first: isinstance with Set or Mapping is many times slower.
    if not isinstance(value, (list, dict)) and isinstance(value, AbstractSet):
        return _normal_set(value, path)
    if not isinstance(value, (list, tuple, dict, Mapping)):
        hint = "use Decimal" if isinstance(value, float) else "use text, a number, bytes, a list, a map or a set"
        raise TypeError(f"{path}: {type(value).__name__} is not a type of the tables; {hint}")
    if level > MAX_LEVELS:
        raise Unstorable(path, f"nested deeper than {MAX_LEVELS} levels")
    if isinstance(value, (list, tuple)):
        return [normal(member, f"{path}[{index}]", level + 1) for index, member in enumerate(value)]
    return {check_name(name, path): normal(member, f"{path}.{name}", level + 1) for name, member in value.items()}


def normal_item(item: Item) -> dict[str, Value]:
    """Return an item in normal form. Raises the errors of `normal`, and `Unstorable` above 400 KB."""
    whole = {check_name(name, "item"): normal(value, name) for name, value in item.items()}
    check_item_size(whole)
    return whole


def normal_number(number: int | Decimal, path: str) -> int | Decimal:
    """Return a number in normal form. Raises `Unstorable` above 38 significant digits or outside ±1E-130 to ±9.99…E+125."""
    if type(number) is int and -(10**MAX_DIGITS) < number < 10**MAX_DIGITS:
        return number
    # Converting a huge int to decimal digits is slow; 10**126 has 419 bits.
    if isinstance(number, int) and abs(number).bit_length() > 419:
        raise Unstorable(path, "a number out of range: it has more than 126 digits")
    exact = Decimal(number)
    if not exact.is_finite():
        raise Unstorable(path, "not a finite number")
    if exact and not MIN_EXPONENT <= exact.adjusted() <= MAX_EXPONENT:
        raise Unstorable(path, f"a number out of range: its exponent is {exact.adjusted()}")
    try:
        exact = exact.normalize(_EXACT)
    except Inexact:
        raise Unstorable(path, f"a number of more than {MAX_DIGITS} significant digits") from None
    exponent = exact.as_tuple().exponent
    return int(exact) if isinstance(exponent, int) and exponent >= 0 else exact


def added(number: int | Decimal, more: int | Decimal, path: str) -> int | Decimal:
    """Return the exact sum in normal form. Raises `Unstorable` if it does not fit."""
    if isinstance(number, int) and isinstance(more, int):
        return normal_number(number + more, path)
    try:
        return normal_number(_EXACT.add(Decimal(number), Decimal(more)), path)
    except Inexact:
        raise Unstorable(path, f"the sum has more than {MAX_DIGITS} significant digits") from None


def kind_of(value: Value) -> ValueKind:
    """Return the type of a value in normal form."""
    simple = _KINDS.get(type(value))
    if simple is not None:
        return simple
    assert isinstance(value, frozenset), "only a value in normal form has a kind"
    return _SET_KINDS[kind_of(next(iter(value)))]


_KINDS: dict[type, ValueKind] = {
    str: ValueKind.STRING,
    int: ValueKind.NUMBER,
    Decimal: ValueKind.NUMBER,
    bytes: ValueKind.BINARY,
    bool: ValueKind.BOOLEAN,
    type(None): ValueKind.NULL,
    list: ValueKind.LIST,
    dict: ValueKind.MAP,
}
_SET_KINDS = {ValueKind.STRING: ValueKind.STRINGS, ValueKind.NUMBER: ValueKind.NUMBERS, ValueKind.BINARY: ValueKind.BINARIES}


def size_of(value: Value) -> int:
    """Return the bytes DynamoDB counts for a value in normal form, without its name.

    The size of a number is an upper estimate.
    """
    if isinstance(value, str):
        return _bytes_of(value)
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, (int, Decimal)):
        return len(str(value)) // 2 + 2
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return 3 + sum([1 + _bytes_of(name) + size_of(member) for name, member in value.items()])
    members = [size_of(member) for member in value]
    return sum(members) if isinstance(value, frozenset) else 3 + len(members) + sum(members)


def check_item_size(item: Item) -> None:
    """Raise `Unstorable` for an item above 400 KB."""
    size = sum([_bytes_of(name) + size_of(value) for name, value in item.items()])
    if size > MAX_ITEM_BYTES:
        raise Unstorable("item", f"{size} bytes, and an item holds at most {MAX_ITEM_BYTES}")


def check_key(text: object, name: str, most_bytes: int) -> str:
    """Return a key attribute's text of 1 to `most_bytes` bytes. Raises TypeError or `Unstorable`."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: a key is text, not {type(text).__name__}")
    size = _bytes_of(_text(text, name))
    if not 1 <= size <= most_bytes:
        raise Unstorable(name, f"a key of {size} bytes; it must have 1 to {most_bytes}")
    return text


def check_name(name: object, path: str) -> str:
    """Return the name of an attribute or map entry as a plain str. Raises TypeError or `Unstorable`."""
    if type(name) is str and name.isascii() and 1 <= len(name) <= MAX_NAME_BYTES:
        return name
    if not isinstance(name, str):
        raise TypeError(f"{path}: the name of an attribute or entry is text, not {type(name).__name__}")
    if not 1 <= _bytes_of(_text(name, path)) <= MAX_NAME_BYTES:
        raise Unstorable(path, f"the name of an attribute or entry has 1 to {MAX_NAME_BYTES} bytes")
    return _text(name, path)


def _text(text: str, path: str) -> str:
    if text.isascii():
        return text if type(text) is str else str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unstorable(path, "text with half a surrogate pair, which UTF-8 cannot carry") from None
    return text if type(text) is str else str.__str__(text)


def _normal_set(members: AbstractSet[object], path: str) -> frozenset[str] | frozenset[bytes] | frozenset[int | Decimal]:
    if not members:
        raise Unstorable(path, "an empty set, which DynamoDB does not store; leave the attribute out")
    strings = frozenset(_text(member, path) for member in members if isinstance(member, str))
    binaries = frozenset(bytes(member) for member in members if isinstance(member, bytes))
    numbers = frozenset(
        normal_number(member, path) for member in members if isinstance(member, int | Decimal) and not isinstance(member, bool)
    )
    for alike in (strings, binaries, numbers):
        if len(alike) == len(members):
            return alike
    raise TypeError(f"{path}: a set holds only text, only numbers or only bytes")


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
