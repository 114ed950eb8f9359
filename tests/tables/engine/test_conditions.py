from __future__ import annotations

from collections.abc import Callable

import pytest

from artcafe.tables.engine.conditions import (
    MAX_TESTS,
    Absent,
    And,
    Condition,
    Contains,
    Equals,
    Exists,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Not,
    OfKind,
    Or,
    check_condition,
    paths_in,
)
from artcafe.tables.engine.values import Unstorable, Value, ValueKind

ORDERS: list[Callable[[str, Value], Condition]] = [Less, LessOrEqual, Greater, GreaterOrEqual]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("value", [None, True, [1], {"a": 1}, frozenset({1})], ids=repr)
def test_only_text_numbers_and_bytes_have_an_order(order: Callable[[str, Value], Condition], value: Value) -> None:
    with pytest.raises(TypeError, match=r"^used: "):
        order("used", value)


def test_condition_normalises_its_value_and_refuses_unstorable_ones() -> None:
    assert repr(Equals("limits", {"rate": (1,)}).value) == "{'rate': [1]}"
    with pytest.raises(TypeError, match=r"^limits\.rate: float"):
        Equals(("limits", "rate"), 0.5)  # type: ignore[arg-type]  # a float is what is refused
    with pytest.raises(Unstorable):
        Equals("capabilities", frozenset[str]())


def test_searching_for_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^raw: bytes"):
        Contains("raw", b"a")


@pytest.mark.parametrize("several", [And, Or])
def test_and_and_or_need_at_least_one_condition(several: Callable[..., Condition]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        several()


def test_paths_of_a_condition_are_the_paths_of_its_tests() -> None:
    condition = And(Exists("a"), Or(Not(Absent(("b", "c"))), Equals("d", 1)), OfKind("a", ValueKind.MAP))
    assert paths_in(condition) == ["a", ("b", "c"), "d", "a"]
    assert paths_in(None) == []


def test_condition_has_at_most_25_tests() -> None:
    check_condition(And(*[Exists("a")] * MAX_TESTS))
    with pytest.raises(ValueError, match="26 tests"):
        check_condition(Or(Absent("b"), And(*[Exists("a")] * MAX_TESTS)))


@pytest.mark.parametrize("path", ["", ("channels", ""), ("", "chn_1"), "\ud800"], ids=repr)
def test_invalid_path_is_refused(path: str | tuple[str, str]) -> None:
    with pytest.raises(Unstorable):
        check_condition(Exists(path))
