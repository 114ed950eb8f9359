from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from artcafe.wire.envelopes import envelope
from artcafe.wire.frames import MAX_HEADER_CHARS, Publish
from artcafe.wire.trace_context import (
    TracedMessage,
    TraceParent,
    format_traceparent,
    is_tracestate,
    parent_of,
    parse_traceparent,
    traced_message,
    without_trace,
)

PARENT = TraceParent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 1)
TEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

HOSTILE = [
    "",
    TEXT[:-1],
    TEXT + "0",
    TEXT + "-00",
    " " + TEXT[:-1],
    TEXT[:-1] + "\n",
    TEXT.upper(),
    "ff" + TEXT[2:],
    TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
    TEXT.replace("00f067aa0ba902b7", "0" * 16),
    TEXT.replace("4", "٤"),
    "00-" + "a" * 10_000,
    "${jndi:ldap://example.com/a}".ljust(55),
]


def stored(headers: dict[str, str], data: bytes = b"1") -> bytes:
    return envelope(Publish("chn_a", Raw(data), headers=headers), message_id="msg_1", sender="agt_1", time="2026-11-28T10:00:00Z")


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_traceparent_reads_back_and_opentelemetry_reads_the_same(trace_id: int, span_id: int, flags: int) -> None:
    parent = TraceParent(trace_id, span_id, flags)
    text = format_traceparent(parent)
    assert parse_traceparent(text) == parent
    theirs = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text})).get_span_context()
    assert [theirs.trace_id, theirs.span_id, theirs.trace_flags] == list(parent)
    assert parent.is_sampled is theirs.trace_flags.sampled


@pytest.mark.parametrize("text", HOSTILE)
def test_invalid_traceparent_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None
    assert parent_of({"traceparent": text}) is None
    assert traced_message(stored({"traceparent": text})) is None


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
@example(TEXT)
def test_nothing_is_accepted_that_opentelemetry_refuses(text: str) -> None:
    theirs = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text})).get_span_context()
    assert parse_traceparent(text) in {None, (theirs.trace_id, theirs.span_id, theirs.trace_flags)}


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("congo=t61rcWkgMzE", True),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        ("tenant@vendor=1 , a/b*c-d=x,, ", True),
        (",".join(f"k{n}=1" for n in range(32)), True),
        (",".join(f"k{n}=1" for n in range(33)), False),
        ("a=1,a=2", False),
        ("a=1,b", False),
        ("A=1", False),
        ("a=1\n", False),
        ("a=é", False),
        ("", False),
        (" , ", False),
        ("a=" + "x" * 257, False),
        (",".join(f"k{n}={'x' * 200}" for n in range(6)), False),
    ],
)
def test_tracestate_must_be_a_short_list_of_different_keys(text: str, is_valid: bool) -> None:
    assert is_tracestate(text) is is_valid


@given(st.text(max_size=MAX_HEADER_CHARS) | st.from_regex(r"[a-z]{1,3}=[!-~]{1,5}(,[a-z]{1,3}=[!-~]{1,5})*", fullmatch=True))
def test_accepted_tracestate_is_kept_whole_by_opentelemetry(text: str) -> None:
    if is_tracestate(text):
        members = [member.strip(" \t") for member in text.split(",") if member.strip(" \t")]
        assert trace.TraceState.from_header([text]).to_header() == ",".join(members)


def test_traced_message_is_found_in_its_headers_alone() -> None:
    assert traced_message(stored({"traceparent": TEXT})) == TracedMessage("msg_1", PARENT)
    assert traced_message(stored({}, b'{"traceparent":"%b"}' % TEXT.encode())) is None
    assert traced_message(stored({"x": f'"traceparent":"{TEXT}"'})) is None
    assert traced_message(stored({})) is None


@given(st.dictionaries(st.text(max_size=12) | st.just("traceparent"), st.text(max_size=60) | st.just(TEXT), max_size=4))
@example({"traceparent": TEXT, "tracestate": TEXT})
def test_any_headers_are_read_as_the_server_reads_them_at_the_publish(headers: dict[str, str]) -> None:
    parent = parent_of(headers)
    assert traced_message(stored(headers)) == (None if parent is None else TracedMessage("msg_1", parent))


@pytest.mark.parametrize(
    "text", [b'{"traceparent":"', b'["traceparent":""]', b'{"headers":{"traceparent":""}}', b'{"message_id":1,"traceparent":""}']
)
def test_bytes_that_are_no_envelope_are_not_traced(text: bytes) -> None:
    assert traced_message(text) is None


def test_message_of_a_publisher_that_does_not_record_is_not_traced() -> None:
    assert traced_message(stored({"traceparent": TEXT[:-1] + "0"})) is None


def test_trace_headers_are_left_out_of_a_comparison() -> None:
    assert without_trace({"traceparent": TEXT, "tracestate": "a=1", "x": "y"}) == {"x": "y"}
