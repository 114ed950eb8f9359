"""The messages waiting for an agent: those above its cursors, in its channels and in its inbox, and the tasks of its idle queues.

A queue's consumer has what waits in it: the messages that were never delivered, and those that were given back. NATS does not
distinguish the latter from messages that are held, so they count once nothing was delivered for the queue's `ack_wait_s`: then
each of them was given back or extended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.log_lookups import count_above
from artcafe.fabric.log_state import LogState
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Agent, Channel, ChannelId, Cursor, Permission, Seq, Subscription, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import inboxes, subjects
from artcafe.services.audiences import Audiences
from artcafe.services.record_cache import RecordCache
from artcafe.tables.store import Store


class ReceivedChannels(NamedTuple):
    """The channels with possible messages for an agent: those with its cursors, its inbox among them, and its queues."""

    with_cursors: Sequence[ChannelId]
    queues: Sequence[ChannelId]


class WaitingChannel(NamedTuple):
    """The messages of a channel waiting for an agent: the first and the last sequence, and their number."""

    channel: Channel
    first: Seq
    seq: Seq
    messages: int


class Waiting(NamedTuple):
    """What waits for an agent, by its first message. `has_held`: a queue has messages that are held or wait for a later
    delivery, and may have to be worked on without a new message."""

    channels: list[WaitingChannel]
    has_held: bool


class IdleQueues(NamedTuple):
    """Queues without a connected agent. Unless `is_known`, others may be idle, too."""

    channels: frozenset[ChannelId]
    is_known: bool


class _Tasks(NamedTuple):
    """The unfinished messages of a queue: the first one, the number that can be taken, and the number that cannot."""

    first: Seq
    free: int
    held: int


class WaitingMessages:
    """Reads the messages waiting for agents, from their subscriptions' rows, the log and the queues' consumers."""

    def __init__(self, store: Store, record_cache: RecordCache, audiences: Audiences, clock: Clock) -> None:
        self._store, self._record_cache, self._audiences, self._clock = store, record_cache, audiences, clock

    async def channels_of(self, agent: Agent) -> ReceivedChannels:
        """Return the storing channels of an agent's subscriptions, and its inbox. Raises `Unavailable`."""
        with_cursors, queues = [inboxes.inbox_of(agent.id)], []
        for channel_id in sorted(agent.channels):
            channel = await self._record_cache.find_channel(agent.tenant_id, channel_id)
            if channel is not None and KINDS[channel.type].has_cursors:
                with_cursors.append(channel_id)
            elif channel is not None and KINDS[channel.type].has_log:
                queues.append(channel_id)
        return ReceivedChannels(with_cursors, queues)

    async def idle_queues(self, tenant_id: TenantId, queues: Sequence[ChannelId]) -> IdleQueues:
        """Return the queues without a connected agent. Raises `Unavailable`."""
        connected: dict[ChannelId, int | None] = {}
        for channel_id in queues:
            await self._record_cache.find_channel(tenant_id, channel_id)  # The audience is that of a cached channel.
            connected[channel_id] = (await self._audiences.wait(tenant_id, channel_id)).connected
        idle = frozenset(channel_id for channel_id, agents in connected.items() if agents == 0)
        return IdleQueues(idle, is_known=None not in connected.values())

    async def of(
        self, agent: Agent, state: LogState, above: Cursor, idle_queues: Collection[ChannelId], tenant_log: TenantLog
    ) -> Waiting:
        """Return the channels with messages above the agent's cursors and above a position, and those of these queues with tasks.

        Channels of type `live` have none. Raises `Unavailable`.
        """
        received = await self.channels_of(agent)
        queues = [channel_id for channel_id in received.queues if channel_id in idle_queues]
        pairs = [(channel_id, agent.id) for channel_id in (*received.with_cursors, *queues)]
        rows = await self._store.tenant(agent.tenant_id).subscriptions.get_many(pairs)
        read = [row for row in rows if row is not None and row.allows(Permission.RECEIVE)]
        ends = await tenant_log.last_seqs([row.channel_id for row in read]) if read else {}
        found, held = [], 0
        for row in read:
            end = ends.get(subjects.stored(row.channel_id), 0)
            if row.channel_id in queues:
                tasks = await self._tasks(row, end, tenant_log)
            else:
                tasks = await _above(row, max(state.lineage.to_seq(row.cursor), state.lineage.to_seq(above)), end, tenant_log)
            held += tasks.held
            if tasks.free:
                channel = await self._record_cache.subscribed(agent.tenant_id, row.channel_id)
                found.append(WaitingChannel(channel, tasks.first, max(end, tasks.first), tasks.free))
        return Waiting(sorted(found, key=lambda each: each.first), held > 0)

    async def _tasks(self, row: Subscription, end: Seq, tenant_log: TenantLog) -> _Tasks:
        """Return the unfinished messages of a queue. Raises `Unavailable`."""
        if not end:
            return _NOTHING
        backlog = await QueueConsumer(tenant_log, row.channel_id).backlog()
        if backlog is None:  # Nobody has taken a message yet.
            first, count = await count_above(tenant_log, row.channel_id, 0)
            return _Tasks(first, count, 0)
        channel = await self._record_cache.subscribed(row.tenant_id, row.channel_id)
        assert channel.queue is not None, "the channel is a queue"
        ack_wait = timedelta(seconds=channel.queue.ack_wait_s)
        is_given_back = backlog.delivered_at is None or self._clock() > backlog.delivered_at + ack_wait
        free, held = (backlog.pending + backlog.held, 0) if is_given_back else (backlog.pending, backlog.held)
        return _Tasks(backlog.floor + 1, free, held)


_NOTHING = _Tasks(0, 0, 0)


async def _above(row: Subscription, start: Seq, end: Seq, tenant_log: TenantLog) -> _Tasks:
    """Return the messages of a channel above a sequence. Raises `Unavailable`."""
    if end <= start:
        return _NOTHING
    first, count = await count_above(tenant_log, row.channel_id, start)
    return _Tasks(first, count, 0)


def body_of(agent: Agent, waiting: list[WaitingChannel], now: datetime) -> bytes:
    """Return the body of a webhook: the positions of waiting messages, without their content."""
    data = {
        "tenant_id": agent.tenant_id,
        "agent": agent.id,
        "agent_handle": agent.handle,
        "count": sum(each.messages for each in waiting),
        "channels": [
            {"channel": each.channel.id, "channel_handle": each.channel.handle, "seq": each.seq, "count": each.messages}
            for each in waiting
        ],
    }
    return msgspec.json.encode({"type": "agent.messages_waiting", "timestamp": now, "data": data})
