"""Aggregate frequent audit events (logins, attempts on other tenants) and write one entry of each kind per minute.

The first event of a kind is written at once. Each tenant has separate counts (`services.event_counts`), so a flood on one tenant,
or by one actor, hides no event of another. Events of an unverified tenant are buffered separately until the tenant is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from artcafe.errors import ArtcafeError, Forbidden, NotFound, OurFault, TenantSuspended
from artcafe.model import Outcome, Principal, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.context import origin
from artcafe.observe.logs import log
from artcafe.rules import ids, times
from artcafe.services.event_counts import OTHERS, Counted, Counts, Event
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

MINUTE_S: Final = 60.0
MOST_CLAIMED: Final = 50
"""Unverified tenants of one claimant. A look-up takes milliseconds."""
MOST_CLAIMANTS: Final = 10_000
CHAINS_AT_ONCE: Final = 16
"""Audits written concurrently, so that a tenant with many events does not delay the others."""
OUTSIDER: Final = "outsider"
"""Actor in a tenant's audit for a caller of another tenant; only the platform's audit has the name."""

Append = Callable[[Event, Mapping[str, str]], Awaitable[None]]
"""Write an event with its facts to its audit. Raises `Unavailable`."""

ByTenant = dict[TenantId | None, Counts]


class AuditCounters:
    """Counts events of all tenants, and of the platform under the tenant None."""

    def __init__(self, append: Append, store: Store, clock: Clock) -> None:
        self._append, self._store, self._clock = append, store, clock
        self._counts: ByTenant = {}
        self._claims: dict[str, dict[TenantId, Counts]] = {}
        """By claimant: the named tenants that were not looked up yet."""
        self._flooded = 0
        self._due = asyncio.Event()
        self.supervisor = Supervisor("audit")

    # --- counting ---

    def count(self, tenant_id: TenantId | None, actor: str, action: str, outcome: Outcome = Outcome.DONE, **facts: str) -> None:
        """Count an event of a known actor in an existing tenant. Never waits or raises."""
        event = Event(tenant_id, action, actor, outcome, origin().address, tuple(sorted(facts.items())))
        self._counts.setdefault(tenant_id, Counts()).add(event, Counted(self._clock()))
        self._due.set()

    def count_claim(self, tenant_id: TenantId, actor: str, action: str, **facts: str) -> None:
        """Count a refusal with an unverified tenant and actor, claimed by a client at this address."""
        address = origin().address
        event = Event(tenant_id, action, actor, Outcome.REFUSED, address, tuple(sorted(facts.items())))
        self._claim(address or "", event, Counted(self._clock()))
        self._due.set()

    def count_cross_tenant(self, principal_tenant: TenantId | None, actor: str, tenant_id: str) -> None:
        """Count an attempt on another tenant.

        That tenant's audit gets it without the actor's name; the audit of the actor's own tenant, or the platform's if they have
        none, gets it with the name. A malformed tenant id is counted in the latter only.
        """
        if ids.is_possible(tenant_id):
            event = Event(TenantId(tenant_id), "tenant.trespass", OUTSIDER, Outcome.REFUSED, origin().address, ())
            self._claim(actor, event, Counted(self._clock()))
        self.count(principal_tenant, actor, "tenant.trespass", Outcome.REFUSED)

    def count_refusal(self, principal: Principal, error: ArtcafeError, **facts: str) -> None:
        """Count a principal's refused action, also one answered like a missing record (`rules.access.check_may_find`).

        Errors other than Forbidden and TenantSuspended are ignored.
        """
        refusal: BaseException | None = error
        while isinstance(refusal, NotFound):
            refusal = refusal.__cause__
        if isinstance(refusal, Forbidden):
            facts["attempt"] = refusal.action
        if isinstance(refusal, Forbidden | TenantSuspended):
            self.count(principal.tenant_id, principal.sender, "access.refused", Outcome.REFUSED, code=refusal.code, **facts)

    def _claim(self, claimant: str, event: Event, counted: Counted) -> None:
        """Count an event in an unverified tenant. A claimant above its limit takes no memory from others."""
        if event.tenant_id is None or not ids.is_possible(event.tenant_id):
            self._add_unplaced(event, counted)
        elif event.tenant_id in self._counts:
            self._add_claimed(self._counts[event.tenant_id], event, counted)
        elif self._has_room(claimant, event.tenant_id):
            claimed = self._claims.setdefault(claimant, {})
            self._add_claimed(claimed.setdefault(event.tenant_id, Counts()), event, counted)
        else:
            self._flooded += 1
            self._add_unplaced(event, counted)

    @staticmethod
    def _add_claimed(counts: Counts, event: Event, counted: Counted) -> None:
        counts.add(event, counted, is_known=event.actor == OUTSIDER)

    def _has_room(self, claimant: str, tenant_id: TenantId) -> bool:
        claimed = self._claims.get(claimant)
        if claimed is None:
            return len(self._claims) < MOST_CLAIMANTS
        return tenant_id in claimed or len(claimed) < MOST_CLAIMED

    def _add_unplaced(self, event: Event, counted: Counted) -> None:
        """Count an event without an existing tenant, merged with all others of its action: invented ids must not fill the
        platform's audit."""
        facts = (("problem", "there is no such tenant"),)
        event = Event(None, event.action, OTHERS, event.outcome, event.address, facts)
        self._counts.setdefault(None, Counts()).add(event, counted, is_urgent=False)

    # --- writing ---

    async def run(self) -> None:
        """Write the counts until cancelled: the first event of each kind at once, the rest at the end of the minute."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + MINUTE_S
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    await self._due.wait()
            except TimeoutError:
                await self.flush()
                ends_at = clock() + MINUTE_S
            else:
                self._due.clear()
                await self._write_fresh()

    async def flush(self) -> None:
        """Write all counts, and reset them."""
        await self._look_up()
        if self._flooded:
            log.warning("audit.flooded", events=self._flooded)
        self._flooded = 0
        counts, self._counts = self._counts, {}
        await self._write({tenant_id: list(each) for tenant_id, each in counts.items()})

    async def _write_fresh(self) -> None:
        await self._look_up()
        await self._write({tenant_id: each.take_fresh() for tenant_id, each in self._counts.items() if each.is_fresh})

    async def _look_up(self) -> None:
        """Look up the claimed tenants, and move their events to the tenant's counts, or the platform's for an unknown tenant."""
        claims, self._claims = self._claims, {}
        named = sorted({tenant_id for claimed in claims.values() for tenant_id in claimed})
        if not named:
            return
        try:
            there = await self._existing(named)
        except OurFault as exc:
            log.warning("audit.not_looked_up", tenants=len(named), error=str(exc))
            self._restore(claims)
            return
        for event, counted in _all(claims.values()):
            if event.tenant_id in there:
                self._add_claimed(self._counts.setdefault(event.tenant_id, Counts()), event, counted)
            else:
                self._add_unplaced(event, counted)

    async def _existing(self, named: Sequence[TenantId]) -> set[TenantId | None]:
        versions = await self._store.versions(named)
        return {tenant_id for tenant_id, version in versions.items() if version is not None}

    def _restore(self, claims: Mapping[str, Mapping[TenantId, Counts]]) -> None:
        """Keep claims after a failed look-up, for the next attempt."""
        for claimant, claimed in claims.items():
            for event, counted in _all([claimed]):
                self._claim(claimant, event, counted)

    async def _write(self, events: Mapping[TenantId | None, list[tuple[Event, Counted]]]) -> None:
        """Write the events of several audits. Failed events are counted again."""
        writing = _Writing(self._append, self.supervisor)
        async with asyncio.TaskGroup() as group:
            for each in events.values():
                group.create_task(writing.write(each))
        if writing.problem is None:
            return
        log.warning("audit.not_written_yet", entries=sum(map(len, events.values())), error=str(writing.problem))
        for each in events.values():
            for event, counted in each:
                self._counts.setdefault(event.tenant_id, Counts()).add(event, counted, is_urgent=False)


class _Writing:
    """One pass over several audits. The first failure to reach NATS ends it, because the others would fail too."""

    def __init__(self, append: Append, supervisor: Supervisor) -> None:
        self._append, self._supervisor = append, supervisor
        self._at_once = asyncio.Semaphore(CHAINS_AT_ONCE)
        self.problem: OurFault | None = None

    async def write(self, events: list[tuple[Event, Counted]]) -> None:
        """Write the events of one audit, removing each from the list when written. An unexpected error drops its event."""
        async with self._at_once:
            while events and self.problem is None:
                event, counted = events[0]
                try:
                    with self._supervisor.contain(OurFault, action=event.action):
                        await self._append(event, _facts(event, counted))
                except OurFault as exc:
                    self.problem = exc
                    return
                del events[0]


def _facts(event: Event, counted: Counted) -> dict[str, str]:
    facts = dict(event.facts)
    if counted.count > 1:
        facts |= {"count": str(counted.count), "first": times.to_text(counted.first), "last": times.to_text(counted.last)}
    return facts


def _all(claims: Iterable[Mapping[TenantId, Counts]]) -> Iterator[tuple[Event, Counted]]:
    return (each for claimed in claims for counts in claimed.values() for each in counts)
