"""What comes in floods, counted by the minute and then told to the audit: logins, and attempts on what is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.errors import OurFault
from artcafe.model import Outcome, TenantId
from artcafe.observe import Clock, log, origin
from artcafe.rules import ids, times
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

MINUTE_S: Final = 60.0
MOST_COUNTED: Final = 10_000
"""Different things that are counted in a minute, over all tenants; what comes above is only logged."""
MOST_ACTORS: Final = 100
"""Different actors that are counted apart in a minute, for each tenant and action; the rest are counted together, as `OTHERS`."""
OTHERS: Final = "others"
OUTSIDER: Final = "outsider"
"""In a tenant's audit: somebody of another tenant, who is named in the platform's alone."""


class _Counted:
    """How often something happened since the last time that was told."""

    def __init__(self, now: datetime, count: int = 1) -> None:
        self.count, self.first, self.last = count, now, now

    def add(self, more: _Counted) -> None:
        self.count, self.last = self.count + more.count, max(self.last, more.last)


class Event(NamedTuple):
    """Something that may happen again, just so."""

    tenant_id: TenantId | None
    action: str
    actor: str
    outcome: Outcome
    address: str | None
    facts: tuple[tuple[str, str], ...]


Append = Callable[[Event, Mapping[str, str]], Awaitable[None]]
"""Puts an event into its audit with what is known of it. Raises `Unavailable`."""


class Tally:
    """Counts for all tenants, and for the platform (for that the tenant is None)."""

    def __init__(self, append: Append, store: Store, clock: Clock) -> None:
        self._append, self._store, self._clock = append, store, clock
        self._events: dict[Event, _Counted] = {}
        self._fresh: list[Event] = []
        self._actors: dict[tuple[TenantId | None, str], set[str]] = {}
        self._due = asyncio.Event()
        self.supervisor = Supervisor("audit")

    def note(self, tenant_id: TenantId | None, actor: str, action: str, outcome: Outcome = Outcome.DONE, **facts: str) -> None:
        """Tells soon that something happened, and by the minute how often it did again. Waits for nothing, raises nothing.

        `tenant_id` may be a claim: it is told where there is such a tenant, and else in the platform's audit, counted together.
        """
        actors = self._actors.setdefault((tenant_id, action), set())
        if actor not in actors and len(actors) >= MOST_ACTORS:
            actor, facts = OTHERS, {}
        actors.add(actor)
        event = Event(tenant_id, action, actor, outcome, origin().address, tuple(sorted(facts.items())))
        known = self._events.get(event)
        if known is not None:
            known.add(_Counted(self._clock()))
        elif len(self._events) < MOST_COUNTED:
            self._events[event] = _Counted(self._clock())
            self._fresh.append(event)
            self._due.set()
        else:
            log.warning("audit.flooded", action=action, most=MOST_COUNTED)

    def trespass(self, principal_tenant: TenantId | None, actor: str, tenant_id: str) -> None:
        """Count an attempt on another tenant: in that tenant's audit without the actor's name, and by name in the actor's own
        tenant's audit, or in the platform's where they have none. Text that cannot be an id counts in the latter alone."""
        if ids.is_possible(tenant_id):
            self.note(TenantId(tenant_id), OUTSIDER, "tenant.trespass", Outcome.REFUSED)
        self.note(principal_tenant, actor, "tenant.trespass", Outcome.REFUSED)

    async def run(self) -> None:
        """Tells what is noted until cancelled: the first of its kind at once, and the rest at the end of the minute."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + MINUTE_S
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    await self._due.wait()
                self._due.clear()
                await self._tell_fresh()
            except TimeoutError:
                await self.flush()
                ends_at = clock() + MINUTE_S

    async def flush(self) -> None:
        """Tells everything that is noted, and begins to count anew."""
        self._fresh.clear()
        events, self._events, self._actors = self._events, {}, {}
        events = {event: counted for event, counted in events.items() if counted.count}
        try:
            there = await self._existing(events)
            merged: dict[Event, _Counted] = {}
            for event, counted in events.items():
                told = event if event.tenant_id in there else _of_no_tenant(event)
                merged.setdefault(told, _Counted(counted.first, 0)).add(counted)
            events = merged
            await self._tell(events)
        except OurFault as exc:
            self._keep(events, exc)

    async def _tell_fresh(self) -> None:
        fresh = {event: _Counted(self._events[event].first) for event in self._fresh}
        self._fresh.clear()
        try:
            there = await self._existing(fresh)
            fresh = {event: counted for event, counted in fresh.items() if event.tenant_id in there}
            for event in fresh:
                self._events[event].count -= 1
            await self._tell(fresh)
        except OurFault as exc:
            self._keep(fresh, exc)

    def _keep(self, events: Mapping[Event, _Counted], why: OurFault) -> None:
        """Counts on what could not be told now, to be told at the end of a later minute."""
        log.warning("audit.not_told_yet", entries=len(events), error=str(why))
        for event, counted in events.items():
            self._events.setdefault(event, _Counted(counted.first, 0)).add(counted)

    async def _tell(self, events: dict[Event, _Counted]) -> None:
        """Write the events, removing each once it is written. One that fails otherwise is dropped. Raises `Unavailable`."""
        while events:
            event, counted = next(iter(events.items()))
            with self.supervisor.contain(OurFault, action=event.action):
                await self._tell_counted(event, counted)
            del events[event]

    async def _tell_counted(self, event: Event, counted: _Counted) -> None:
        facts = dict(event.facts)
        if counted.count > 1:
            facts |= {"count": str(counted.count), "first": times.to_text(counted.first), "last": times.to_text(counted.last)}
        await self._append(event, facts)

    async def _existing(self, events: Iterable[Event]) -> set[TenantId | None]:
        """Return those tenants of the events that exist, and None for the platform. Raises `Unavailable`."""
        named = sorted({event.tenant_id for event in events if event.tenant_id is not None and ids.is_possible(event.tenant_id)})
        versions = await self._store.versions(named) if named else {}
        return {None, *(tenant_id for tenant_id, version in versions.items() if version is not None)}


def _of_no_tenant(event: Event) -> Event:
    """What was claimed of a tenant that is not there: whoever makes ids up shall not fill the platform's audit with them."""
    return event._replace(tenant_id=None, actor=OTHERS, facts=(("problem", "there is no such tenant"),))
