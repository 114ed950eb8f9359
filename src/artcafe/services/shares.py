"""The fair share of each tenant, and of each of its agents, of what this server does at the same time (decision record 26).

A turn of the event loop is what everybody on the server waits for. So as soon as several tenants are active, the commands of each
that begin in one turn are bounded, and so are the messages that one group commit answers. Commands that are not publishes take
many turns, so how many are being done at the same time is bounded for each agent and tenant. Whoever reaches a bound waits in a
queue of its own, and loses nothing. That the agents of one tenant share its log fairly is `fabric.log_writer`'s.
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
"""Commands of all active tenants in one turn of the event loop: some 4 ms of work. One that is active alone has no bound."""
LEAST_A_TURN: Final = 8
MOST_A_GROUP: Final = 128
"""Messages that are committed, and so answered, together where several tenants are active: some 2 ms of work."""
AT_ONCE_OF_AGENT: Final = 8
"""Commands but publishes that are being done at once: each takes up to 0.1 ms of a turn, and a page of history 200 turns."""
AT_ONCE_OF_TENANT: Final = 32
WINDOW_S: Final = 5.0
"""Who was active within the current window or the last one counts as active."""
QUANTUM: Final = 16
"""Commands that a connection which waited may begin before it is another's turn."""


class _Active:
    """Counts who is active, without a timer: by windows of time."""

    def __init__(self) -> None:
        self._window = -1
        self._before: set[Hashable] = set()
        self._now: set[Hashable] = set()
        self._fresh = 0
        """Those of `_now` that are not in `_before`."""

    def note(self, who: Hashable, window: int) -> int:
        """Note that somebody is active in this window, and return how many are."""
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
        """Commands that began in this turn of the event loop."""
        self.window = -1
        self.is_settling = False
        self.at_once = asyncio.Semaphore(AT_ONCE_OF_TENANT)
        self.shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self.waiting: OrderedDict[Share, None] = OrderedDict()
        """Whose commands wait, in turn."""


class Share:
    """The share of one agent, or of one person in a tenant. It lives as long as somebody holds it."""

    __slots__ = ("__weakref__", "_at_once", "_server", "tenant", "waiters")

    def __init__(self, server: Shares, tenant: _Tenant) -> None:
        self._server, self.tenant = server, tenant
        self._at_once: asyncio.Semaphore | None = None
        self.waiters: deque[Callable[[], None]] = deque()

    @property
    def has_room(self) -> bool:
        """Whether a command may begin in this turn, and none waits that came before."""
        return self.tenant.begun < self._server.most_a_turn and not self.waiters

    @property
    def is_open(self) -> bool:
        """Whether a command may begin in this turn. Ask this where one that waited has just begun."""
        return self.tenant.begun < self._server.most_a_turn

    def enter(self) -> bool:
        """Begin a command if this turn has room for it, and return whether it has: `has_room` and `begin` in one call."""
        tenant = self.tenant
        if tenant.begun >= self._server.most_a_turn or self.waiters:
            return False
        tenant.begun += 1
        if not tenant.is_settling:
            self._server.begin_turn(tenant)
        return True

    def begin(self) -> None:
        """Count a command that begins."""
        tenant = self.tenant
        tenant.begun += 1
        if not tenant.is_settling:  # the first one of this turn
            self._server.begin_turn(tenant)

    def wait(self, waiter: Callable[[], None]) -> None:
        """Have `waiter` called once in a later turn, to begin up to `QUANTUM` commands."""
        self.waiters.append(waiter)
        self.tenant.waiting.setdefault(self)
        if not self.tenant.is_settling:
            self._server.begin_turn(self.tenant)

    async def turn(self) -> None:
        """Begin a command, at once or in the first turn that has room for it."""
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
        """Wait until one more command of the agent and of the tenant may be done, and have it count within."""
        if self._at_once is None:
            self._at_once = asyncio.Semaphore(AT_ONCE_OF_AGENT)
        async with self._at_once, self.tenant.at_once:
            yield


class Shares:
    """Every share of this server. `most_a_turn` is how many commands of each tenant may begin in a turn of the event loop."""

    def __init__(self) -> None:
        self._tenants: WeakValueDictionary[TenantId, _Tenant] = WeakValueDictionary()
        self._active = _Active()
        self._settling: list[_Tenant] = []
        self.most_a_turn: float = math.inf
        self.supervisor = Supervisor("shares")

    def of(self, principal: Principal) -> Share:
        """Return the share of a principal, the same for all of its connections."""
        tenant = self._tenants.get(principal.tenant_id)
        if tenant is None:
            tenant = self._tenants[principal.tenant_id] = _Tenant(principal.tenant_id)
        share = tenant.shares.get(principal.sender)
        if share is None:
            share = tenant.shares[principal.sender] = Share(self, tenant)
        return share

    @property
    def most_a_group(self) -> int:
        """Return how many messages a group commit may hold, of whichever tenant."""
        return sys.maxsize if self.most_a_turn == math.inf else MOST_A_GROUP

    def begin_turn(self, tenant: _Tenant) -> None:
        """The tenant has something to do in this turn; with the next one it may begin as much again."""
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
        """Let the tenant's waiters begin, one of each share in turn, as long as there is room."""
        while tenant.waiting and tenant.begun < self.most_a_turn:
            share, _ = tenant.waiting.popitem(last=False)
            with self.supervisor.contain(tenant=tenant.id):
                share.waiters.popleft()()
            if share.waiters:
                tenant.waiting[share] = None
        if tenant.waiting and not tenant.is_settling:
            self.begin_turn(tenant)
