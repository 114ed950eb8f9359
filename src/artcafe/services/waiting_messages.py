"""The messages that wait for an agent: those above its cursors, in the channels that it receives and in its inbox."""

from __future__ import annotations

from typing import NamedTuple

from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.log_lookups import count_above
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Agent, Channel, ChannelId, Cursor, Permission, Seq
from artcafe.rules import inboxes, subjects
from artcafe.services.record_cache import RecordCache
from artcafe.tables.store import Store


class WaitingChannel(NamedTuple):
    """The messages of a channel that wait for an agent: the first and the last sequence, and their number."""

    channel: Channel
    first: Seq
    seq: Seq
    messages: int


class WaitingMessages:
    """Reads what waits for agents, from their subscriptions' rows and the log."""

    def __init__(self, store: Store, record_cache: RecordCache) -> None:
        self._store, self._record_cache = store, record_cache

    async def channels_of(self, agent: Agent) -> list[ChannelId]:
        """Return the agent's inbox, and the channels in which its subscription has a cursor, if it has one there. Raises
        `Unavailable`."""
        found = [inboxes.inbox_of(agent.id)]
        for channel_id in sorted(agent.channels):
            channel = await self._record_cache.find_channel(agent.tenant_id, channel_id)
            if channel is not None and KINDS[channel.type].has_cursors:
                found.append(channel_id)
        return found

    async def of(self, agent: Agent, state: LogState, above: Cursor, tenant_log: TenantLog) -> list[WaitingChannel]:
        """Return the channels with messages above the agent's cursors and above a place, by their first message.

        Channels without cursors, of type `queue` and `live`, have none. Raises `Unavailable`.
        """
        pairs = [(channel_id, agent.id) for channel_id in await self.channels_of(agent)]
        rows = await self._store.tenant(agent.tenant_id).subscriptions.get_many(pairs)
        read = [row for row in rows if row is not None and row.allows(Permission.RECEIVE)]
        ends = await tenant_log.last_seqs([row.channel_id for row in read]) if read else {}
        found: list[WaitingChannel] = []
        for row in read:
            start = max(state.lineage.to_seq(row.cursor), state.lineage.to_seq(above))
            seq = ends.get(subjects.stored(row.channel_id), 0)
            first, count = await count_above(tenant_log, row.channel_id, start) if seq > start else (0, 0)
            if count:
                channel = await self._record_cache.subscribed(agent.tenant_id, row.channel_id)
                found.append(WaitingChannel(channel, first, max(seq, first), count))
        return sorted(found, key=lambda each: each.first)
