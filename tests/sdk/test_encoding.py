"""Data and commands that the SDK refuses before sending, and decoding of JSON beyond Python's types."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import Invalid, TooLarge
from artcafe.sdk.encoding import command_text, data_text, value_of
from artcafe.sdk.records import KeptMessage
from artcafe.wire import frames

FIVE: Any = 5
NOTHING: Any = None
A_WORD: Any = "newest"
HALF: Any = "\ud800"
OBJECT: Any = object()
"""Arguments of the wrong type, which a program without a type checker gives."""


class Part(msgspec.Struct):
    value: object


@dataclasses.dataclass
class Record:
    value: object


def nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


def circular() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("data", "kind", "problem"),
    [
        (math.nan, Invalid, "data is nan"),
        ({"a": [1, -math.inf]}, Invalid, r"data\['a'\]\[1\] is -inf"),
        ({math.inf: 1}, Invalid, r"data \(a key\) is inf"),
        ((1, {2}), TypeError, r"data\[1\] is a set"),
        ({"a": frozenset()}, TypeError, r"data\['a'\] is a frozenset"),
        ([b"x"], TypeError, r"data\[0\] is bytes"),
        (bytearray(b"x"), TypeError, "data is bytearray"),
        (Part(math.nan), Invalid, "data.value is nan"),
        (Record({1}), TypeError, "data.value is a set"),
        ("\ud800", Invalid, r"half of a surrogate pair"),
        ({"\udfff": 1}, Invalid, r"half of a surrogate pair"),
        (object(), TypeError, "data: Encoding objects of type object"),
        ({None: 1}, TypeError, "data: Only dicts with str-like"),
        (nested(33), Invalid, "nested deeper than 32"),
        (nested(5000), Invalid, "nested"),
        (circular(), Invalid, "contains itself"),
        (msgspec.Raw(b'{"id":2}}'), Invalid, "is not JSON"),
        (msgspec.Raw(b'"\xff"'), Invalid, "is not JSON"),
        (msgspec.Raw(b"[" * 33 + b"]" * 33), Invalid, "nested deeper than 32"),
    ],
)
def test_data_that_would_arrive_changed_is_refused(data: object, kind: type[Exception], problem: str) -> None:
    with pytest.raises(kind, match=problem):
        data_text(data)


@pytest.mark.parametrize(
    "data",
    [
        {"a": (1, 2)},
        {1: "one"},
        datetime(2026, 11, 28, tzinfo=UTC),
        Part([None, True, 1.5, "x"]),
        Record({"deep": [1]}),
        2**70,
        pytest.param(10**400, id="400 digits"),
        nested(32),
        -0.0,
    ],
)
def test_data_with_a_common_json_form_is_accepted(data: object) -> None:
    assert bytes(data_text(data)) == msgspec.json.encode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_every_json_value_arrives_unchanged(data: object) -> None:
    assert value_of(data_text(data)) == data


@pytest.mark.parametrize("text", [b"1e400", b'{"a":[-1E+999]}', b"9" * 5000, b"9" * 400])
def test_numbers_beyond_a_float_are_sent_unchanged_and_decoded_as_by_json_loads(text: bytes) -> None:
    assert bytes(data_text(msgspec.Raw(text))) == text
    expected = math.inf if len(text) == 5000 else json.loads(text)
    assert value_of(msgspec.Raw(text)) == expected
    kept = KeptMessage("chn", 1, "msg", "agt", "2026-11-28T00:00:00Z", {}, msgspec.Raw(text))
    assert kept.data == expected


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        ("publish", frames.Publish("chn", msgspec.Raw(b"1"), key=FIVE), "key: Expected `str"),
        ("publish", frames.Publish("chn\ud800", msgspec.Raw(b"1")), "channel: has '\\\\ud800'"),
        ("publish", frames.Publish("chn", msgspec.Raw(b"1"), headers={"a": "\udfff"}), "headers: has '\\\\udfff'"),
        ("publish", frames.Publish("chn", msgspec.Raw(b"1"), headers={"a": FIVE}), r"headers\[...\]: Expected `str"),
        ("status", frames.Status("\ud800"), "status: has '\\\\ud800'"),
        ("status", frames.Status(FIVE), "status: Expected `str"),
        ("subscribe", frames.Subscribe("chn", 0), "start: "),
        ("subscribe", frames.Subscribe("chn", A_WORD), "start: "),
        ("subscribe", frames.Subscribe("chn", HALF), "start: has "),
        ("subscribe", frames.Subscribe(NOTHING), "channel: Expected `str"),
        ("subscribe", frames.Subscribe("chn", max_unacked=0), "max_unacked: "),
        ("history", frames.History("chn", after=-1), "after: "),
        ("history", frames.History("chn", limit=201), "limit: "),
    ],
)
def test_invalid_command_names_the_argument(kind: str, body: frames.Body, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        command_text(kind, body, frames.MAX_FRAME_BYTES)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("status", frames.Status("x" * frames.MAX_FRAME_BYTES)),
        ("subscribe", frames.Subscribe("x" * frames.MAX_FRAME_BYTES)),
        ("history", frames.History("x" * frames.MAX_FRAME_BYTES)),
        ("publish", frames.Publish("chn", msgspec.Raw(b"1"), reply_to="x" * frames.MAX_FRAME_BYTES)),
    ],
)
def test_command_longer_than_a_frame_raises_too_large(kind: str, body: frames.Body) -> None:
    with pytest.raises(TooLarge):
        command_text(kind, body, frames.MAX_FRAME_BYTES)


def test_value_unknown_to_json_raises_type_error() -> None:
    with pytest.raises(TypeError):
        command_text("history", frames.History("chn", after=OBJECT), frames.MAX_FRAME_BYTES)
