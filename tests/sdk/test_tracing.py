"""Spans and trace context of the SDK, with OpenTelemetry's SDK as the program configures it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, TraceState

from artcafe.errors import Invalid
from artcafe.sdk import tracing
from artcafe.sdk.messages import Message
from artcafe.wire import replies
from artcafe.wire.frames import MAX_HEADER_CHARS, MAX_HEADERS

TEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

WITHOUT_A_PROVIDER = """
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from artcafe.sdk import tracing
assert tracing.IS_INSTALLED
with tracing.start_publish("chn_a", {"x": "y"}) as span:
    assert span.add_context({"x": "y"}, lambda _: True) == {"x": "y"}
given = {"traceparent": "%s"}
with trace.use_span(trace.get_current_span(TraceContextTextMapPropagator().extract(given))):
    with tracing.start_publish("chn_a", None) as span:
        assert span.add_context(None, lambda _: True) == given
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Record the SDK's spans. The global provider can be set once in a process, so this test gets its own."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


def message(headers: Mapping[str, str] = {}, seq: int | None = 1) -> Message:
    pushed = replies.Message(
        channel="chn_a",
        seq=seq,
        prev=None,
        message_id="msg_1",
        sender="agt_1",
        time="",
        headers=headers,
        data=msgspec.Raw(b'"secret"'),
    )
    return Message(pushed, 0, 0, lambda _message, _cumulative: None)


def added(headers: Mapping[str, str] | None, *, state: TraceState | None = None, fits: bool = True) -> Mapping[str, str] | None:
    """Return the headers of a publish within a span of this trace state."""
    parent = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1), trace_state=state)
    current = trace.use_span(trace.NonRecordingSpan(parent))
    with current, tracing.start_publish("chn_a", headers) as span:
        return span.add_context(headers, lambda _: fits)


def one(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


# --- publishing ----------------------------------------------------------------------------------------------------------


def test_publish_is_a_producers_child_whose_context_is_in_the_headers(spans: InMemorySpanExporter) -> None:
    headers = added({"x": "y"}, state=TraceState([("congo", "1")]))
    span = one(spans, "publish chn_a")
    assert headers == {"x": "y", "traceparent": f"00-{1:032x}-{ids(span)[1]:016x}-01", "tracestate": "congo=1"}
    assert (span.kind, span.parent and span.parent.span_id) == (SpanKind.PRODUCER, 2)
    assert attributes(span) == {
        "messaging.system": "artcafe",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "chn_a",
    }


@pytest.mark.parametrize("count", [MAX_HEADERS - 2, MAX_HEADERS - 1, MAX_HEADERS])
def test_headers_at_their_limit_stay_valid(spans: InMemorySpanExporter, count: int) -> None:
    given = {f"x{number}": "" for number in range(count)}
    headers = added(given, state=TraceState([("congo", "1")]))
    assert headers is not None
    assert set(headers) - set(given) == set(["traceparent", "tracestate"][: MAX_HEADERS - count])


def test_trace_state_longer_than_a_header_is_left_out(spans: InMemorySpanExporter) -> None:
    long = TraceState([(f"k{number}", "x" * 250) for number in range(5)])
    assert len(long.to_header()) > MAX_HEADER_CHARS
    assert list(added({}, state=long) or ()) == ["traceparent"]


def test_message_without_room_for_a_context_is_published_without_one(spans: InMemorySpanExporter) -> None:
    assert added({"x": "y"}, fits=False) == {"x": "y"}
    assert added(None, fits=False) is None


@pytest.mark.parametrize("name", ["traceparent", "tracestate"])
def test_context_set_by_the_program_is_unchanged(spans: InMemorySpanExporter, name: str) -> None:
    given = {name: TEXT}
    assert added(given) is given
    span = one(spans, "publish chn_a")
    assert (span.kind, len(span.links)) == (SpanKind.CLIENT, int(name == "traceparent"))


def test_failed_publish_records_its_error_code(spans: InMemorySpanExporter) -> None:
    with pytest.raises(Invalid), tracing.start_publish("chn_a", None):
        raise Invalid("data", "has a secret")
    span = one(spans, "publish chn_a")
    assert (span.status.status_code, attributes(span)["error.type"]) == (StatusCode.ERROR, "invalid")
    assert "secret" not in span.to_json()


def test_headers_of_a_wrong_type_get_no_span(spans: InMemorySpanExporter) -> None:
    wrong: Any = [("traceparent", TEXT)]
    with tracing.start_publish("chn_a", wrong) as span:
        assert span.add_context(wrong, lambda _: True) is wrong
    with tracing.start_publish("chn_a", {"traceparent": 5}):  # type: ignore[dict-item]  # that is the point
        pass
    assert [span.links for span in spans.get_finished_spans()] == [()]


def test_without_a_provider_the_current_context_is_passed_on() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_A_PROVIDER % TEXT], check=True, timeout=30)


