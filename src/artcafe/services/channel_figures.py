"""Figures of channels and subscriptions from the log: the stored messages of a channel, and those above each cursor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from artcafe.errors import ChannelNotFound, OurFault
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_lookups import count_above
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Channel, ChannelId, Seq, Subscription, TenantId
from artcafe.observe.logs import log
from artcafe.rules import subjects
from artcafe.rules.start_position import LogLineage
from artcafe.services.record_cache import RecordCache

AT_ONCE: Final = 16
"""Counts requested at the same time for one page. NATS takes some 0.2 ms for each."""
TIMEOUT_S: Final = 2.0
"""Longest wait for the figures of one answer, which are unknown then."""


Position = tuple[ChannelId, Seq]


class ChannelFigures(NamedTuple):
    """A channel's stored messages: the first and last sequence (0 without any) and their number.

    Of a queue also its unfinished messages: those that were never delivered (`pending`), those that were and have not ended
    (`held`), and the first of both (`oldest_seq`, 0 without any). None if unknown, and for other types.
    """

    first_seq: Seq | None = None
    last_seq: Seq | None = None
    messages: int | None = None
    pending: int | None = None
    held: int | None = None
    oldest_seq: Seq | None = None


UNKNOWN: Final = ChannelFigures()


class Figures:
    """Reads figures for answers. Without NATS they are unknown, and the answers come without them."""

    def __init__(self, fabric: Fabric, record_cache: RecordCache) -> None:
        self._fabric, self._record_cache = fabric, record_cache

    async def of_channel(self, channel: Channel) -> ChannelFigures:
        """Return the figures of a channel; unknown for one without stored messages."""
        if not KINDS[channel.type].has_log:
            return UNKNOWN
        try:
            async with asyncio.timeout(TIMEOUT_S):
                tenant_log = await self._fabric.tenant(channel.tenant_id).connected_log()
                first, messages = await count_above(tenant_log, channel.id, 0)
                last = await tenant_log.last_seq_of(channel.id) if messages else 0
                stored = ChannelFigures(first, max(first, last), messages)
                return await _with_tasks(tenant_log, channel.id, stored) if channel.queue is not None else stored
        except (OurFault, TimeoutError):
            return UNKNOWN

    async def lags(self, tenant_id: TenantId, subscriptions: Sequence[Subscription]) -> list[int | None]:
        """Return the number of messages above the cursor of each subscription, in its channel. None: unknown, or the channel has
        no cursors.

        One page of a list is one batch: equal positions are counted once, and none where a cursor is at its channel's end.
        """
        found: dict[Position, int | None] = {}
        positions: list[Position | None] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                try:
                    tenant_log = await self._fabric.tenant(tenant_id).connected_log()
                    state = await tenant_log.state()
                    lineage = LogLineage(None) if state is None else state.lineage
                    with_cursors = await self._with_cursors(tenant_id, {each.channel_id for each in subscriptions})
                    positions = [
                        (each.channel_id, lineage.to_seq(each.cursor)) if each.channel_id in with_cursors else None
                        for each in subscriptions
                    ]
                    await _count(tenant_log, {position for position in positions if position is not None}, found)
                except OurFault as exc:
                    log.debug("channel_figures.unknown", error=repr(exc))
        return [None if position is None else found.get(position) for position in positions] or [None] * len(subscriptions)

    async def _with_cursors(self, tenant_id: TenantId, channel_ids: Collection[ChannelId]) -> set[ChannelId]:
        found: set[ChannelId] = set()
        for channel_id in channel_ids:
            with contextlib.suppress(ChannelNotFound):
                channel = await self._record_cache.channel(tenant_id, channel_id)
                if KINDS[channel.type].has_cursors:
                    found.add(channel_id)
        return found


async def _with_tasks(tenant_log: TenantLog, queue: ChannelId, stored: ChannelFigures) -> ChannelFigures:
    """Add the unfinished messages of a queue."""
    backlog = await QueueConsumer(tenant_log, queue).backlog()
    if backlog is None:  # Nobody has taken a message yet.
        return stored._replace(pending=stored.messages, held=0, oldest_seq=stored.first_seq)
    oldest, _ = await count_above(tenant_log, queue, backlog.floor) if backlog.pending or backlog.held else (0, 0)
    return stored._replace(pending=backlog.pending, held=backlog.held, oldest_seq=oldest)


async def _count(tenant_log: TenantLog, positions: Collection[Position], found: dict[Position, int | None]) -> None:
    """Add the number of messages above each position to `found`."""
    ends = await tenant_log.last_seqs(sorted({channel_id for channel_id, _ in positions})) if positions else {}
    found |= {position: 0 for position in positions if ends.get(subjects.stored(position[0]), 0) <= position[1]}

    async def count(position: Position) -> None:
        with contextlib.suppress(OurFault):
            found[position] = (await count_above(tenant_log, *position))[1]

    due = sorted(set(positions) - found.keys())
    for start in range(0, len(due), AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for position in due[start : start + AT_ONCE]:
                group.create_task(count(position))
