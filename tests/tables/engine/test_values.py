from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given

from artcafe.tables.engine.values import MAX_ITEM_BYTES, Unstorable, Value, added, kind_of, normal, normal_item, size_of
from tests.tables.strategies import kind, values, with_types

VAST = 10**5000


@given(values())
def test_normal_form_is_equal_and_idempotent(value: Value) -> None:
    once = normal(value, "a")
    assert with_types(once) == with_types(value)
    assert with_types(normal(once, "a"), exact=True) == with_types(once, exact=True)


@given(values())
def test_every_value_has_its_type(value: Value) -> None:
    assert kind_of(normal(value, "a")) is kind(value)


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        (Decimal(1), "1"),
        (Decimal("1.0"), "1"),
        (Decimal("-0"), "0"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1.50"), "Decimal('1.5')"),
        (Decimal("0.000"), "0"),
        (10**125, str(10**125)),
        (Decimal("1E-130"), "Decimal('1E-130')"),
        (Decimal("9" * 38 + "E87"), "9" * 38 + "0" * 87),
    ],
    ids=str,
)
def test_integers_become_int_and_others_decimals_without_trailing_zeros(number: int | Decimal, kept: str) -> None:
    assert repr(normal(number, "a")) == kept


@pytest.mark.parametrize(
    "number",
    [
        10**38 + 1,
        10**126,
        -VAST,
        Decimal("1E-131"),
        Decimal("1E999999999"),
        Decimal("1." + "1" * 38),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
    ],
    ids=["39 digits", "127 digits", "vast", "small", "huge", "39 fractional digits", "nan", "signalling nan", "infinite"],
)
def test_number_outside_dynamodbs_range_is_refused(number: int | Decimal) -> None:
    with pytest.raises(Unstorable, match=r"^limits\.agents: "):
        normal({"agents": number}, "limits")


def test_sum_is_exact_or_refused() -> None:
    assert repr(added(Decimal("0.1"), Decimal("0.9"), "a")) == "1"
    assert str(added(10**36, Decimal("0.1"), "a")) == f"1{'0' * 36}.1"
    with pytest.raises(Unstorable, match="38 significant digits"):
        added(10**50, 1, "a")
    with pytest.raises(Unstorable, match="38 significant digits"):
        added(10**50, Decimal("0.5"), "a")
    with pytest.raises(Unstorable, match="out of range"):
        added(9 * 10**125, 9 * 10**125, "a")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1.5, "limits"),
        ({"rates": [1, 2.5]}, r"limits\.rates\[1\]"),
        ([{"at": datetime(2026, 1, 1, tzinfo=UTC)}], r"limits\[0\]\.at"),
        ({1: "one"}, "limits"),
        (frozenset({1, "one"}), "limits"),
        (frozenset({True}), "limits"),
        (frozenset({frozenset({1})}), "limits"),
        (bytearray(b"x"), "limits"),
        (object(), "limits"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_unsupported_type_is_refused_with_its_path(value: object, path: str) -> None:
    with pytest.raises(TypeError, match=f"^{path}: "):
        normal(value, "limits")


@pytest.mark.parametrize(
    "value", [frozenset(), "\ud800", {"": 1}, {"a\udfff": 1}, {"n" * 65_536: 1}], ids=lambda value: repr(value)[:12]
)
def test_values_refused_by_dynamodb_are_refused(value: Value) -> None:
    with pytest.raises(Unstorable):
        normal(value, "a")


@pytest.mark.parametrize("value", ["", b"", [], {}, frozenset({""}), None], ids=repr)
def test_empty_values_except_sets_are_stored(value: Value) -> None:
    assert normal(value, "a") == value


def test_item_is_nested_at_most_32_levels_deep() -> None:
    deep: Value = "bottom"
    for _ in range(31):
        deep = [deep]
    normal_item({"a": deep})
    with pytest.raises(Unstorable, match="32 levels"):
        normal_item({"a": [deep]})


def test_normal_form_shares_no_object_with_its_source() -> None:
    inner: list[Value] = [1]
    made = normal({"inner": inner}, "a")
    inner.append(2)
    assert made == {"inner": [1]}


@pytest.mark.parametrize(
    ("value", "size"),
    [("é", 2), (b"abc", 3), (None, 1), (True, 1), ([], 3), ({}, 3), (["a"], 5), ({"é": "a"}, 7), (frozenset({"ab", "c"}), 3)],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_sizes_match_dynamodbs_documentation(value: Value, size: int) -> None:
    assert size_of(value) == size


@pytest.mark.parametrize("number", [0, -1, 12, 123, 10**38 - 1, -(10**38) + 1, Decimal("-0.125")])
def test_number_size_is_never_below_the_documented_one(number: int | Decimal) -> None:
    digits = len(str(number).strip("-").replace(".", ""))
    assert size_of(number) >= (digits + 1) // 2 + 1


def test_item_holds_at_most_400_kilobytes() -> None:
    normal_item({"a": "x" * (MAX_ITEM_BYTES - 1)})
    with pytest.raises(Unstorable, match="409601 bytes"):
        normal_item({"a": "x" * MAX_ITEM_BYTES})
    with pytest.raises(Unstorable):
        normal_item({"a": "é" * (MAX_ITEM_BYTES // 2)})
