"""Who of one tenant is connected, on whichever server: each tells the agents it holds, and is believed for a lease.

Nothing is stored, and what is told is told at most once (contract, sentence 12; decision record 10). Counting an agent's sockets,
and what its presence is called, is `services.presence`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import NoResponder, OurFault
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.model import AgentId
from artcafe.observe.logs import log
from artcafe.rules.subjects import PRESENCE, PRESENCE_ASK, Subject
from artcafe.supervision import Supervisor

LEASE_S: Final = 50.0
"""How long what a server told of an agent is believed: two renewals may get lost."""
RENEW_S: Final = 20.0
ASK_S: Final = 1.0
"""How long the others are waited for. Who has not answered by then tells with its next renewal, or is gone."""
RETRY_S: Final = 0.2
PORTION: Final = 500
"""Agents in one message: at most 170 KB with the longest statuses, and NATS takes 1 MiB."""


class AgentPresence(msgspec.Struct, frozen=True, array_like=True):
    """An agent on one server: since when, by that server's clock (None: it has left), and the status that was set there, when."""

    agent: AgentId
    since: datetime | None
    status: str | None = None
    status_at: datetime | None = None

    def is_newer(self, other: AgentPresence) -> bool:
        """Whether its status was set later than the other's."""
        return self.status_at is not None and (other.status_at is None or self.status_at > other.status_at)


class PresenceUpdate(msgspec.Struct, frozen=True, array_like=True):
    """What a server says of its agents. `is_end`: with this, everything that it holds has been told."""

    server: str
    seats: list[AgentPresence]
    is_end: bool


_encode = msgspec.json.Encoder().encode
_told = msgspec.json.Decoder(PresenceUpdate)
_names = msgspec.json.Decoder(list[str])


