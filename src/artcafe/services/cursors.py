"""Cursors: the acknowledged position of each subscription, buffered in memory and written to its row periodically.

A cursor never moves back, unless a request moves it (`services.cursor_moves`): acks of an earlier delivery are void then. After a
lost write messages are delivered again; none is lost (design, decision 5).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from artcafe.errors import OurFault
from artcafe.model import AgentId, ChannelId, Cursor, Subscription, TenantId
from artcafe.observe.clock import Clock, now
from artcafe.observe.logs import log
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

AT_ONCE: Final = 64
"""Concurrent writes; the SQLite engine puts them into one commit."""

REMEMBER_S: Final = 30.0

Who = tuple[TenantId, AgentId]
Known = dict[Who, dict[ChannelId, Cursor]]


class Cursors:
    """The cursors of the agents connected to this server."""

    def __init__(self, store: Store, write_s: float, clock: Clock = now) -> None:
        self._store, self._write_s, self._clock = store, write_s, clock
        self._unwritten: Known = {}
        self._written: list[Known] = [{}, {}]
        """Cursors written in this period of `REMEMBER_S` and the previous one: a row read before a write, and used after it, must
        not move the cursor back."""
        self._period_began = time.monotonic()
        self.supervisor = Supervisor("cursors")

    def acknowledge(self, tenant_id: TenantId, channel_id: ChannelId, agent_id: AgentId, cursor: Cursor) -> None:
        """Move a cursor forward, to be written within `write_s` seconds. A cursor below the known one is ignored."""
        channels = self._unwritten.setdefault((tenant_id, agent_id), {})
        known = channels.get(channel_id)
        if known is None or is_newer(cursor, known):
            channels[channel_id] = cursor

    async def write_now(self, tenant_id: TenantId, channel_id: ChannelId, agent_id: AgentId, cursor: Cursor) -> None:
        """Move a cursor forward, and write it before the return. May be repeated.

        Raises `Unavailable`; the cursor is then written later, unless the server ends.
        """
        self.acknowledge(tenant_id, channel_id, agent_id, cursor)
        await self._write_known((tenant_id, agent_id), channel_id)

    def newest(self, subscription: Subscription) -> Cursor:
        """Return the newest cursor: of the subscription's row, or of an ack received after the row was read."""
        who, channel_id = (subscription.tenant_id, subscription.agent_id), subscription.channel_id
        newest = subscription.cursor
        for known in self._written:
            written = known.get(who, {}).get(channel_id)
            if written is not None and written.moves == newest.moves and newest.epoch in (None, written.epoch):
                newest = max(newest, written, key=lambda cursor: cursor.seq)
        unwritten = self._unwritten.get(who, {}).get(channel_id)
        return unwritten if unwritten is not None and is_newer(unwritten, newest) else newest

    def known(self, tenant_id: TenantId, channel_id: ChannelId, agent_id: AgentId) -> Cursor | None:
        """Return the newest ack of an agent in this server's memory, or None."""
        who = (tenant_id, agent_id)
        for acks in (self._unwritten, *self._written):
            cursor = acks.get(who, {}).get(channel_id)
            if cursor is not None:
                return cursor
        return None

    def has_unwritten(self, tenant_id: TenantId, agent_id: AgentId) -> bool:
        """Return whether an ack of the agent is not written yet."""
        return (tenant_id, agent_id) in self._unwritten

    async def run(self) -> None:
        """Write the moved cursors every `write_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._write_s)
            await self.write_all()

    async def write_all(self) -> None:
        """Write every moved cursor. A failed write is retried with the next call."""
        due = [(who, channel_id) for who, channels in self._unwritten.items() for channel_id in channels]
        await self._write(due)

    async def write_agent(self, tenant_id: TenantId, agent_id: AgentId) -> None:
        """Write an agent's cursors at once, after its connection ended."""
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
        try:
            await self._write_known(who, channel_id)
        except OurFault as exc:
            log.warning("cursor.not_written", channel=channel_id, agent=who[1], error=str(exc))

    async def _write_known(self, who: Who, channel_id: ChannelId) -> None:
        cursor = self._unwritten.get(who, {}).get(channel_id)
        if cursor is None:
            return
        tenant_id, agent_id = who
        await self._store.tenant(tenant_id).subscriptions.write_cursor(channel_id, agent_id, cursor, self._clock())
        self._remember(who, channel_id, cursor)
        channels = self._unwritten.get(who, {})
        if channels.get(channel_id) == cursor:  # else it moved during the write
            del channels[channel_id]
            if not channels:
                self._unwritten.pop(who, None)

    def _remember(self, who: Who, channel_id: ChannelId, cursor: Cursor) -> None:
        now = time.monotonic()
        if now - self._period_began > REMEMBER_S:
            self._written, self._period_began = [{}, self._written[0]], now
        self._written[0].setdefault(who, {})[channel_id] = cursor


def is_newer(cursor: Cursor, known: Cursor) -> bool:
    """Return whether an ack's cursor replaces a known one: of a later move, or of the same one and further, or in another log."""
    if cursor.moves != known.moves:
        return cursor.moves > known.moves
    return cursor.epoch != known.epoch or cursor.seq > known.seq