# --- receiving -----------------------------------------------------------------------------------------------------------


def test_process_links_to_the_publisher_and_is_the_parent_of_the_ack(spans: InMemorySpanExporter) -> None:
    received = message({"traceparent": TEXT, "tracestate": "congo=1"})

    async def handle() -> None:
        with received.processing():
            await received.ack()
            await received.ack()

    asyncio.run(handle())
    process, ack = one(spans, "process chn_a"), one(spans, "ack chn_a")
    assert (process.kind, process.parent, ack.kind) == (SpanKind.CONSUMER, None, SpanKind.CLIENT)
    assert ack.parent is not None
    assert (ack.parent.trace_id, ack.parent.span_id) == ids(process)
    for span in (process, ack):
        (link,) = span.links
        assert (f"{link.context.span_id:016x}", link.context.trace_state.to_header()) == ("00f067aa0ba902b7", "congo=1")
        assert attributes(span)["messaging.message.id"] == "msg_1"
    assert "secret" not in process.to_json() + ack.to_json()


def test_continued_trace_has_the_publisher_as_its_parent_and_the_current_span_as_a_link(spans: InMemorySpanExporter) -> None:
    current = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(current)), message({"traceparent": TEXT}).processing(continue_trace=True):
        pass
    span = one(spans, "process chn_a")
    assert f"{ids(span)[0]:032x}" == TEXT[3:35]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == TEXT[36:52]
    assert [link.context.span_id for link in span.links] == [span.parent.span_id, 2]


def test_failed_processing_records_the_type_of_the_exception_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), message().processing():
        raise ValueError("the secret is 5")
    span = one(spans, "process chn_a")
    assert (span.status.status_code, attributes(span)["error.type"], span.events) == (StatusCode.ERROR, "ValueError", ())
    assert "secret" not in span.to_json()


async def test_ack_outside_of_a_recorded_span_is_not_recorded(spans: InMemorySpanExporter) -> None:
    await message({"traceparent": TEXT}).ack()
    with message(seq=None).processing():
        await message(seq=None).ack()  # Of a `live` channel.
    assert [span.name for span in spans.get_finished_spans()] == ["process chn_a"]


def test_trace_context_is_that_of_the_publisher() -> None:
    context = message({"traceparent": TEXT, "tracestate": "congo=1"}).trace_context
    assert isinstance(context, Context)
    found = trace.get_current_span(context).get_span_context()
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags) == (TEXT[3:35], TEXT[36:52], 1)
    assert (found.is_remote, found.trace_state.to_header()) == (True, "congo=1")


@pytest.mark.parametrize("text", ["", "x", TEXT.upper(), "0" * 10_000, TEXT + "-x"])
def test_invalid_traceparent_gives_no_context_and_no_link(spans: InMemorySpanExporter, text: str) -> None:
    received = message({"traceparent": text})
    assert received.trace_context is None
    with received.processing(continue_trace=True):
        pass
    assert (one(spans, "process chn_a").links, one(spans, "process chn_a").parent) == ((), None)


def test_invalid_trace_state_is_left_out_and_not_logged(spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture) -> None:
    context = message({"traceparent": TEXT, "tracestate": "forged\nline"}).trace_context
    assert trace.get_current_span(context).get_span_context().trace_state.to_header() == ""
    assert caplog.records == []
