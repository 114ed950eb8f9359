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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from artcafe.model import Principal, TenantId
from artcafe.supervision import Supervisor

MAX_COMMANDS_PER_TURN: Final = 64
"""Commands of all active tenants in one turn of the event loop: some 4 ms of work. A tenant that is active alone is unlimited."""
MIN_COMMANDS_PER_TURN: Final = 8
MAX_MESSAGES_PER_GROUP: Final = 128
"""Messages in one group commit, and so in one batch of replies, while several tenants are active: some 2 ms of work."""
MAX_CONCURRENT_PER_AGENT: Final = 8
"""Concurrent commands other than publishes: each takes up to 0.1 ms of a turn, and a page of history 200 turns."""
MAX_CONCURRENT_PER_TENANT: Final = 32
WINDOW_S: Final = 5.0
"""A tenant counts as active if it was active in this window or the previous one."""
QUANTUM: Final = 16
"""Commands that a waiting connection may begin before the next one gets its turn."""


class _Active:
    """Counts active tenants by windows of time, without a timer."""

    def __init__(self) -> None:
        self._window = -1
        self._before: set[TenantId] = set()
        self._now: set[TenantId] = set()
        self._fresh = 0
        """Number of entries in `_now` that are not in `_before`."""

    def note(self, who: TenantId, window: int) -> int:
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

    __slots__ = ("__weakref__", "at_once", "begun", "id", "is_counted", "shares", "waiting", "window")

    def __init__(self, id: TenantId) -> None:
        self.id = id
        self.begun = 0
        """Commands begun in this turn of the event loop."""
        self.window = -1
        self.is_counted = False
        self.at_once = asyncio.Semaphore(MAX_CONCURRENT_PER_TENANT)
        self.shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self.waiting: OrderedDict[Share, None] = OrderedDict()
        """Shares with waiting commands, in the order of their turns."""


class Share:
    """The share of one agent, or of one person in a tenant. It lives as long as a connection references it."""

    __slots__ = ("__weakref__", "_at_once", "_server", "requests", "sender", "tenant", "waiters")

    def __init__(self, server: Shares, tenant: _Tenant, sender: str) -> None:
        self._server, self.tenant, self.sender = server, tenant, sender
        self.requests = 0
        """Commands to be counted in the tenant's usage, since the last `Shares.take_requests`."""
        self._at_once: asyncio.Semaphore | None = None
        self.waiters: deque[Callable[[], None]] = deque()

    @property
    def can_begin(self) -> bool:
        """Whether a command may begin in this turn, and no earlier one is waiting."""
        return self.tenant.begun < self._server.max_per_turn and not self.waiters

    @property
    def is_open(self) -> bool:
        """Whether a command may begin in this turn. Ignores the queue: for the command at its head. Others use `can_begin`."""
        return self.tenant.begun < self._server.max_per_turn

    def enter(self) -> bool:
        """Begin a command if this turn has room, and return whether it began: `can_begin` and `begin` in one call."""
        tenant = self.tenant
        if tenant.begun >= self._server.max_per_turn or self.waiters:
            return False
        tenant.begun += 1
        if not tenant.is_counted:
            self._server.register(tenant)
        return True

    def count_request(self) -> None:
        """Count a command in the tenant's usage."""
        if not self.requests:
            self._server.used.append(self)  # this keeps the share until its requests are taken
        self.requests += 1

    def begin(self) -> None:
        """Count a new command."""
        tenant = self.tenant
        tenant.begun += 1
        if not tenant.is_counted:  # the first command of this turn
            self._server.register(tenant)

    def wait(self, waiter: Callable[[], None]) -> None:
        """Queue `waiter`: it is called once in a later turn, and may begin up to `QUANTUM` commands."""
        self.waiters.append(waiter)
        self.tenant.waiting.setdefault(self)
        if not self.tenant.is_counted:
            self._server.register(self.tenant)

    def charge(self, commands: int) -> None:
        """Count a begun command as several more, so that the tenant begins fewer in this turn."""
        self.tenant.begun += commands

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
    async def slot(self) -> AsyncIterator[None]:
        """Hold one slot of the agent and one of the tenant for a command; wait until both are free."""
        if self._at_once is None:
            self._at_once = asyncio.Semaphore(MAX_CONCURRENT_PER_AGENT)
        async with self._at_once, self.tenant.at_once:
            yield


class Shares:
    """All shares of this server. `max_per_turn` limits each tenant's new commands in a turn of the event loop."""

    def __init__(self) -> None:
        self._tenants: WeakValueDictionary[TenantId, _Tenant] = WeakValueDictionary()
        self._active = _Active()
        self._counted: list[_Tenant] = []
        self.used: list[Share] = []
        """Shares with `requests`."""
        self.max_per_turn: float = math.inf
        self.supervisor = Supervisor("shares")

    def of(self, principal: Principal) -> Share:
        """Return the share of a principal. All of its connections use the same one."""
        tenant = self._tenants.get(principal.tenant_id)
        if tenant is None:
            tenant = self._tenants[principal.tenant_id] = _Tenant(principal.tenant_id)
        share = tenant.shares.get(principal.sender)
        if share is None:
            share = tenant.shares[principal.sender] = Share(self, tenant, principal.sender)
        return share

    def take_requests(self) -> list[tuple[TenantId, str, int]]:
        """Return the tenant, principal and number of the commands counted since the last call."""
        used, self.used = self.used, []
        taken = [(share.tenant.id, share.sender, share.requests) for share in used]
        for share in used:
            share.requests = 0
        return taken

    @property
    def max_per_group(self) -> int:
        """Limit of messages in a group commit of any tenant."""
        return sys.maxsize if self.max_per_turn == math.inf else MAX_MESSAGES_PER_GROUP

    def register(self, tenant: _Tenant) -> None:
        """Register a tenant with work in this turn. The next turn resets its count."""
        window = int(time.monotonic() / WINDOW_S)
        if window != tenant.window:
            tenant.window = window
            active = self._active.note(tenant.id, window)
            self.max_per_turn = math.inf if active == 1 else max(MIN_COMMANDS_PER_TURN, MAX_COMMANDS_PER_TURN // active)
        tenant.is_counted = True
        if not self._counted:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._counted.append(tenant)

    def _end_turn(self) -> None:
        counted, self._counted = self._counted, []
        for tenant in counted:
            tenant.is_counted, tenant.begun = False, 0
        for tenant in counted:
            self._dispatch(tenant)

    def _dispatch(self, tenant: _Tenant) -> None:
        """Call the tenant's waiters, one of each share in turn, while the turn has room."""
        while tenant.waiting and tenant.begun < self.max_per_turn:
            share, _ = tenant.waiting.popitem(last=False)
            with self.supervisor.contain(tenant=tenant.id):
                share.waiters.popleft()()
            if share.waiters:
                tenant.waiting[share] = None
        if tenant.waiting and not tenant.is_counted:
            self.register(tenant)
