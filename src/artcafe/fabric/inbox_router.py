"""The inboxes of a tenant's agents, followed by one subscription of this server for all of them.

An idle agent's inbox has no reader: its connection waits here, and is woken by the first message that it may lack. A new
connection, and each one after a lost connection to NATS, is compared with the log, hundreds in one request (decision record 49).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

from nats.aio.msg import Msg

from artcafe.fabric.log_state import CheckedEnd, LogState
from artcafe.fabric.nats.client import FastHandler, IncomingMessage
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.jetstream import seq_of
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.fabric.tenant_log import NewestInbox, TenantLog
from artcafe.model import AgentId, ChannelId, Cursor, Epoch, Seq
from artcafe.rules import inboxes, start_position, subjects
from artcafe.rules.start_position import LogLineage
from artcafe.supervision import Supervisor

AT_ONCE: Final = 250
"""Inboxes compared by one request."""

OnMessage = Callable[[Msg], Awaitable[None]]
Unsubscribe = Callable[[], Awaitable[None]]


class InboxWaiter(Protocol):
    """A connection of an agent whose inbox has no delivery."""

    def wake_inbox(self) -> None:
        """Begin the delivery: the inbox may have a message that was not sent. Called once; must not raise."""
        ...


class _Reader(NamedTuple):
    """The two ways to pass a message to a `ChannelReader`."""

    on_message: OnMessage
    fast: FastHandler


class _Entry(NamedTuple):
    """The position of a connection in its agent's inbox, to be compared with the log."""

    agent_id: AgentId
    cursor: Cursor
    removed_to: Cursor

    def is_behind(self, state: LogState | None, newest: Seq) -> bool:
        """Return whether the inbox, whose newest sequence is `newest`, has a message or a gap above the position."""
        lineage, end = (LogLineage(None), 0) if state is None else (state.lineage, state.last_seq)
        seq, gap = start_position.resolve("cursor", self.cursor, lineage, end, self.removed_to)
        return gap is not None or newest > seq or seq > end


