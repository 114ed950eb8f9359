"""Rate limits of a tenant over all servers: messages a minute and a month, API calls a minute (decision record 41).

Each server reserves units of the shared counters (`fabric.counters`) and spends them without asking; `rules.rate_window` decides
how many. One loop makes all reservations of a server, so those of many tenants share a request. A caller waits for it only when
nothing is reserved and the limit is not far away.

While NATS does not answer, each server applies the limits to its own use: publishing needs NATS for the message itself, and REST
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from artcafe.errors import ArtcafeError, OurFault, RateExceeded, TenantNotFound
from artcafe.model import TenantChange, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import ThrottledEvent
from artcafe.rules.plans import UNLIMITED, Limit, Plans
from artcafe.rules.rate_window import SLOT_S, SLOTS, Monthly, WindowUsage
from artcafe.rules.subjects import Subject
from artcafe.services.record_cache import RecordCache
from artcafe.services.tenant_rate import Metered, Notice, ReadMetered, TenantRate, month_of
from artcafe.supervision import Supervisor

RESERVE_S: Final = 1.0
"""How long a caller waits for a reservation. Afterwards it is admitted: see the module's docstring."""
RETRY_S: Final = 3.0
"""How often the counters are tried again while they are away."""
METERED_S: Final = 60.0
"""How often the meter's total of a tenant's month is read, while the tenant publishes."""
MOST_READ: Final = 1000 // SLOTS
"""Windows whose slots are read in one request: NATS allows 1,000 subjects."""


_away: Final = ThrottledEvent("rate_limits.counters_away")


class SharedCounters(Protocol):
    """Counters shared by all servers: `fabric.counters.Counters`."""

    async def add_each(self, additions: Sequence[tuple[Subject, int]]) -> list[int | ArtcafeError | TimeoutError]: ...
    async def totals(self, counters: list[Subject]) -> dict[Subject, int]: ...


