"""Spans of one channel's deliveries and acks on this server, linked to the publishers' spans.

Only messages whose publishers record their traces have such spans, so other messages cost no more than a search in their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from artcafe.fabric.tenant_log import StoredMessage
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import AgentId, ChannelId, Seq, TenantId
from artcafe.observe.tracing import MAX_LINKS, Tracing
from artcafe.wire.trace_context import TracedMessage, TraceParent, traced_message

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MAX_RECENT: Final = 256
"""Delivered traced messages whose ack can be linked. Beyond them an ack has no span: about 50 KB for each traced channel."""


class ChannelTracing:
    """The spans of a channel. A feed has one if the server traces."""

    __slots__ = ("_channel_id", "_recent", "_tenant_id", "_tracing")

    def __init__(self, tracing: Tracing, tenant_id: TenantId, channel_id: ChannelId) -> None:
        self._tracing, self._tenant_id, self._channel_id = tracing, tenant_id, channel_id
        self._recent: dict[Seq, TraceParent] = {}
        """The publishers' spans of delivered messages, the last delivered one at the end."""

    def start_deliver(self, messages: Sequence[StoredMessage | QueuedMessage]) -> Span | None:
        """Start the span of a write of messages, of a flush, a backlog or a pull, or return None if none is traced."""
        traced: list[TracedMessage] = []
        for message in messages:
            found = traced_message(message.envelope)
            if found is not None:
                traced.append(found)
                self._remember(message.seq, found.parent)
                if len(traced) == MAX_LINKS:
                    break
        if not traced:
            return None
        return self._tracing.start_deliver(self._tenant_id, self._channel_id, traced, len(messages))

    def _remember(self, seq: Seq, parent: TraceParent) -> None:
        if seq == 0:  # A message of a `live` channel, which has no acks.
            return
        self._recent.pop(seq, None)
        self._recent[seq] = parent
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def record_ack(self, agent_id: AgentId, after: Seq, seq: Seq) -> None:
        """Record the ack of the messages above `after`, up to `seq`, if one of them is traced."""
        parents = [parent for at, parent in self._recent.items() if after < at <= seq] if self._recent else []
        if parents:
            self._tracing.record_ack(self._tenant_id, self._channel_id, agent_id, parents)

    def record_ack_of(self, principal: str, message: QueuedMessage) -> None:
        """Record the ack of one message of a queue by its holder, if it is traced."""
        found = traced_message(message.envelope)
        if found is not None:
            self._tracing.record_ack(self._tenant_id, self._channel_id, principal, [found.parent])

    def forget(self) -> None:
        """Forget the delivered messages: their sequences may belong to an earlier log."""
        self._recent.clear()
