from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.wire.payloads import problem_of

BEYOND = [
    "1e309",
    "-1E+999",
    "1e0000400",
    "1.8e308",
    "179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887"
    "91094655509991e200",
    "0.1e310",
    "1e99999999999999999999",
    "9" * 309,
    "-" + "9" * 400,
    "1" * 5000,
    "1" * 250 + "e99",
    "1" * 250 + ".5E+99",
    "1" * 350 + ".5",
]
WITHIN = [
    "0",
    "-0.0",
    "1e308",
    "1.7976931348623157e308",
    "1" * 309,
    "1" * 308,
    "0." + "1" * 5000,
    "0." + "9" * 400 + "e100",
    "1" + "0" * 5000 + "e-4990",
    "0." + "0" * 400 + "1e500",
    "1e-999",
    "0e999",
    "123456789012345678901234567890",
    "1" * 250,
]
IN_STRINGS = ['"1e999"', json.dumps("9" * 5000), r'"\"1e999, \\"', '{"1e999":"' + "7" * 400 + '"}', '"0123e567"', '"\\\\"']


def is_unreadable(text: bytes) -> bool:
    return "has a number" in (problem_of(text) or "")


@pytest.mark.parametrize("number", BEYOND)
def test_number_beyond_every_double_is_found_at_any_place(number: str) -> None:
    for text in (number, f"[1,{number}]", f'{{"a": {number} }}', f'["x",{{"b":[{number}]}},"1"]', f'["{"1" * 400}",{number}]'):
        assert is_unreadable(text.encode()), text[:40]


@pytest.mark.parametrize("text", WITHIN + IN_STRINGS)
def test_number_within_the_doubles_and_digits_in_a_string_are_accepted(text: str) -> None:
    for whole in (text, f"[{text},{text}]", f'{{"a":[{text}, "1e999", "{"8" * 400}"]}}'):
        assert not is_unreadable(whole.encode()), whole[:40]


def numbers_in(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(each)
    elif isinstance(value, float):
        yield value


DIGITS = st.text("0123456789", min_size=1, max_size=6) | st.integers(190, 420).map(lambda size: "7" * size)
NUMBERS = st.builds(
    lambda sign, whole, fraction, exponent: sign + (whole.lstrip("0") or "0") + fraction + exponent,
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.map(lambda digits: "." + digits),
    st.just("")
    | st.builds(lambda e, sign, digits: e + sign + digits, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), DIGITS),
)
TEXTS = st.recursive(
    NUMBERS | st.text('"\\e+-.0123456789{}[]', max_size=30).map(json.dumps) | st.sampled_from(["true", "null"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]")
        | st.dictionaries(st.text('e019"\\', max_size=8), inner, max_size=4).map(
            lambda entries: "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in entries.items()) + "}"
        )
    ),
    max_leaves=8,
)


@given(TEXTS)
def test_result_equals_that_of_pythons_json(text: str) -> None:
    found = numbers_in(json.loads(text, parse_int=float))
    assert is_unreadable(text.encode()) is any(math.isinf(number) for number in found)


@given(TEXTS)
def test_accepted_data_is_readable_by_msgspec_and_json(text: str) -> None:
    if not is_unreadable(text.encode()):
        msgspec.json.decode(text)
        json.loads(text)
    assert sys.float_info.max < 1.8e308


def test_data_nested_too_deeply_has_that_problem() -> None:
    assert problem_of(b"[" * 32 + b"]" * 32) is None
    assert problem_of(b'{"a":' * 33 + b"1" + b"}" * 33) == "is nested deeper than 32"
    assert problem_of(b"[" * 33 + b"1e999" + b"]" * 33) == "is nested deeper than 32"
    assert problem_of(b"[" + b'"[[[[",' * 100 + b"1]") is None
