"""How far each subscription has acknowledged: kept in memory, written to its row when it is due. Never backwards.

A lost write means that messages come again, never that one is lost (design, decision 5).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from artcafe.errors import OurFault
from artcafe.model import AgentId, ChannelId, Cursor, Subscription, TenantId
from artcafe.observe.logs import log
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

AT_ONCE: Final = 64
"""Cursors that are written at the same time: the embedded engine puts them into one commit."""

REMEMBER_S: Final = 30.0

Who = tuple[TenantId, AgentId]
Known = dict[Who, dict[ChannelId, Cursor]]


class Cursors:
    """The cursors of every agent that is connected to this server."""

    def __init__(self, store: Store, write_s: float) -> None:
        self._store, self._write_s = store, write_s
        self._unwritten: Known = {}
        self._written: list[Known] = [{}, {}]
        """What was written in this period of `REMEMBER_S` and the one before: a row that was read before the write, and is used
        after it, must not take its agent back."""
        self._period_began = time.monotonic()
        self.supervisor = Supervisor("cursors")

    def acknowledge(self, tenant_id: TenantId, channel_id: ChannelId, agent_id: AgentId, cursor: Cursor) -> None:
        """Moves a cursor forward, to be written within `write_s` seconds. One that is behind what is known changes nothing."""
        channels = self._unwritten.setdefault((tenant_id, agent_id), {})
        known = channels.get(channel_id)
        if known is None or known.epoch != cursor.epoch or known.seq < cursor.seq:
            channels[channel_id] = cursor

    def newest(self, subscription: Subscription) -> Cursor:
        """Return the subscription's cursor: its row's, or what was acknowledged here after the row was read."""
        who, channel_id = (subscription.tenant_id, subscription.agent_id), subscription.channel_id
        newest = subscription.cursor
        for known in self._written:
            written = known.get(who, {}).get(channel_id)
            if written is not None and newest.epoch in (None, written.epoch):
                newest = max(newest, written, key=lambda cursor: cursor.seq)
        unwritten = self._unwritten.get(who, {}).get(channel_id)
        if unwritten is None or (unwritten.epoch == newest.epoch and unwritten.seq < newest.seq):
            return newest
        return unwritten

    def has_unwritten(self, tenant_id: TenantId, agent_id: AgentId) -> bool:
        """Return whether the agent has acknowledged something that is not written yet."""
        return (tenant_id, agent_id) in self._unwritten

    async def run(self) -> None:
        """Writes what has moved, every `write_s` seconds."""
        while True:
            await asyncio.sleep(self._write_s)
            await self.write_all()

    async def write_all(self) -> None:
        """Writes every cursor that has moved. One that cannot be written now is kept for the next time."""
        due = [(who, channel_id) for who, channels in self._unwritten.items() for channel_id in channels]
        await self._write(due)

    async def write_agent(self, tenant_id: TenantId, agent_id: AgentId) -> None:
        """Writes an agent's cursors at once, because its connection ended."""
        who = (tenant_id, agent_id)
        await self._write([(who, channel_id) for channel_id in self._unwritten.get(who, {})])

    async def _write(self, due: list[tuple[Who, ChannelId]]) -> None:
        for start in range(0, len(due), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for who, channel_id in due[start : start + AT_ONCE]:
                    group.create_task(self._write_one(who, channel_id))

    async def _write_one(self, who: Who, channel_id: ChannelId) -> None:
        with self.supervisor.contain(channel=channel_id, agent=who[1]):
            await self._try_write(who, channel_id)

    async def _try_write(self, who: Who, channel_id: ChannelId) -> None:
        cursor = self._unwritten.get(who, {}).get(channel_id)
        if cursor is None:
            return
        tenant_id, agent_id = who
        try:
            await self._store.tenant(tenant_id).subscriptions.write_cursor(channel_id, agent_id, cursor)
        except OurFault as exc:
            log.warning("cursor.not_written", channel=channel_id, agent=agent_id, error=str(exc))
            return
        self._remember(who, channel_id, cursor)
        channels = self._unwritten.get(who, {})
        if channels.get(channel_id) == cursor:  # else it moved on while this was being written
            del channels[channel_id]
            if not channels:
                self._unwritten.pop(who, None)

    def _remember(self, who: Who, channel_id: ChannelId, cursor: Cursor) -> None:
        now = time.monotonic()
        if now - self._period_began > REMEMBER_S:
            self._written, self._period_began = [{}, self._written[0]], now
        self._written[0].setdefault(who, {})[channel_id] = cursor
