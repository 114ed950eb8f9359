"""Fair shares of the server for tenants and their agents (decision record 26).

All clients of a server wait for each turn of its event loop. So while several tenants are active, the commands that each begins
in one turn are limited, and so are the messages in one group commit. Commands other than publishes take many turns, so their
concurrency is limited for each agent and tenant. Commands above a limit wait in a queue of the agent, and none is lost.
`fabric.log_writer` shares a tenant's log fairly between its agents.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from artcafe.model import Principal, TenantId
from artcafe.supervision import Supervisor

MOST_A_TURN: Final = 64
"""Commands of all active tenants in one turn of the event loop: some 4 ms of work. A tenant that is active alone is unlimited."""
LEAST_A_TURN: Final = 8
MOST_A_GROUP: Final = 128
"""Messages in one group commit, and so in one batch of replies, while several tenants are active: some 2 ms of work."""
AT_ONCE_OF_AGENT: Final = 8
"""Concurrent commands other than publishes: each takes up to 0.1 ms of a turn, and a page of history 200 turns."""
AT_ONCE_OF_TENANT: Final = 32
WINDOW_S: Final = 5.0
"""A tenant counts as active if it was active in this window or the previous one."""
QUANTUM: Final = 16
"""Commands that a waiting connection may begin before the next one gets its turn."""


class _Active:
    """Counts active tenants by windows of time, without a timer."""

    def __init__(self) -> None:
        self._window = -1
        self._before: set[Hashable] = set()
        self._now: set[Hashable] = set()
        self._fresh = 0
        """Number of entries in `_now` that are not in `_before`."""

    def note(self, who: Hashable, window: int) -> int:
        """Record activity in a window, and return the number of active tenants."""
        if window != self._window:
            self._before = self._now if window == self._window + 1 else set()
            self._window, self._now, self._fresh = window, set(), 0
        if who not in self._now:
            self._now.add(who)
            self._fresh += who not in self._before
        return len(self._before) + self._fresh


class _Tenant:
    """The share of a tenant."""

    __slots__ = ("__weakref__", "at_once", "begun", "id", "is_settling", "shares", "waiting", "window")

    def __init__(self, id: TenantId) -> None:
        self.id = id
        self.begun = 0
        """Commands begun in this turn of the event loop."""
        self.window = -1
        self.is_settling = False
        self.at_once = asyncio.Semaphore(AT_ONCE_OF_TENANT)
        self.shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self.waiting: OrderedDict[Share, None] = OrderedDict()
        """Shares with waiting commands, in the order of their turns."""


class Share:
    """The share of one agent, or of one person in a tenant. It lives as long as a connection references it."""

    __slots__ = ("__weakref__", "_at_once", "_server", "tenant", "waiters")

    def __init__(self, server: Shares, tenant: _Tenant) -> None:
        self._server, self.tenant = server, tenant
        self._at_once: asyncio.Semaphore | None = None
        self.waiters: deque[Callable[[], None]] = deque()

    @property
    def has_room(self) -> bool:
        """Whether a command may begin in this turn, and no earlier one is waiting."""
        return self.tenant.begun < self._server.most_a_turn and not self.waiters

    @property
    def is_open(self) -> bool:
        """Whether a command may begin in this turn. For a waiting command at its begin; else use `has_room`."""
        return self.tenant.begun < self._server.most_a_turn

    def enter(self) -> bool:
        """Begin a command if this turn has room, and return whether it began: `has_room` and `begin` in one call."""
        tenant = self.tenant
        if tenant.begun >= self._server.most_a_turn or self.waiters:
            return False
        tenant.begun += 1
        if not tenant.is_settling:
            self._server.begin_turn(tenant)
        return True

    def begin(self) -> None:
        """Count a new command."""
        tenant = self.tenant
        tenant.begun += 1
        if not tenant.is_settling:  # the first command of this turn
            self._server.begin_turn(tenant)

    def wait(self, waiter: Callable[[], None]) -> None:
        """Queue `waiter`: it is called once in a later turn, and may begin up to `QUANTUM` commands."""
        self.waiters.append(waiter)
        self.tenant.waiting.setdefault(self)
        if not self.tenant.is_settling:
            self._server.begin_turn(self.tenant)

    async def turn(self) -> None:
        """Begin a command now, or wait for the first turn with room."""
        if self.enter():
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def grant() -> None:
            if not granted.done():
                self.begin()
                granted.set_result(None)

        self.wait(grant)
        await granted

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one slot of the agent and one of the tenant for a command; wait until both are free."""
        if self._at_once is None:
            self._at_once = asyncio.Semaphore(AT_ONCE_OF_AGENT)
        async with self._at_once, self.tenant.at_once:
            yield


class Shares:
    """All shares of this server. `most_a_turn` limits the commands that each tenant begins in a turn of the event loop."""

    def __init__(self) -> None:
        self._tenants: WeakValueDictionary[TenantId, _Tenant] = WeakValueDictionary()
        self._active = _Active()
        self._settling: list[_Tenant] = []
        self.most_a_turn: float = math.inf
        self.supervisor = Supervisor("shares")

    def of(self, principal: Principal) -> Share:
        """Return the share of a principal. All of its connections use the same one."""
        tenant = self._tenants.get(principal.tenant_id)
        if tenant is None:
            tenant = self._tenants[principal.tenant_id] = _Tenant(principal.tenant_id)
        share = tenant.shares.get(principal.sender)
        if share is None:
            share = tenant.shares[principal.sender] = Share(self, tenant)
        return share

    @property
    def most_a_group(self) -> int:
        """Limit of messages in a group commit of any tenant."""
        return sys.maxsize if self.most_a_turn == math.inf else MOST_A_GROUP

    def begin_turn(self, tenant: _Tenant) -> None:
        """Register a tenant with work in this turn. The next turn resets its count."""
        window = int(time.monotonic() / WINDOW_S)
        if window != tenant.window:
            tenant.window = window
            active = self._active.note(tenant.id, window)
            self.most_a_turn = math.inf if active == 1 else max(LEAST_A_TURN, MOST_A_TURN // active)
        tenant.is_settling = True
        if not self._settling:
            asyncio.get_running_loop().call_soon(self._settle)
        self._settling.append(tenant)

    def _settle(self) -> None:
        settling, self._settling = self._settling, []
        for tenant in settling:
            tenant.is_settling, tenant.begun = False, 0
        for tenant in settling:
            self._dispatch(tenant)

    def _dispatch(self, tenant: _Tenant) -> None:
        """Call the tenant's waiters, one of each share in turn, while the turn has room."""
        while tenant.waiting and tenant.begun < self.most_a_turn:
            share, _ = tenant.waiting.popitem(last=False)
            with self.supervisor.contain(tenant=tenant.id):
                share.waiters.popleft()()
            if share.waiters:
                tenant.waiting[share] = None
        if tenant.waiting and not tenant.is_settling:
            self.begin_turn(tenant)
