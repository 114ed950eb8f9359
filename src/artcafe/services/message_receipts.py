"""What became of a stored message, for members and its sender: a page of its recipients at this moment."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from artcafe.errors import Forbidden, MessageNotFound, NotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_lookups import read_in
from artcafe.model import AgentId, AgentPrincipal, Channel, Epoch, Permission, Principal, Seq, Subscription
from artcafe.observe.clock import Clock
from artcafe.rules import access, inboxes
from artcafe.rules.access import Action
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.start_position import LogLineage
from artcafe.services.delivery_states import DeliveryState, is_recipient
from artcafe.services.queue_outcomes import QueueOutcomes
from artcafe.services.recipients import Look, Recipients
from artcafe.services.record_cache import RecordCache
from artcafe.wire import envelopes
from artcafe.wire.envelopes import parse_head

_NOT_SENT: Final = "read the receipts of a message that it has not sent, or that is not stored any more"


class MessageReceipt(NamedTuple):
    """A recipient of a message. `cursor_age_s` is the time since its last ack was written, 0 if that is still to be done; None
    for a cursor without an ack, or of an older row.

    A message of a queue has one, which has no cursor: the agent that holds it or has acknowledged it, None if there is none or it
    is unknown. `reason`: why it is a dead letter.
    """

    agent_id: AgentId | None
    state: DeliveryState
    cursor: Seq | None = None
    cursor_age_s: int | None = None
    last_seen: datetime | None = None
    reason: str | None = None


class MessageReceipts:
    """Reads the receipts of stored messages."""

    def __init__(
        self, record_cache: RecordCache, fabric: Fabric, recipients: Recipients, queue_outcomes: QueueOutcomes, clock: Clock
    ) -> None:
        self._record_cache, self._fabric = record_cache, fabric
        self._recipients, self._queue_outcomes, self._clock = recipients, queue_outcomes, clock

    async def list(
        self, principal: Principal, channel_id: str, seq: Seq, page_request: PageRequest = FIRST
    ) -> Page[MessageReceipt]:
        """Return a page of a message's recipients, ordered by agent id: the active subscriptions that it was stored for. In a
        queue, return the one state of the message.

        A page may have fewer items than its limit. Raises Forbidden, also for an agent that did not send the message,
        ChannelNotFound, MessageNotFound and Unavailable.
        """
        access.check(principal, Action.READ_MESSAGES)
        channel, expires_at = await self._find(principal, channel_id, seq)
        tenant_log = await self._fabric.tenant(channel.tenant_id).connected_log()
        state = await tenant_log.state()
        if state is None:
            raise MessageNotFound(str(seq))
        if KINDS[channel.type].is_shared:
            return await self._of_queue(channel, seq, state.epoch, expires_at)
        found = await self._recipients.list(channel.tenant_id, channel.id, page_request)
        rows = [row for row in found.items if row.allows(Permission.RECEIVE) and is_recipient(row, seq, state.lineage)]
        look = await self._recipients.look(channel.tenant_id, {channel.id: [row.agent_id for row in rows]})
        return Page(tuple(self._receipt(row, seq, look, state.lineage, expires_at) for row in rows), found.next)

    def _receipt(
        self, row: Subscription, seq: Seq, look: Look, lineage: LogLineage, expires_at: datetime | None
    ) -> MessageReceipt:
        now, newer = self._clock(), look.newest_ack(row, lineage)
        age_s = None if row.acked_at is None else max(0, int((now - row.acked_at).total_seconds()))
        cursor = lineage.to_seq(row.cursor) if newer is None else newer
        shown = look.state(row, seq, lineage)
        if expires_at is not None and now >= expires_at and not (row.acked_at is not None and row.acked_at <= expires_at):
            shown = DeliveryState.EXPIRED
        return MessageReceipt(row.agent_id, shown, cursor, age_s if newer is None else 0, look.last_seen(row))

    async def _of_queue(self, channel: Channel, seq: Seq, epoch: Epoch, expires_at: datetime | None) -> Page[MessageReceipt]:
        found = await self._queue_outcomes.look(channel.tenant_id, epoch, {channel.id: {seq: expires_at}})
        state, agent_id, reason = found[channel.id, seq]
        return Page((MessageReceipt(agent_id, state, reason=reason),), None)

    async def _find(self, principal: Principal, channel_id: str, seq: Seq) -> tuple[Channel, datetime | None]:
        """Return the channel of a message, and when it expires; a dead letter does not.

        To an agent, a message of another sender is like a missing one.
        """
        try:
            channel = await self._record_cache.destination(principal, channel_id)
            envelope = await self._read(channel, seq)
        except NotFound as exc:
            if isinstance(principal, AgentPrincipal):
                raise Forbidden(_NOT_SENT, "an agent") from exc
            raise
        is_private = isinstance(principal, AgentPrincipal) or inboxes.owner_of(channel.id) is not None
        if is_private and parse_head(envelope).sender != principal.sender:
            raise Forbidden(_NOT_SENT, "an agent" if isinstance(principal, AgentPrincipal) else "a person")
        return channel, envelopes.expires_at(envelope)

    async def _read(self, channel: Channel, seq: Seq) -> bytes:
        if KINDS[channel.type].has_log:
            tenant_log = await self._fabric.tenant(channel.tenant_id).connected_log()
            envelope = await read_in(tenant_log, channel.id, seq)
            if envelope is not None:
                return envelope
        raise MessageNotFound(str(seq))