class PresenceRegistry:
    """One tenant's agents, those of this server exactly and those of the others as they were told.

    It joins the others (listens, asks what they hold, tells what this one holds) when somebody wants to know or there is
    something to tell, and again with each new connection, which may have missed something.
    """

    def __init__(self, connection: NatsConnection, server: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S) -> None:
        """`server` is this server's name, as no other has it."""
        self._connection, self._server = connection, server
        self._lease_s, self._renew_s = lease_s, renew_s
        self._own: dict[AgentId, AgentPresence] = {}
        self._others: dict[str, dict[AgentId, tuple[AgentPresence, float]]] = {}
        """By server: what it told of each agent, and until when (monotonic) that is believed."""
        self._untold: set[AgentId] = set()
        self._due = asyncio.Event()
        self._wanted = asyncio.Event()
        self._is_stale = True
        """The connection is newer than the last joining."""
        self._is_known = False
        self._settled = asyncio.Event()
        """PendingPublish longer would not tell more now."""
        self._heard: set[str] = set()
        self._news = asyncio.Event()
        self._follows: list[SubjectSubscription] = []
        self._watchers: list[Callable[[AgentId], None]] = []
        self.supervisor = Supervisor("roster")
        connection.on_up(self._begin_anew)

    def __len__(self) -> int:
        """How many agents this server holds."""
        return len(self._own)

    # --- who looks on --------------------------------------------------------------------------------------------------

    def watch(self, callback: Callable[[AgentId], None]) -> None:
        """Have `callback` called with every agent whose presence may have changed."""
        self._watchers.append(callback)

    def unwatch(self, callback: Callable[[AgentId], None]) -> None:
        self._watchers.remove(callback)

    @property
    def is_watched(self) -> bool:
        return bool(self._watchers)

    def _say(self, agents: Iterable[AgentId]) -> None:
        for agent in agents if self._watchers else ():
            for callback in list(self._watchers):
                with self.supervisor.contain(agent=agent):
                    callback(agent)

    # --- what this server holds ----------------------------------------------------------------------------------------

    def own(self, agent: AgentId) -> AgentPresence | None:
        """The agent as this server holds it."""
        return self._own.get(agent)

    def put(self, seat: AgentPresence) -> None:
        """The agent is here, or its status is another; the others hear of it soon."""
        self._own[seat.agent] = seat
        self._tell_soon(seat.agent)
        self._say([seat.agent])

    def remove(self, agent: AgentId) -> None:
        """The agent is here no more. May be repeated."""
        if self._own.pop(agent, None) is not None:
            self._tell_soon(agent)
            self._say([agent])

    def _tell_soon(self, agent: AgentId) -> None:
        self._untold.add(agent)
        self._wanted.set()
        self._due.set()

    # --- what all of them hold -----------------------------------------------------------------------------------------

    async def is_known(self) -> bool:
        """Whether `find` knows of all servers; waits a moment for the first answers. Without NATS it does not."""
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * ASK_S):
                await self._settled.wait()
        return self._is_known and self._connection.is_up

    def agents(self) -> set[AgentId]:
        """Every agent that may be connected, on whichever server."""
        return {*self._own, *(agent for held in self._others.values() for agent in held)}

    def find(self, agent: AgentId) -> AgentPresence | None:
        """The agent, on however many servers: since the first of them, with the status that was set last. None: on none."""
        now = time.monotonic()
        seats = [seat for held in self._others.values() for seat, until in [held.get(agent, _NOWHERE)] if until > now]
        if agent in self._own:
            seats.append(self._own[agent])
        found: AgentPresence | None = None
        for seat in seats:
            found = seat if found is None else _merged(found, seat)
        return found

    # --- the loop --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps this server and the others told of each other, once there is a reason to, until cancelled."""
        await self._wanted.wait()
        while True:
            try:
                await self._connection.wait_up(ASK_S)
                await self._join()
                await self._keep_told()
            except OurFault as exc:
                log.debug("roster.apart", error=repr(exc))
                self._settled.set()
                await asyncio.sleep(RETRY_S)

    def _begin_anew(self) -> None:
        self._is_stale, self._is_known = True, False
        self._settled.clear()
        self._due.set()

    async def _join(self) -> None:
        """Of two servers that join at the same time at least one hears the other: each listens before it asks, and tells after it
        can be asked. While it asks, it must not be there to be asked, or NATS could not say that nobody else is."""
        self._is_stale = False
        while self._follows:
            await self._connection.unsubscribe(self._follows.pop())
        self._heard.clear()
        self._follows.append(await self._connection.subscribe(PRESENCE, self._on_told, self._take))
        await self._ask()
        self._follows.append(await self._connection.subscribe(PRESENCE_ASK, self._on_asked))
        await self._tell(list(self._own), is_end=True)
        self._is_known = not self._is_stale
        self._settled.set()

    async def _ask(self) -> None:
        """Returns when every server with agents of the tenant has told them: each tells, and names the others it knows of."""
        with contextlib.suppress(NoResponder, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(ASK_S):
                answer = await self._connection.request(PRESENCE_ASK, b"", timeout_s=ASK_S)
                named = set(_names.decode(answer.data)) - {self._server}
                while not named <= self._heard:
                    self._news.clear()
                    await self._news.wait()

    async def _keep_told(self) -> None:
        """Tells what changes at once and everything every `renew_s`. Returns when there is a new connection."""
        renew_at = time.monotonic() + self._renew_s
        while not self._is_stale:
            await self._tell_changes()
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + self._renew_s
                self._forget_expired()
                await self._tell(list(self._own), is_end=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(renew_at - time.monotonic()):
                    await self._due.wait()
            self._due.clear()

    # --- telling and being told -----------------------------------------------------------------------------------------

    async def _tell_changes(self) -> None:
        changed, self._untold = self._untold, set()
        try:
            await self._tell(list(changed), is_end=False)
        except OurFault:
            self._untold |= changed
            raise

    async def _tell(self, agents: list[AgentId], *, is_end: bool) -> None:
        """Tells how each agent is as its portion leaves, so that no older word follows a newer one. Raises `Unavailable`."""
        for start in range(0, len(agents), PORTION):
            seats = [self._own.get(agent) or AgentPresence(agent, None) for agent in agents[start : start + PORTION]]
            told = PresenceUpdate(self._server, seats, is_end and start + PORTION >= len(agents))
            await self._connection.send(OutgoingMessage(PRESENCE, "", _encode(told)))

    async def _on_asked(self, msg: Msg) -> None:
        try:
            await self._tell(list(self._own), is_end=True)
            now = time.monotonic()
            others = [name for name, held in self._others.items() if any(until > now for _, until in held.values())]
            names = [*others, *([self._server] if self._own else [])]
            await self._connection.send(OutgoingMessage(Subject(msg.reply), "", _encode(names)))
        except OurFault as exc:  # who asked waits a moment, and hears the next renewal
            log.debug("roster.not_answered", error=repr(exc))

    async def _on_told(self, msg: Msg) -> None:
        self._take(IncomingMessage(msg.data, None))

    def _take(self, incoming: IncomingMessage) -> bool:
        try:
            told = _told.decode(incoming.data)
        except msgspec.DecodeError as exc:
            log.warning("roster.not_understood", error=str(exc))
            return True
        if told.server != self._server:
            self._hear(told.server, told.seats)
            if told.is_end:
                self._heard.add(told.server)
                self._news.set()
        return True

    def _hear(self, server: str, seats: Sequence[AgentPresence]) -> None:
        held = self._others.setdefault(server, {})
        until = time.monotonic() + self._lease_s
        for seat in seats:
            if seat.since is not None:
                held[seat.agent] = (seat, until)
            elif (left := held.pop(seat.agent, None)) is not None:
                self._inherit(left[0])
        if not held:
            del self._others[server]
        self._say([seat.agent for seat in seats])

    def _inherit(self, left: AgentPresence) -> None:
        """A status ends with the agent's last socket: where others of its sockets are here, it goes on here."""
        own = self._own.get(left.agent)
        if own is not None and left.is_newer(own):
            self.put(msgspec.structs.replace(own, status=left.status, status_at=left.status_at))

    def _forget_expired(self) -> None:
        now = time.monotonic()
        for server, held in list(self._others.items()):
            gone = [agent for agent, (_, until) in held.items() if until <= now]
            for agent in gone:
                del held[agent]
            if not held:
                del self._others[server]
            self._say(gone)


_NOWHERE: Final = (AgentPresence(AgentId(""), None), 0.0)


def _merged(one: AgentPresence, other: AgentPresence) -> AgentPresence:
    assert one.since is not None
    assert other.since is not None
    newest = other if other.is_newer(one) else one
    return msgspec.structs.replace(newest, since=min(one.since, other.since))
