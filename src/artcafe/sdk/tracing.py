"""Traces from a publisher to its subscribers, if OpenTelemetry's API package is installed (the extra `artcafe[otel]`).

A publish puts the context of its span into the message's headers, as W3C Trace Context, and a subscriber reads it. The program
configures OpenTelemetry; without a tracer provider no span is recorded, and a span context that is current anyway is passed on.
Names and attributes follow the semantic conventions for messaging (status: development). No span has data of a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Protocol, Self

from artcafe.errors import ArtcafeError
from artcafe.wire.frames import MAX_HEADER_CHARS, MAX_HEADERS
from artcafe.wire.trace_context import TRACEPARENT, TRACESTATE, TraceParent, format_traceparent, is_tracestate, parent_of

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
except ImportError:
    IS_INSTALLED = False
else:
    from importlib.metadata import version

    IS_INSTALLED = True
    _tracer: Final = trace.get_tracer("artcafe", version("artcafe"))  # It follows a provider that is set later.

Headers = Mapping[str, str]


class TraceableMessage(Protocol):
    """A message, as far as its spans name it."""

    @property
    def channel(self) -> str: ...

    @property
    def message_id(self) -> str: ...

    @property
    def headers(self) -> Headers: ...


class TraceableRequest(Protocol):
    """A request, as far as its span names it."""

    @property
    def sender(self) -> str: ...

    @property
    def request_id(self) -> str: ...

    @property
    def headers(self) -> Headers: ...


class PublishSpan:
    """The span of one publish, as a context manager. Without OpenTelemetry it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        return

    def add_context(self, headers: Headers | None, _fits: Callable[[Headers], bool]) -> Headers | None:
        """Return the headers with the context of the span added, if the message stays valid with it.

        `fits` returns whether the message with these headers is small enough. Headers with a trace context are unchanged.
        """
        return headers

    def set_message_id(self, message_id: str | None) -> None:
        """Record the id of the published message."""


_NO_SPAN: Final = PublishSpan()


class _RecordedPublish(PublishSpan):
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        _end(self._span, exc)

    def add_context(self, headers: Headers | None, fits: Callable[[Headers], bool]) -> Headers | None:
        context, given = self._span.get_span_context(), headers or {}
        if not context.is_valid:  # Without a provider, older versions of the API return an empty span.
            context = trace.get_current_span().get_span_context()
        if not context.is_valid or has_context(given):
            return headers
        parent = {TRACEPARENT: format_traceparent(TraceParent(context.trace_id, context.span_id, context.trace_flags))}
        state = {TRACESTATE: context.trace_state.to_header()} if context.trace_state else {}
        for added in ({**parent, **state}, parent):
            merged = {**given, **added}
            if len(merged) <= MAX_HEADERS and all(len(text) <= MAX_HEADER_CHARS for text in added.values()) and fits(merged):
                return merged
        return headers

    def set_message_id(self, message_id: str | None) -> None:
        if message_id is not None:
            self._span.set_attribute("messaging.message.id", message_id)


def has_context(headers: Headers) -> bool:
    """Return whether a program has set a trace context by itself."""
    return TRACEPARENT in headers or TRACESTATE in headers


def start_publish(channel: str, headers: Headers | None, agent: str | None = None) -> PublishSpan:
    """Start the span of a publish, a child of the current one. `agent`: its id; None for a client of REST."""
    given: object = headers or {}
    if not IS_INSTALLED or not isinstance(given, Mapping):  # The encoding of the message raises for other objects.
        return _NO_SPAN
    attributes = _attributes("publish", "send", channel)
    if agent is not None:
        attributes["messaging.client.id"] = agent
    # A producer's span is one whose context is in the message.
    kind = trace.SpanKind.CLIENT if has_context(given) else trace.SpanKind.PRODUCER
    return _RecordedPublish(_tracer.start_span(f"publish {channel}", None, kind, attributes, _links(given)))


