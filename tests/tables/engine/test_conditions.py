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
def test_only_text_numbers_and_bytes_are_compared_by_order(order: Callable[[str, Value], Condition], value: Value) -> None:
    with pytest.raises(TypeError, match=r"^used: "):
        order("used", value)


def test_a_condition_keeps_its_value_in_normal_form_and_refuses_what_cannot_be_stored() -> None:
    assert repr(Equals("limits", {"rate": (1,)}).value) == "{'rate': [1]}"
    with pytest.raises(TypeError, match=r"^limits\.rate: float"):
        Equals(("limits", "rate"), 0.5)  # type: ignore[arg-type]  # a float is what is refused
    with pytest.raises(Unstorable):
        Equals("capabilities", frozenset[str]())


def test_bytes_are_not_searched_for() -> None:
    with pytest.raises(TypeError, match=r"^raw: bytes"):
        Contains("raw", b"a")


@pytest.mark.parametrize("several", [And, Or])
def test_several_conditions_are_at_least_one(several: Callable[..., Condition]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        several()


def test_the_paths_of_a_condition_are_those_of_its_tests() -> None:
    condition = And(Exists("a"), Or(Not(Absent(("b", "c"))), Equals("d", 1)), OfKind("a", ValueKind.MAP))
    assert paths_in(condition) == ["a", ("b", "c"), "d", "a"]
    assert paths_in(None) == []


def test_a_condition_has_room_for_25_tests() -> None:
    check_condition(And(*[Exists("a")] * MAX_TESTS))
    with pytest.raises(ValueError, match="26 tests"):
        check_condition(Or(Absent("b"), And(*[Exists("a")] * MAX_TESTS)))


@pytest.mark.parametrize("path", ["", ("channels", ""), ("", "chn_1"), "\ud800"], ids=repr)
def test_a_path_that_cannot_be_is_refused(path: str | tuple[str, str]) -> None:
    with pytest.raises(Unstorable):
        check_condition(Exists(path))
