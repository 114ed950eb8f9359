"""List and cancel the scheduled messages of a channel. `messaging` accepts them, and `scheduler` delivers them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple

from artcafe.errors import AlreadyDelivered, ScheduledNotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.scheduled_messages import Scheduled, ScheduledMessages
from artcafe.model import AgentPrincipal, Channel, Principal
from artcafe.rules import access, inboxes
from artcafe.rules.access import Action
from artcafe.rules.pages import Page, PageRequest
from artcafe.services.audit import Audit
from artcafe.services.record_cache import RecordCache
from artcafe.wire.envelopes import parse_head


class ScheduledEnvelope(NamedTuple):
    """A scheduled message: its id, and its envelope."""

    message_id: str
    envelope: bytes


class ChannelSchedules:
    """The scheduled messages of channels. Members see all of them but in inboxes, an agent its own."""

    def __init__(self, record_cache: RecordCache, fabric: Fabric, audit: Audit) -> None:
        self._record_cache, self._fabric, self._audit = record_cache, fabric, audit

    async def list(
        self, principal: Principal, channel_id: str, page_request: PageRequest
    ) -> tuple[Channel, Page[ScheduledEnvelope]]:
        """Return a channel, and its scheduled messages in the order of their delivery. Raises `ChannelNotFound`, `Forbidden` and
        `Unavailable`."""
        access.check(principal, Action.READ_SCHEDULED)
        channel, scheduled = await self._open(principal, channel_id)
        found: list[ScheduledEnvelope] = []
        for each in scheduled.of_channel(channel.id):
            if page_request.after is not None and each.message_id <= page_request.after:
                continue
            envelope = await self._visible(principal, channel, scheduled, each)
            if envelope is not None:
                if len(found) == page_request.limit:
                    return channel, Page(tuple(found), found[-1].message_id)
                found.append(ScheduledEnvelope(each.message_id, envelope))
        return channel, Page(tuple(found), None)

    async def cancel(self, principal: Principal, channel_id: str, message_id: str) -> None:
        """Cancel a scheduled message: after the return it is not delivered. May be repeated, for ten minutes.

        Raises `AlreadyDelivered`, `ScheduledNotFound`, `ChannelNotFound`, `Forbidden`, `QuotaFull` and `Unavailable`.
        """
        access.check(principal, Action.CANCEL_SCHEDULED)
        channel, scheduled = await self._open(principal, channel_id)
        found = scheduled.find(channel.id, message_id)
        if found is None or await self._visible(principal, channel, scheduled, found) is None:
            raise ScheduledNotFound(message_id)
        async with self._audited(principal, channel, message_id):
            delivered = await scheduled.cancel(found)
            if delivered is not None:
                raise AlreadyDelivered(delivered)

    def _audited(self, principal: Principal, channel: Channel, message_id: str) -> AbstractAsyncContextManager[object]:
        """Audit a cancellation by a person: the message may be another's. An agent cancels its own only."""
        if isinstance(principal, AgentPrincipal):
            return nullcontext()
        return self._audit.action(principal, "message.cancel", message_id, channel=channel.id)

    async def _open(self, principal: Principal, channel_id: str) -> tuple[Channel, ScheduledMessages]:
        channel = await self._record_cache.destination(principal, channel_id)
        tenant_fabric = self._fabric.tenant(principal.tenant_id)
        if KINDS[channel.type].has_log:
            await tenant_fabric.connected_log()
            await tenant_fabric.scheduled.refresh()
        return channel, tenant_fabric.scheduled

    @staticmethod
    async def _visible(principal: Principal, channel: Channel, scheduled: ScheduledMessages, one: Scheduled) -> bytes | None:
        """Return the envelope of a message visible to the principal, or None. In an inbox everyone sees their own only."""
        envelope = await scheduled.read(one)
        if envelope is None or not (isinstance(principal, AgentPrincipal) or inboxes.owner_of(channel.id)):
            return envelope
        return envelope if parse_head(envelope).sender == principal.sender else None