def start_request(agent: str, headers: Headers | None, sender: str | None = None) -> PublishSpan:
    """Start the span of a request to an agent, as `start_publish` does for a message. `sender`: the asking agent's id."""
    given: object = headers or {}
    if not IS_INSTALLED or not isinstance(given, Mapping):
        return _NO_SPAN
    attributes = _attributes("request", "send", agent)
    if sender is not None:
        attributes["messaging.client.id"] = sender
    return _RecordedPublish(_tracer.start_span(f"request {agent}", None, trace.SpanKind.CLIENT, attributes, _links(given)))


class _Processing(contextlib.AbstractContextManager[None]):
    """The span of a message's processing, current in the block."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        # An exception's text can quote the message, so only its type is recorded.
        self._current = trace.use_span(span, record_exception=False, set_status_on_exception=False)

    def __enter__(self) -> None:
        self._current.__enter__()

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._current.__exit__(None, None, None)
        _end(self._span, exc)


def start_processing(message: TraceableMessage, *, continue_trace: bool) -> contextlib.AbstractContextManager[None]:
    """Start the span of a message's processing, which ends with the block. With `continue_trace` the publisher's span is its
    parent, otherwise the current span is; the publisher's span is linked."""
    if not IS_INSTALLED:
        return contextlib.nullcontext()
    attributes = {**_attributes("process", "process", message.channel), "messaging.message.id": message.message_id}
    links = _links(message.headers)
    parent = context_of(message.headers) if continue_trace else None
    if parent is not None and (current := trace.get_current_span().get_span_context()).is_valid:
        links.append(trace.Link(current))
    return _Processing(_tracer.start_span(f"process {message.channel}", parent, trace.SpanKind.CONSUMER, attributes, links))


def start_answering(request: TraceableRequest) -> contextlib.AbstractContextManager[None]:
    """Start the span of answering a request, which ends with the block and is linked to the sender's span."""
    if not IS_INSTALLED:
        return contextlib.nullcontext()
    attributes = {**_attributes("answer", "process", request.sender), "messaging.message.id": request.request_id}
    return _Processing(_tracer.start_span("answer", None, trace.SpanKind.SERVER, attributes, _links(request.headers)))


def record_ack(message: TraceableMessage) -> None:
    """Record the ack of a message, if it is part of a recorded trace."""
    if IS_INSTALLED and trace.get_current_span().is_recording():
        attributes = {**_attributes("ack", "settle", message.channel), "messaging.message.id": message.message_id}
        _tracer.start_span(f"ack {message.channel}", None, trace.SpanKind.CLIENT, attributes, _links(message.headers)).end()


def context_of(headers: Headers) -> Context | None:
    """Return the trace context in a message's headers, or None without a valid one or without OpenTelemetry.

    An invalid `tracestate` is left out.
    """
    span_context = _span_context(headers) if IS_INSTALLED else None
    return None if span_context is None else trace.set_span_in_context(trace.NonRecordingSpan(span_context), Context())


def _span_context(headers: Headers) -> trace.SpanContext | None:
    parent = parent_of(headers)
    if parent is None:
        return None
    text = headers.get(TRACESTATE)
    state = trace.TraceState.from_header([text]) if text is not None and is_tracestate(text) else None
    return trace.SpanContext(
        parent.trace_id, parent.span_id, is_remote=True, trace_flags=trace.TraceFlags(parent.flags), trace_state=state
    )


def _links(headers: Headers) -> list[trace.Link]:
    span_context = _span_context(headers)
    return [] if span_context is None else [trace.Link(span_context)]


def _attributes(name: str, kind: str, channel: str) -> dict[str, str]:
    return {
        "messaging.system": "artcafe",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": channel,
    }


def _end(span: trace.Span, exc: BaseException | None) -> None:
    if exc is not None:
        span.set_attribute("error.type", exc.code if isinstance(exc, ArtcafeError) else type(exc).__qualname__)
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    span.end()
