"""Hypothesis strategies for the values and keys of an item."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from artcafe.tables.engine.values import Value, ValueKind


def texts(most: int = 20, least: int = 0) -> st.SearchStrategy[str]:
    """Any text encodable in UTF-8, including control characters and supplementary planes."""
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=most)


def names() -> st.SearchStrategy[str]:
    """Any attribute or entry name except DynamoDB's type descriptors: the emulator would parse `{"M": …}` as a value."""
    return texts(least=1).filter(lambda name: name not in set(ValueKind))


def exact_decimals() -> st.SearchStrategy[Decimal]:
    """Numbers in DynamoDB's range: at most 38 digits, from 1E-130 to 9.9…E+125 on either side of zero."""
    digits = st.integers(-(10**38) + 1, 10**38 - 1)
    return st.builds(lambda digits, power: Decimal(f"{digits}E{power}"), digits, st.integers(-130, 125 - 38))


def numbers() -> st.SearchStrategy[int | Decimal]:
    return st.integers(-(10**38) + 1, 10**38 - 1) | exact_decimals() | st.sampled_from([0, 1, -1, 10**125, Decimal("1.50")])


def sets() -> st.SearchStrategy[Value]:
    members: st.SearchStrategy[Value] = (
        st.frozensets(texts(), min_size=1, max_size=4)
        | st.frozensets(numbers(), min_size=1, max_size=4)
        | st.frozensets(st.binary(max_size=8), min_size=1, max_size=4)
    )
    return members


def values() -> st.SearchStrategy[Value]:
    single: st.SearchStrategy[Value] = st.none() | st.booleans() | numbers() | texts() | st.binary(max_size=20)
    return st.recursive(
        single | sets(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names(), inner, max_size=4),
        max_leaves=8,
    )


def kind(value: Value) -> ValueKind:
    """Return the type of a value. Duplicated here, so that an error in the code cannot hide itself."""
    match value:
        case None:
            return ValueKind.NULL
        case bool():
            return ValueKind.BOOLEAN
        case int() | Decimal():
            return ValueKind.NUMBER
        case str():
            return ValueKind.STRING
        case bytes():
            return ValueKind.BINARY
        case list():
            return ValueKind.LIST
        case dict():
            return ValueKind.MAP
    assert isinstance(value, frozenset)
    return {ValueKind.STRING: ValueKind.STRINGS, ValueKind.NUMBER: ValueKind.NUMBERS, ValueKind.BINARY: ValueKind.BINARIES}[
        kind(next(iter(value)))
    ]


def with_types(value: Value, exact: bool = False) -> object:
    """Return the value paired with its type at every level, so that == distinguishes True from 1 and text from bytes.

    Equal numbers are equal in any notation, unless `exact`: then 1 and Decimal("1") differ.
    """
    if isinstance(value, list):
        return (ValueKind.LIST, tuple(with_types(member, exact) for member in value))
    if isinstance(value, dict):
        return (ValueKind.MAP, frozenset((name, with_types(member, exact)) for name, member in value.items()))
    if isinstance(value, frozenset):
        return (kind(value), frozenset(with_types(member, exact) for member in value))
    return (kind(value), repr(value) if exact else value)
