"""W3C Trace Context in the headers of a message: `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/).

A publisher can write anything into them, so the server and the SDK pass a value to OpenTelemetry only after these checks:
OpenTelemetry's own parser writes parts of an invalid `tracestate` to the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from artcafe.wire.frames import MAX_HEADER_CHARS

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
SAMPLED: Final = 0x01
"""The bit of the flags by which a publisher says that it records the trace."""

_TRACEPARENT_CHARS: Final = 55
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_TRACESTATE_MEMBERS: Final = 32
_TRACESTATE_MEMBER: Final = re.compile(
    r"(?P<key>[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_IN_ENVELOPE: Final = b'"traceparent":"'


class TraceParent(NamedTuple):
    """The span of another program that caused a message."""

    trace_id: int
    span_id: int
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether that program records the trace."""
        return bool(self.flags & SAMPLED)


def parse_traceparent(text: str) -> TraceParent | None:
    """Parse a `traceparent`. Return None for an invalid one; a version above 00 must have the form of 00."""
    found = _TRACEPARENT.fullmatch(text) if len(text) == _TRACEPARENT_CHARS else None
    return None if found is None else TraceParent(*(int(part, 16) for part in found.groups()))


def format_traceparent(parent: TraceParent) -> str:
    """Return the text of version 00."""
    return f"00-{parent.trace_id:032x}-{parent.span_id:016x}-{parent.flags:02x}"


def is_tracestate(text: str) -> bool:
    """Return whether text is a `tracestate` of at most 32 members with different keys. Members may be empty."""
    if len(text) > MAX_HEADER_CHARS:
        return False
    members = [_TRACESTATE_MEMBER.fullmatch(member.strip(" \t")) for member in text.split(",") if member.strip(" \t")]
    keys = {member["key"] for member in members if member is not None}
    return 0 < len(keys) == len(members) <= _TRACESTATE_MEMBERS


def parent_of(headers: Mapping[str, object] | None) -> TraceParent | None:
    """Return the span that a message's headers name, or None without a valid `traceparent`."""
    text = headers.get(TRACEPARENT) if headers else None
    return parse_traceparent(text) if isinstance(text, str) else None


class _Headers(msgspec.Struct):
    traceparent: str = ""


class _TracedEnvelope(msgspec.Struct):
    message_id: str
    headers: _Headers


_decode_envelope: Final = msgspec.json.Decoder(_TracedEnvelope).decode


class TracedMessage(NamedTuple):
    """A stored message whose publisher records its trace."""

    message_id: str
    parent: TraceParent


def traced_message(envelope: bytes) -> TracedMessage | None:
    """Return the traced message in an envelope, or None, also for bytes that are no envelope: a flush must not fail because of
    them. Envelopes without a `traceparent` are not parsed."""
    if _IN_ENVELOPE not in envelope:
        return None
    try:
        found = _decode_envelope(envelope)
    except msgspec.DecodeError:
        return None
    parent = parse_traceparent(found.headers.traceparent)
    return TracedMessage(found.message_id, parent) if parent is not None and parent.is_sampled else None


def without_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers without trace context: a repeat of a publish is traced anew, and is the same message."""
    return {name: value for name, value in headers.items() if name not in {TRACEPARENT, TRACESTATE}}