class InboxRouter:
    """Passes messages of inboxes to their readers, and wakes waiting connections. A part of `ChannelReaders`."""

    def __init__(self, log: TenantLog, due: asyncio.Event, checked: CheckedEnd) -> None:
        """`due` is set to have the log checked soon: `begin_check`, and then `compare`."""
        self._log, self._due, self._checked = log, due, checked
        self._subscription: SubjectSubscription | None = None
        self._opening = asyncio.Lock()
        self._readers: dict[str, _Reader] = {}
        """The readers of inboxes with a delivery, by the inbox's token."""
        self._waiting: dict[AgentId, tuple[InboxWaiter, ...]] = {}
        """The waiting connections. A tuple each: most agents have one connection, and an idle one must cost little."""
        self._new: dict[InboxWaiter, _Entry] = {}
        """Those of them that have not been compared with the log. The others lack nothing up to `_checked_to`."""
        self._agents: dict[str, AgentId] = {}
        """The waiting agents whose token is not their id: ids of an older system may have other characters."""
        self._checked_to: Seq = 0
        self._epoch: Epoch | None = None
        self._last_seq: Seq = 0
        """The log's epoch and last sequence at the last comparison."""
        self.supervisor = Supervisor("inboxes")

    def __len__(self) -> int:
        """Return the number of agents with a waiting connection."""
        return len(self._waiting)

    @property
    def is_comparing(self) -> bool:
        """Whether a connection has not been compared with the log yet."""
        return bool(self._new)

    # --- connections -------------------------------------------------------------------------------------------------

    def wait(self, waiter: InboxWaiter, agent_id: AgentId, cursor: Cursor, removed_to: Cursor) -> None:
        """Wake a connection once, as soon as the agent's inbox has a message or a gap above the cursor."""
        self._new[waiter] = _Entry(agent_id, cursor, removed_to)
        self._keep(agent_id, (*self._waiting.get(agent_id, ()), waiter))
        self._due.set()

    def leave(self, waiter: InboxWaiter, agent_id: AgentId) -> None:
        """Wake a connection no more. May be repeated."""
        self._new.pop(waiter, None)
        if waiter in (waiters := self._waiting.get(agent_id, ())):
            self._keep(agent_id, tuple(each for each in waiters if each is not waiter))

    def _keep(self, agent_id: AgentId, waiters: tuple[InboxWaiter, ...]) -> None:
        token = subjects.token(agent_id)
        if waiters:
            self._waiting[agent_id] = waiters
            if token != agent_id:
                self._agents[token] = agent_id
        else:
            self._waiting.pop(agent_id, None)
            self._agents.pop(token, None)

    def _wake(self, agent_id: AgentId) -> None:
        for waiter in self._waiting.get(agent_id, ()):
            self._wake_one(waiter, agent_id)

    def _wake_one(self, waiter: InboxWaiter, agent_id: AgentId) -> None:
        self.leave(waiter, agent_id)
        with self.supervisor.contain(agent=agent_id):
            waiter.wake_inbox()

    # --- messages ----------------------------------------------------------------------------------------------------

    async def subscribe(self, inbox: ChannelId, on_message: OnMessage, fast: FastHandler) -> Unsubscribe:
        """Pass the messages of one inbox to its reader, as `NatsConnection.subscribe` does. Return a function that ends it.

        Raise `Unavailable`.
        """
        token, reader = _token(subjects.stored(inbox)), _Reader(on_message, fast)
        await self._open()
        self._readers[token] = reader

        async def unsubscribe() -> None:
            if self._readers.get(token) is reader:
                del self._readers[token]

        return unsubscribe

    async def _open(self) -> None:
        async with self._opening:
            if self._subscription is None:
                connection = self._log.connection
                self._subscription = await connection.subscribe(subjects.LIVE_INBOXES, self._on_live, self._take)

    def _take(self, live: IncomingMessage) -> bool:
        token = _token(live.header(b"Nats-Subject"))
        self._wake(self._agents.get(token, AgentId(token)))
        reader = self._readers.get(token)
        if reader is not None:
            return reader.fast(live)
        self._checked.note(seq_of(live))
        return True

    async def _on_live(self, msg: Msg) -> None:
        """Pass on a message that its reader did not take at once."""
        reader = self._readers.get(_token((msg.headers or {}).get("Nats-Subject", "")))
        if reader is not None:
            await reader.on_message(msg)

    # --- comparison with the log -------------------------------------------------------------------------------------

    async def begin_check(self) -> dict[InboxWaiter, _Entry]:
        """Return the new connections, to be compared with a state of the log that is read after that. Raise `Unavailable`."""
        if self._waiting:
            await self._open()  # First, so that no message comes between the comparison and the subscription.
        return dict(self._new)

    async def compare(self, new: dict[InboxWaiter, _Entry], state: LogState | None) -> None:
        """Compare new connections with the log, and all others if it has grown. Raise `Unavailable`."""
        if not self._waiting:
            return
        epoch, last_seq = (None, 0) if state is None else (state.epoch, state.last_seq)
        if self._epoch not in (None, epoch):  # Sequences have another meaning in another log.
            for agent_id in list(self._waiting):
                self._wake(agent_id)
            self._checked_to = 0
        elif new or last_seq != self._last_seq:
            newest = None if state is None else await self._log.newest_inbox()
            await self._compare(new, state, newest)
            self._checked_to = max(self._checked_to, 0 if newest is None else newest.seq)
        self._epoch, self._last_seq = epoch, last_seq

    async def _compare(self, new: dict[InboxWaiter, _Entry], state: LogState | None, newest: NewestInbox | None) -> None:
        """Wake the connections that lack something; the others go on waiting. Raise `Unavailable`."""
        agents = {entry.agent_id for entry in new.values()}
        if newest is not None and newest.seq > self._checked_to:
            agents.update(self._waiting)
        ordered = list(agents)
        for start in range(0, len(ordered), AT_ONCE):
            some = ordered[start : start + AT_ONCE]
            found = {} if newest is None else await self._newest_of(some, newest)
            for agent_id in some:
                for waiter in self._waiting.get(agent_id, ()):
                    self._settle(waiter, agent_id, new.get(waiter), state, found.get(agent_id, 0))

    async def _newest_of(self, agents: list[AgentId], newest: NewestInbox) -> dict[AgentId, Seq]:
        """Return the newest sequence of each inbox that has messages. Raise `Unavailable`.

        Any replica answers. One without the newest message of all inboxes lags, and is asked again.
        """
        asked = {agent_id: inboxes.inbox_of(agent_id) for agent_id in agents}
        found = await self._log.last_seqs([*asked.values(), newest.inbox])
        if found.get(subjects.stored(newest.inbox), 0) < newest.seq:
            raise unreachable()
        return {agent_id: found.get(subjects.stored(channel_id), 0) for agent_id, channel_id in asked.items()}

    def _settle(self, waiter: InboxWaiter, agent_id: AgentId, entry: _Entry | None, state: LogState | None, seq: Seq) -> None:
        """Wake a connection if it lacks something. `seq` is the newest one of its inbox; `entry` is set for a new connection."""
        if entry is None and waiter not in self._new:
            is_behind = seq > self._checked_to
        elif entry is not None and self._new.get(waiter) is entry:
            is_behind = entry.is_behind(state, seq)
            del self._new[waiter]
        else:
            return  # It began to wait after the comparison did.
        if is_behind:
            self._wake_one(waiter, agent_id)


def _token(subject: str) -> str:
    """Return the last part of a subject: the token of an inbox's agent."""
    return subject.rpartition(".")[2]
