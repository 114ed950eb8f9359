"""Find the message answered by a publish, and its place in its chain.

A principal may name a message that it may receive or has published; any other is answered like a missing one. A stored message
is found in the tenant's log. A message of a `live` channel is found only by a server that sent or received it (decision record
42).
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import Final, NamedTuple

from artcafe.errors import AgentNotFound, CauseNotFound, ChannelNotFound, Forbidden
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.model import Channel, ChannelId, Principal, TenantId
from artcafe.rules import ids, subjects
from artcafe.services.record_cache import RecordCache
from artcafe.wire import frames
from artcafe.wire.envelopes import ChainLink, EnvelopeHead, parse_head

CACHED: Final = 10_000
"""Messages of all tenants whose place in a chain is remembered, at about 0.6 KB each."""
SEARCHED: Final = 1024
"""Messages read to find one by its id alone. NATS has no index of our ids, but an id contains its time."""
SEARCH_EARLIER: Final = timedelta(milliseconds=100)
"""How much earlier than its id's time a search begins, because NATS's clock may be another machine's. A second would be too much:
a busy log has more than `SEARCHED` messages in it."""


class Cause(NamedTuple):
    """A message to answer: its id, channel and sender, and its place in its chain."""

    message_id: str
    channel: ChannelId
    sender: str
    hops: int
    chain: str

    def link(self) -> ChainLink:
        """Return the place in the chain of an answer to this message."""
        return ChainLink(self.message_id, self.hops + 1, self.chain)


def _cause(channel: ChannelId, head: EnvelopeHead) -> Cause:
    """Return a message as a cause. Without a chain of its own, it is the first message of one."""
    return Cause(head.message_id, channel, head.sender, head.hops, head.chain or head.message_id)


class Causes:
    """Finds messages by their position or id."""

    def __init__(self, record_cache: RecordCache, fabric: Fabric, size: int = CACHED) -> None:
        self._record_cache, self._fabric, self._size = record_cache, fabric, size
        self._known: OrderedDict[tuple[TenantId, str], Cause] = OrderedDict()

    async def find(self, principal: Principal, named: frames.CausedBy) -> Cause:
        """Return the named message. Raises `CauseNotFound`, and `Unavailable` if the log or the tables cannot be read."""
        if isinstance(named, str):
            found = await self._by_id(principal, named)
        else:
            found = await self._by_position(principal, named)
        self.remember(principal.tenant_id, found)
        return found

    def remember(self, tenant_id: TenantId, cause: Cause) -> None:
        """Keep a message for answers on this server."""
        self._known[tenant_id, cause.message_id] = cause
        self._known.move_to_end((tenant_id, cause.message_id))
        if len(self._known) > self._size:
            self._known.popitem(last=False)

    async def _by_position(self, principal: Principal, named: frames.Cause) -> Cause:
        channel = await self._channel(principal, named.channel)
        known = None if named.message_id is None else self._recent(principal.tenant_id, named.message_id)
        found = known or await self._read(principal.tenant_id, channel, named)
        if found.channel != channel.id:
            raise CauseNotFound
        await self._check_allowed(principal, channel, found.sender)
        return found

    async def _by_id(self, principal: Principal, message_id: str) -> Cause:
        found = self._recent(principal.tenant_id, message_id) or await self._search(principal.tenant_id, message_id)
        await self._check_allowed(principal, await self._channel(principal, found.channel), found.sender)
        return found

    async def _read(self, tenant_id: TenantId, channel: Channel, named: frames.Cause) -> Cause:
        log = await self._fabric.tenant(tenant_id).connected_log()
        found = await log.after(channel.id, named.seq - 1, most=1) if KINDS[channel.type].has_log else []
        if not found or found[0].seq != named.seq:
            raise CauseNotFound
        read = _cause(channel.id, parse_head(found[0].envelope))
        if named.message_id not in (None, read.message_id):
            raise CauseNotFound
        return read

    def _recent(self, tenant_id: TenantId, message_id: str) -> Cause | None:
        """Return a message found, published or seen in a `live` channel by this server lately."""
        known = self._known.get((tenant_id, message_id))
        if known is None and (tenant_fabric := self._fabric.peek(tenant_id)) is not None:
            live = tenant_fabric.readers.recent_live.find(message_id)
            known = None if live is None else _cause(live.channel, live.head)
        return known

    async def _search(self, tenant_id: TenantId, message_id: str) -> Cause:
        """Return a stored message by its id, from the messages stored after the time in the id."""
        made_at = ids.time_of(message_id, "msg")
        if made_at is None:
            raise CauseNotFound
        log = await self._fabric.tenant(tenant_id).connected_log()
        text = message_id.encode()
        for _, subject, envelope in await log.all_since(made_at - SEARCH_EARLIER, most=SEARCHED):
            if text in envelope and (head := parse_head(envelope)).message_id == message_id:
                return _cause(ChannelId(subjects.channel_token(subject)), head)  # a hashed id names no channel
        raise CauseNotFound

    async def _channel(self, principal: Principal, channel_id: str) -> Channel:
        try:
            return await self._record_cache.destination(principal, channel_id)
        except (ChannelNotFound, AgentNotFound):
            raise CauseNotFound from None

    async def _check_allowed(self, principal: Principal, channel: Channel, sender: str) -> None:
        """Raise `CauseNotFound` unless the principal may receive the channel or is the sender of the message."""
        if sender == principal.sender:
            return
        try:
            await self._record_cache.check_receives(principal, channel)
        except Forbidden:
            raise CauseNotFound from None
