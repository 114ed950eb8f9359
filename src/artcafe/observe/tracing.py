"""Spans of the server's work: `publish`, `store`, `deliver`, `ack` and `request`, through OpenTelemetry's API package alone.

The operator configures a tracer provider outside of this program (docs/tracing.md). Without one, `open_tracing` returns None, and
a publish, a flush and an ack cost one comparison with None. Names and attributes follow OpenTelemetry's semantic conventions for
messaging (status: development). No span has data or headers of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final, Literal

from artcafe.errors import ArtcafeError, OutcomeUnknown

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
except ImportError:  # The extra artcafe[otel] is not installed.
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

TracingMode = Literal["off", "link", "continue"]

RemoteParent = tuple[int, int, int]
"""Trace id, span id and flags of a publisher's span: a `wire.trace_context.TraceParent`."""

MAX_LINKS: Final = 128
"""Links of one span. OpenTelemetry's SDK keeps as many unless it is configured otherwise."""


def open_tracing(mode: TracingMode) -> Tracing | None:
    """Return the server's spans, or None without a tracer provider or for `off`. Called once, at the start.

    The provider is the one set in this process, or that of `OTEL_PYTHON_TRACER_PROVIDER`.
    """
    if mode == "off" or not IS_INSTALLED:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):  # The API's own, which makes no spans until another one is set.
        return None
    tracer = provider.get_tracer("artcafe", version("artcafe"))
    return None if isinstance(tracer, trace.NoOpTracer) else Tracing(tracer, is_continuing=mode == "continue")


class Tracing:
    """The spans of one server.

    A publisher's span is linked, and becomes the parent only with `is_continuing`: the parent decides whether the SDK's default
    sampler records a span, and any agent can write any trace id and flag into its messages.
    """

    __slots__ = ("_is_continuing", "_publishes", "_tracer")

    def __init__(self, tracer: Tracer, *, is_continuing: bool = False) -> None:
        self._tracer, self._is_continuing = tracer, is_continuing
        self._publishes: dict[str, Span] = {}
        """The recorded spans of publishes without an outcome yet, by message id."""

    def record_publish(
        self,
        tenant_id: str,
        channel_id: str,
        message_id: str,
        agent_id: str | None,
        parent: RemoteParent | None,
        stored: asyncio.Future[Any],
    ) -> None:
        """Record the span of a publish from now on until its outcome.

        `agent_id`: None for a person, whose id is not recorded. `parent`: the publisher's span.
        """
        attributes = _attributes("publish", "send", tenant_id, channel_id)
        attributes["messaging.message.id"] = message_id
        if agent_id is not None:
            attributes["messaging.client.id"] = agent_id
        context, links = self._context_of(parent)
        span = self._tracer.start_span("publish", context, SpanKind.SERVER, attributes, links)
        if span.is_recording():
            self._publishes[message_id] = span
            stored.add_done_callback(partial(self._end_publish, message_id))

    def record_request(
        self,
        tenant_id: str,
        agent_id: str,
        request_id: str,
        sender_id: str | None,
        parent: RemoteParent | None,
        done: asyncio.Future[Any],
    ) -> None:
        """Record the span of a request to an agent from now on until its last answer. `sender_id` and `parent` as `agent_id` and
        `parent` in `record_publish`."""
        attributes = _attributes("request", "send", tenant_id, agent_id)
        attributes["messaging.message.id"] = request_id
        if sender_id is not None:
            attributes["messaging.client.id"] = sender_id
        context, links = self._context_of(parent)
        span = self._tracer.start_span("request", context, SpanKind.SERVER, attributes, links)
        if span.is_recording():
            done.add_done_callback(lambda outcome: end_with(span, [outcome]))

    def _context_of(self, parent: RemoteParent | None) -> tuple[Context | None, list[Link]]:
        """Return the context and the links of a span caused by a peer's span."""
        context = None if trace.get_current_span().get_span_context().is_valid else Context()
        links: list[Link] = []
        if parent is not None:
            remote = _remote(parent)
            if remote.trace_flags.sampled:
                links = [Link(remote)]
            if context is not None and self._is_continuing:
                context = trace.set_span_in_context(NonRecordingSpan(remote), context)
        return context, links

    def _end_publish(self, message_id: str, stored: asyncio.Future[Any]) -> None:
        end_with(self._publishes.pop(message_id), [stored])

    def start_store(self, tenant_id: str, message_ids: Sequence[str]) -> Span | None:
        """Start the span of a group commit, or return None if no publish in it is recorded. `end_with` ends it.

        A single message's is a child of its publish. That of a group has several causes, so it is a root with links to them.
        """
        publishes = [self._publishes[each] for each in message_ids if each in self._publishes] if self._publishes else []
        if not publishes:
            return None
        attributes = _attributes("store", "send", tenant_id)
        if len(message_ids) == 1:
            parent = trace.set_span_in_context(publishes[0], Context())
            return self._tracer.start_span("store", parent, SpanKind.CLIENT, attributes)
        attributes["messaging.batch.message_count"] = len(message_ids)
        links = [Link(span.get_span_context()) for span in publishes[:MAX_LINKS]]
        return self._tracer.start_span("store", Context(), SpanKind.CLIENT, attributes, links)

    def start_deliver(self, tenant_id: str, channel_id: str, traced: Sequence[tuple[str, RemoteParent]], count: int) -> Span:
        """Start the span of a write of `count` messages to connections, linked to the publishers' spans of the `traced` ones
        (message id and span)."""
        attributes = _attributes("deliver", "send", tenant_id, channel_id)
        attributes["messaging.batch.message_count"] = count
        links = [Link(_remote(parent), {"messaging.message.id": message_id}) for message_id, parent in traced[:MAX_LINKS]]
        return self._tracer.start_span("deliver", Context(), SpanKind.CLIENT, attributes, links)

    def record_ack(self, tenant_id: str, channel_id: str, agent_id: str, parents: Sequence[RemoteParent]) -> None:
        """Record an ack of messages with these publishers' spans."""
        attributes = _attributes("ack", "settle", tenant_id, channel_id)
        attributes["messaging.client.id"] = agent_id
        links = [Link(_remote(parent)) for parent in parents[:MAX_LINKS]]
        self._tracer.start_span("ack", Context(), SpanKind.SERVER, attributes, links).end()


def end_with(span: Span, outcomes: Sequence[asyncio.Future[Any]]) -> None:
    """End a span with the first error among these outcomes. One without a result counts as unknown."""
    error = next((error for each in outcomes if (error := _error_of(each)) is not None), None)
    if error is not None:
        # The code only: the text of an error can quote a field of the message.
        span.set_attribute("error.type", error.code if isinstance(error, ArtcafeError) else type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _error_of(outcome: asyncio.Future[Any]) -> BaseException | None:
    return OutcomeUnknown() if not outcome.done() or outcome.cancelled() else outcome.exception()


def _attributes(name: str, kind: str, tenant_id: str, channel_id: str | None = None) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "messaging.system": "artcafe",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "artcafe.tenant.id": tenant_id,
    }
    if channel_id is not None:
        found["messaging.destination.name"] = channel_id
    return found


def _remote(parent: RemoteParent) -> SpanContext:
    trace_id, span_id, flags = parent
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