class RateLimits:
    """The rate limits of all tenants on this server."""

    def __init__(
        self,
        counters: SharedCounters,
        record_cache: RecordCache,
        plans: Plans,
        clock: Clock,
        server_count: Callable[[], int],
        metered: ReadMetered | None = None,
    ) -> None:
        """`server_count` returns the number of servers that run now. `metered` reads the meter; without it no monthly limit
        applies."""
        self._counters, self._record_cache, self._plans, self._clock = counters, record_cache, plans, clock
        self._server_count, self._metered = server_count, metered
        self._rates: dict[tuple[TenantId, Limit], TenantRate] = {}
        self._messages: dict[TenantId, TenantRate] = {}
        self.peek_messages: Final = self._messages.get
        """Return a tenant's limit of messages, if it is in use here. The caller spends a unit by decrementing `tokens` while they
        are above `low`, and by `spend_low` otherwise."""
        self.notices: dict[TenantId, tuple[Notice, ...]] = {}
        """The notices of tenants that have used 80 % of their messages."""
        self._to_give_back: list[tuple[Subject, int]] = []
        self._slot = self._slot_now()
        self._due = asyncio.Event()
        self._away_until: float | None = None
        self._is_running = False
        self.supervisor = Supervisor("rate_limits")

    # --- spending -----------------------------------------------------------------------------------------------------

    def can_lend(self, rate: TenantRate) -> bool:
        """Return whether a unit may be spent though none is reserved. Raises `RateExceeded` if the limit is known to be
        reached."""
        if rate.slot != self._slot_now():
            return False
        if rate.is_closed:
            raise self._refusal(rate)
        return rate.can_lend(self._server_count())

    def spend_low(self, rate: TenantRate) -> None:
        """Spend a unit when few or none are reserved, after `can_lend`, and reserve more."""
        if rate.tokens > 0:
            rate.tokens -= 1
        else:
            rate.charge()
        self.reserve_soon(rate)

    def try_spend_message(self, tenant_id: TenantId) -> bool:
        """Spend one message without waiting. Return False if `spend` must be used. Raises `RateExceeded`."""
        rate = self._messages.get(tenant_id)
        if rate is None or (rate.tokens <= 0 and not self.can_lend(rate)):
            return False
        if rate.tokens > rate.low:
            rate.tokens -= 1
        else:
            self.spend_low(rate)
        return True

    def reserve_soon(self, rate: TenantRate) -> None:
        """Reserve more units in the next pass of the loop. May be repeated."""
        if not rate.is_due:
            rate.is_due = True
            self._due.set()

    async def spend(self, tenant_id: TenantId, kind: Limit) -> None:
        """Spend one unit of a limit, or raise `RateExceeded`. Waits for a reservation, if the limit may be near."""
        rate = self._rates.get((tenant_id, kind)) or await self._open(tenant_id, kind)
        if rate.is_unlimited:
            return
        if rate.slot != self._slot_now():
            self.reserve_soon(rate)
        elif rate.tokens > 0:
            if rate.tokens > rate.low:
                rate.tokens -= 1
            else:
                self.spend_low(rate)
            return
        elif rate.is_closed:
            raise self._refusal(rate)
        elif rate.can_lend(self._server_count()):
            self.spend_low(rate)
            return
        if not await self._reserved(rate):
            raise self._refusal(rate)

    async def _reserved(self, rate: TenantRate) -> bool:
        """Wait for a unit, and return whether there was one."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        rate.waiters.append(waiter)
        self.reserve_soon(rate)
        try:
            async with asyncio.timeout(RESERVE_S):
                while not (self._is_running or waiter.done()):
                    await self.renew()  # without the loop, as in a tool, the caller reserves for itself
                return await waiter
        except TimeoutError:
            rate.charge()
            return True
        finally:
            if waiter in rate.waiters:
                rate.waiters.remove(waiter)

    def _refusal(self, rate: TenantRate) -> RateExceeded:
        return rate.refuse(self.now())

    def __len__(self) -> int:
        """Return the number of limits in use here."""
        return len(self._rates)

    def now(self) -> float:
        """Return the time of the limits, in epoch seconds."""
        return self._clock().timestamp()

    # --- reading ------------------------------------------------------------------------------------------------------

    def peek(self, tenant_id: TenantId, kind: Limit) -> WindowUsage | None:
        """Return the use of a limit as this server knows it; None if it is unlimited here or was not used in the last minute."""
        rate = self._rates.get((tenant_id, kind))
        return None if rate is None or rate.limit >= UNLIMITED else rate.usage(self._clock().timestamp())

    async def usage(self, tenant_id: TenantId, kind: Limit) -> WindowUsage | None:
        """Return the use of a limit by all servers, or by this one while the counters are away; None if it is not counted.

        Raises `Unavailable`.
        """
        is_monthly = kind is Limit.MESSAGES_A_MONTH
        view = await self._view(tenant_id, Limit.MESSAGES_A_MINUTE if is_monthly else kind)
        if is_monthly:
            await self._read_month(view)
            return view.monthly_usage()
        return None if view.limit >= UNLIMITED else view.usage(self.now())

    async def _view(self, tenant_id: TenantId, kind: Limit) -> TenantRate:
        """Return the limit with the totals of all servers. Nothing is spent from it."""
        slot, rate = self._slot_now(), self._rates.get((tenant_id, kind))
        view = TenantRate(tenant_id, kind, await self._limit(tenant_id, kind), slot)
        slots = range(slot - SLOTS, slot + 1)
        try:
            found = await self._counters.totals([view.counter(each) for each in slots])
        except (OurFault, TimeoutError):
            return rate or view
        view.learn({each: max(0, found.get(view.counter(each), 0)) for each in slots})
        view.tokens = rate.unspent if rate is not None and rate.slot == slot else 0
        return view

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reserve and give back until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._wait()
                with self.supervisor.contain():
                    await self.renew()
        finally:
            self._is_running = False

    async def _wait(self) -> None:
        """Wait until a reservation is due or, while limits are in use, for the next slot."""
        now = self._clock().timestamp()
        wait_s = (self._slot + 1) * SLOT_S - now if self._rates else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s is None else max(0.001, wait_s)):
                await self._due.wait()

    async def renew(self) -> None:
        """Begin a new slot if one has begun, give back unspent units, and reserve due ones."""
        self._due.clear()
        self._advance()
        due = [rate for rate in self._rates.values() if rate.is_due]
        for rate in due:
            rate.is_due = False
            with self.supervisor.contain(tenant=rate.tenant_id), contextlib.suppress(OurFault):
                await self._refresh(rate)
        if self._is_away():
            for rate in due:
                self._settle(rate, rate.wanted(len(rate.waiters), 1), None)
            return
        await self._read_slots(due)
        await self._reserve(due)

    def _advance(self) -> None:
        slot = self._slot_now()
        if slot <= self._slot:  # A clock set back repeats no slot.
            return
        self._slot = slot
        for key, rate in list(self._rates.items()):
            ended, unspent = rate.slot, rate.advance(slot)
            if unspent:
                self._to_give_back.append((rate.counter(ended), -unspent))
            if rate.recent or rate.waiters or rate.is_stale:
                rate.is_due = True
            elif rate.is_idle() and not rate.is_due:
                self._forget(key)

    def _forget(self, key: tuple[TenantId, Limit]) -> None:
        del self._rates[key]
        if key[1] is Limit.MESSAGES_A_MINUTE:
            self._messages.pop(key[0], None)
            self.notices.pop(key[0], None)

    async def _read_slots(self, due: list[TenantRate]) -> None:
        is_alone = self._server_count() <= 1
        wanted = [(rate, rate.slots_to_read(is_alone=is_alone)) for rate in due]
        wanted = [(rate, slots) for rate, slots in wanted if slots]
        for start in range(0, len(wanted), MOST_READ):
            portion = wanted[start : start + MOST_READ]
            try:
                found = await self._counters.totals([rate.counter(slot) for rate, slots in portion for slot in slots])
            except (OurFault, TimeoutError) as exc:
                self._on_away(exc)
                return
            for rate, slots in portion:
                rate.learn({slot: max(0, found.get(rate.counter(slot), 0)) for slot in slots})

    async def _reserve(self, due: list[TenantRate]) -> None:
        servers = self._server_count()
        amounts = [(rate, rate.wanted(len(rate.waiters), servers)) for rate in due]
        for rate in [rate for rate, amount in amounts if not amount]:
            self._serve(rate)
        amounts = [(rate, amount) for rate, amount in amounts if amount]
        given, self._to_give_back = self._to_give_back, []
        additions = given + [(rate.counter(rate.slot), amount) for rate, amount in amounts]
        totals: Sequence[int | Exception] = []
        try:
            if additions:
                totals = await self._counters.add_each(additions)
        except (OurFault, TimeoutError) as exc:
            self._on_away(exc)
            totals = [exc] * len(additions)
        for (rate, amount), total in zip(amounts, totals[len(given) :], strict=True):
            self._settle(rate, amount, total if isinstance(total, int) else None)
        if self._to_give_back:
            self._due.set()

    def _settle(self, rate: TenantRate, amount: int, total: int | None) -> None:
        """Take the answer to a reservation (None: the counters are away), and serve those waiting for it."""
        if total is None:
            rate.grant_alone(amount)
        elif excess := rate.grant(amount, total):
            self._to_give_back.append((rate.counter(rate.slot), -excess))
        self._serve(rate)

    def _serve(self, rate: TenantRate) -> None:
        """Give the reserved units to the waiting ones, in order, or refuse them if the limit is reached."""
        waiters, rate.waiters = rate.waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if rate.tokens > 0:
                rate.tokens -= 1
                waiter.set_result(True)
            elif rate.is_closed:
                waiter.set_result(False)
            else:
                rate.waiters.append(waiter)
        if rate.waiters:
            self.reserve_soon(rate)
        rate.low = rate.tokens // 2
        self._notice(rate)

    def _is_away(self) -> bool:
        if self._away_until is not None and self._clock().timestamp() >= self._away_until:
            self._away_until = None
        return self._away_until is not None

    def _on_away(self, exc: Exception) -> None:
        _away.warn(problem=str(exc) or "no answer in time")
        self._away_until = self._clock().timestamp() + RETRY_S

    # --- limits -------------------------------------------------------------------------------------------------------

    def on_change(self, change: TenantChange) -> None:
        """Read the limits of a changed tenant again, before its next reservation, and reserve anew."""
        for kind in (Limit.MESSAGES_A_MINUTE, Limit.API_CALLS_A_MINUTE):
            rate = self._rates.get((change.tenant_id, kind))
            if rate is not None:
                rate.is_stale = True
                self.reserve_soon(rate)

    async def _open(self, tenant_id: TenantId, kind: Limit) -> TenantRate:
        limit = await self._limit(tenant_id, kind)
        if self._slot < (slot := self._slot_now()) and not self._rates:
            self._slot = slot
        rate = self._rates.setdefault((tenant_id, kind), TenantRate(tenant_id, kind, limit, self._slot))
        if kind is Limit.MESSAGES_A_MINUTE:
            self._messages[tenant_id] = rate
            with contextlib.suppress(OurFault):
                await self._read_month(rate)
        if rate.is_unlimited:
            rate.tokens = UNLIMITED
        return rate

    async def _limit(self, tenant_id: TenantId, kind: Limit) -> int:
        try:
            tenant = await self._record_cache.tenant(tenant_id)
        except TenantNotFound:  # just deleted
            tenant = None
        return self._plans.limit_of(tenant, kind)

    async def _refresh(self, rate: TenantRate) -> None:
        """Read the limit again if the tenant has changed, and the month from time to time. Raises `Unavailable`."""
        was_unlimited = rate.is_unlimited
        try:
            await self._read_limits(rate)
        finally:
            if rate.is_unlimited is not was_unlimited:
                rate.tokens = UNLIMITED if rate.is_unlimited else 0

    async def _read_limits(self, rate: TenantRate) -> None:
        if rate.is_stale:
            limit = await self._limit(rate.tenant_id, rate.kind)
            rate.is_stale = False
            rate.metered_at = float("-inf")
            if limit != rate.limit:
                rate.change_limit(limit)
        if rate.kind is Limit.MESSAGES_A_MINUTE:
            await self._read_month(rate)

    async def _read_month(self, rate: TenantRate) -> None:
        now = self._clock()
        is_over = rate.monthly is not None and now.timestamp() >= rate.monthly.resets_at
        if self._metered is None or (now.timestamp() - rate.metered_at < METERED_S and not is_over):
            return
        rate.metered_at = now.timestamp()
        limit = await self._limit(rate.tenant_id, Limit.MESSAGES_A_MONTH)
        if limit >= UNLIMITED:
            rate.monthly = None
            return
        found = await self._metered(rate.tenant_id, now)
        begins, ends = month_of(now)
        metered = found or Metered(0, begins)
        rate.monthly = Monthly(limit, metered.messages, max(begins, metered.as_of).timestamp(), ends.timestamp())

    # --- notices ------------------------------------------------------------------------------------------------------

    def _notice(self, rate: TenantRate) -> None:
        rate.note(self.now())
        if rate.notices:
            self.notices[rate.tenant_id] = rate.notices
        else:
            self.notices.pop(rate.tenant_id, None)

    def _slot_now(self) -> int:
        return int(self._clock().timestamp()) // SLOT_S
