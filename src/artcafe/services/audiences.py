"""How many agents receive a channel, and how many of them are connected: for the answers to publishes, without table reads.

The first publish to a channel has its subscriptions read in the background; later ones find two numbers. A change of a
subscription, announced by any server, has that row read again, and a change of presence moves one agent. While something is being
read the numbers are unknown (decision record 52).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from artcafe.errors import OurFault
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.presence_registry import PresenceRegistry
from artcafe.model import AgentId, ChannelId, Permission, TenantChange, TenantId
from artcafe.observe.logs import log
from artcafe.rules import inboxes
from artcafe.rules.pages import MAX_LIMIT, each_page
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

MAX_MEMBERS: Final = 200_000
"""Subscriptions counted by a server at once, some 0.15 KB each. The audience of a channel beyond them is unknown."""
IDLE_S: Final = 60.0
"""An audience that no publish needed for this long is dropped."""
RETRY_S: Final = 1.0
WAIT_S: Final = 0.25
"""Longest wait of an answer over REST for an audience that is being read."""
READS_AT_ONCE: Final = 4


class Audience(NamedTuple):
    """A channel's active subscriptions that may receive, and how many of their agents are connected to any server. None:
    unknown."""

    subscribers: int | None
    connected: int | None


UNKNOWN: Final = Audience(None, None)


class _CountedChannel:
    """The audience of one channel: its receiving agents, and the connected ones among them."""

    __slots__ = (
        "audience",
        "changed",
        "channel_id",
        "connected",
        "is_read",
        "is_used",
        "is_worked_on",
        "members",
        "needed",
        "reading",
        "ready",
        "references",
        "registry",
        "tenant_id",
    )

    def __init__(self, tenant_id: TenantId, channel_id: ChannelId, registry: PresenceRegistry) -> None:
        self.tenant_id, self.channel_id, self.registry = tenant_id, channel_id, registry
        self.members: set[AgentId] = set()
        self.connected: set[AgentId] = set()
        self.changed: set[AgentId] = set()
        self.reading: set[AgentId] = set()
        """Agents whose subscription must be read again, and those for which this is in progress."""
        self.references: set[str] = set()
        self.is_read = self.is_worked_on = False
        self.needed = 0
        """The members found when there was no room for more, at least; 0 while there is."""
        self.is_used = True
        self.ready = asyncio.Event()
        self.audience = UNKNOWN

    @property
    def is_too_large(self) -> bool:
        """Whether there was no room for its members."""
        return self.needed > 0

    def set_member(self, agent_id: AgentId, *, receives: bool) -> None:
        if receives:
            self.members.add(sys.intern(agent_id))  # type: ignore[arg-type]  # interning returns an equal text
            self.look(agent_id)
        else:
            self.members.discard(agent_id)
            self.connected.discard(agent_id)

    def look(self, agent_id: AgentId) -> None:
        """Read whether a member is connected."""
        if self.registry.find(agent_id) is None:
            self.connected.discard(agent_id)
        else:
            self.connected.add(agent_id)

    def show(self) -> None:
        """Set the numbers for answers."""
        if self.is_read and not self.changed and not self.reading:
            self.audience = Audience(len(self.members), len(self.connected))
            self.ready.set()
        else:
            self.audience = UNKNOWN
            self.ready.clear()


class Audiences:
    """The audiences of the channels to which this server publishes."""

    def __init__(self, store: Store, fabric: Fabric, record_cache: RecordCache) -> None:
        self._store, self._fabric, self._record_cache = store, fabric, record_cache
        self._by_reference: dict[tuple[TenantId, str], _CountedChannel] = {}
        """By what publishers call the channel: its id or its handle."""
        self._tenants: dict[TenantId, dict[ChannelId, _CountedChannel]] = {}
        self._watches: dict[TenantId, tuple[PresenceRegistry, Callable[[AgentId], None]]] = {}
        self._due: dict[_CountedChannel, None] = {}
        self._is_due = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self.supervisor = Supervisor("audiences")
        fabric.on_tenant_failure(self._forget_tenant)

    def peek(self, tenant_id: TenantId, channel: str) -> Audience:
        """Return the audience of a channel, given by its id or handle. If it is unknown, have it read for later answers."""
        counted = self._by_reference.get((tenant_id, channel))
        if counted is None:
            counted = self._begin(tenant_id, channel)
            if counted is None:
                return UNKNOWN
        counted.is_used = True
        if counted.registry.is_known_now:
            return counted.audience
        return Audience(counted.audience.subscribers, None)

    async def wait(self, tenant_id: TenantId, channel: str) -> Audience:
        """Return the audience of a channel, after waiting a moment for it if it is being read."""
        audience = self.peek(tenant_id, channel)
        counted = self._by_reference.get((tenant_id, channel))
        if audience.subscribers is None and counted is not None:
            if counted.is_too_large:
                return UNKNOWN
            try:
                async with asyncio.timeout(WAIT_S):
                    await counted.ready.wait()
            except TimeoutError:
                return UNKNOWN
            return self.peek(tenant_id, channel)
        return audience

    # --- changes -----------------------------------------------------------------------------------------------------

    def on_change(self, change: TenantChange) -> None:
        """Have the changed subscriptions read again."""
        if change.is_whole:
            self._forget_tenant(change.tenant_id)
            return
        channels = self._tenants.get(change.tenant_id)
        if channels is None:
            return
        for channel_id in change.channels:  # It may be deleted, or have another handle.
            self._forget(change.tenant_id, channel_id)
        for channel_id, agent_id in change.subscriptions:
            if channel_id in channels:
                self._read_again(channels[channel_id], agent_id)
        for agent_id in change.agents:  # The deletion of an agent deletes its subscriptions without naming them.
            for counted in channels.values():
                if agent_id in counted.members:
                    self._read_again(counted, agent_id)

    def _read_again(self, counted: _CountedChannel, agent_id: AgentId) -> None:
        counted.changed.add(agent_id)
        counted.show()
        self._schedule(counted)

    def _on_presence(self, channels: dict[ChannelId, _CountedChannel], agent_id: AgentId) -> None:
        for counted in channels.values():
            if agent_id in counted.members:
                counted.look(agent_id)
                counted.show()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read due rows, and drop idle audiences, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._drop_idle())
            while True:
                await self._is_due.wait()
                self._is_due.clear()
                due, self._due = self._due, {}
                for counted in due:
                    group.create_task(self._work(counted))

    def _schedule(self, counted: _CountedChannel) -> None:
        self._due[counted] = None
        self._is_due.set()

    def _begin(self, tenant_id: TenantId, reference: str) -> _CountedChannel | None:
        channel = self._record_cache.peek_destination(tenant_id, reference)
        tenant_fabric = self._fabric.peek(tenant_id)
        if channel is None or tenant_fabric is None:
            return None
        channels = self._tenants.setdefault(tenant_id, {})
        if tenant_id not in self._watches:
            watch = partial(self._on_presence, channels)
            tenant_fabric.presence.watch(watch)
            self._watches[tenant_id] = (tenant_fabric.presence, watch)
        counted = channels.get(channel.id)
        if counted is None:
            counted = channels[channel.id] = _CountedChannel(tenant_id, channel.id, tenant_fabric.presence)
            self._schedule(counted)
        self._by_reference[tenant_id, reference] = counted
        counted.references.add(reference)
        return counted

    async def _work(self, counted: _CountedChannel) -> None:
        """Read a channel's subscriptions for the first time, and the changed ones, until none is left."""
        if counted.is_worked_on:
            return
        counted.is_worked_on = True
        try:
            async with self._reads:
                while self._is_counted(counted) and not counted.is_too_large and (counted.changed or not counted.is_read):
                    with self.supervisor.contain(channel=counted.channel_id):
                        await self._try_read(counted)
        finally:
            counted.is_worked_on = False

    async def _try_read(self, counted: _CountedChannel) -> None:
        try:
            if not counted.is_read:
                await self._read_all(counted)
            while counted.changed:
                await self._read_changed(counted)
        except OurFault as exc:
            log.debug("audiences.waits", channel=counted.channel_id, error=repr(exc))
            await asyncio.sleep(RETRY_S)
        counted.show()

    async def _read_all(self, counted: _CountedChannel) -> None:
        await counted.registry.is_known()
        if (owner := inboxes.owner_of(counted.channel_id)) is not None:  # It has no row; the agent receives it.
            counted.set_member(owner, receives=True)
            counted.is_read = True
            return
        subscriptions = self._store.tenant(counted.tenant_id).subscriptions
        async for page in each_page(partial(subscriptions.of_channel, counted.channel_id)):
            for row in page.items:
                counted.set_member(row.agent_id, receives=row.allows(Permission.RECEIVE))
            if self._members() > MAX_MEMBERS:
                counted.needed = max(1, len(counted.members))
                counted.members, counted.connected = set(), set()
                return
            await asyncio.sleep(0)  # A read of the embedded tables may not have yielded.
        counted.is_read = True

    async def _read_changed(self, counted: _CountedChannel) -> None:
        counted.reading, counted.changed = counted.changed, set()
        agents = sorted(counted.reading)[:MAX_LIMIT]
        counted.changed |= counted.reading.difference(agents)
        try:
            pairs = [(counted.channel_id, agent_id) for agent_id in agents]
            rows = await self._store.tenant(counted.tenant_id).subscriptions.get_many(pairs)
        except OurFault:
            counted.changed |= counted.reading
            raise
        finally:
            counted.reading = set()
        for agent_id, row in zip(agents, rows, strict=True):
            counted.set_member(agent_id, receives=row is not None and row.allows(Permission.RECEIVE))

    # --- forgetting --------------------------------------------------------------------------------------------------

    async def _drop_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE_S)
            self.drop_idle()

    def drop_idle(self) -> None:
        """Drop the audiences not used since the last call, and those of tenants closed since. One too large is read again
        once there is room for what was found of it."""
        registries = {id(each.presence) for each in self._fabric.open_tenants()}
        for counted in self._all():
            has_room_now = counted.is_too_large and self._members() + counted.needed <= MAX_MEMBERS
            if has_room_now or not counted.is_used or id(counted.registry) not in registries:
                self._forget(counted.tenant_id, counted.channel_id)
            counted.is_used = False

    def _all(self) -> list[_CountedChannel]:
        return [counted for channels in self._tenants.values() for counted in channels.values()]

    def _members(self) -> int:
        return sum(len(each.members) for each in self._all())

    def _is_counted(self, counted: _CountedChannel) -> bool:
        return self._tenants.get(counted.tenant_id, {}).get(counted.channel_id) is counted

    def _forget(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        channels = self._tenants.get(tenant_id, {})
        counted = channels.pop(channel_id, None)
        if counted is None:
            return
        for reference in counted.references:
            del self._by_reference[tenant_id, reference]
        if not channels:
            self._forget_tenant(tenant_id)

    def _forget_tenant(self, tenant_id: TenantId) -> None:
        channels = self._tenants.pop(tenant_id, {})
        for counted in channels.values():
            for reference in counted.references:
                del self._by_reference[tenant_id, reference]
        channels.clear()  # A watch refers to it.
        if (watched := self._watches.pop(tenant_id, None)) is not None:
            registry, watch = watched
            registry.unwatch(watch)
