"""The audit: who did what, when and from where, in a chain a tenant that nobody can change unseen (design, decision 12).

A change is told twice: that it is intended, before it is made, so that none is made untold; and what became of it. What comes in
floods (logins, and attempts on what is another's) is counted by the minute. Never a payload, a token or a key: a key by its
fingerprint.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from artcafe.errors import ArtcafeError, OurFault, OutcomeUnknown
from artcafe.fabric.audit_log import Compose, Kept
from artcafe.model import Entry, Outcome, Principal, Seq, TenantId
from artcafe.observe import Clock, Origin, log, origin
from artcafe.rules import access, chain, ids, subjects, times
from artcafe.rules.access import Action
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.subjects import Subject
from artcafe.tables.port import ConditionFailed
from artcafe.tables.store import Store

MINUTE_S: Final = 60.0
MOST_COUNTED: Final = 10_000
"""Different things that are counted in a minute, over all tenants; what comes above is only logged."""
MOST_ACTORS: Final = 100
"""Different actors that are counted apart in a minute, for each tenant and action; the rest are counted together, as `OTHERS`."""
OTHERS: Final = "others"
OUTSIDER: Final = "outsider"
"""In a tenant's audit: somebody of another tenant, who is named in the platform's alone."""
OPERATOR: Final = "operator"
"""Whoever runs the service, by a command on its tables: it has no name but the secret."""


class Chains(Protocol):
    """What keeps the entries, as `fabric.audit_log.AuditLog` does."""

    async def append(self, chain: Subject, compose: Compose) -> bytes:
        """Puts the next text behind the chain's last one, which `compose` is given, and returns it. Raises `Unavailable`."""
        ...

    async def after(self, chain: Subject, seq: Seq, most: int) -> list[Kept]:
        """The next texts of a chain above a place, oldest first."""
        ...

    async def before(self, chain: Subject, seq: Seq | None, most: int) -> list[Kept]:
        """The texts of a chain below a place, newest first; None: the newest."""
        ...


class Line(NamedTuple):
    """An entry in its place, with the digest that the next one names."""

    seq: Seq
    entry: Entry
    digest: str


class Deed:
    """Something that is being done: what is known of it only later is noted here."""

    def __init__(self, target: str | None, facts: Mapping[str, str]) -> None:
        self.target, self.facts = target, dict(facts)


class _Counted:
    """How often something happened since the last time that was told."""

    def __init__(self, now: datetime, count: int = 1) -> None:
        self.count, self.first, self.last = count, now, now

    def add(self, more: _Counted) -> None:
        self.count, self.last = self.count + more.count, max(self.last, more.last)


class _Event(NamedTuple):
    tenant_id: TenantId | None
    action: str
    actor: str
    outcome: Outcome
    address: str | None
    facts: tuple[tuple[str, str], ...]


class Audit:
    """Writes and reads the audits of all tenants, and the platform's own (for them the tenant is None)."""

    def __init__(self, chains: Chains, store: Store, clock: Clock) -> None:
        self._chains, self._store, self._clock = chains, store, clock
        self._locks: WeakValueDictionary[Subject, asyncio.Lock] = WeakValueDictionary()
        self._events: dict[_Event, _Counted] = {}
        self._fresh: list[_Event] = []
        self._actors: dict[tuple[TenantId | None, str], set[str]] = {}
        self._due = asyncio.Event()

    # --- changes ---

    @asynccontextmanager
    async def change(
        self, tenant_id: TenantId | None, actor: str, action: str, target: str | None = None, **facts: str
    ) -> AsyncIterator[Deed]:
        """Tells that a change is intended, and behind it what became of it.

        Raises `Unavailable` where the intent cannot be told: then nothing is to be changed. That the outcome could not be told
        hides nothing, since the intent stands.
        """
        deed = Deed(target, facts)
        intent = await self._append(tenant_id, actor, action, Outcome.INTENDED, deed)
        outcome = Outcome.UNKNOWN
        try:
            yield deed
            outcome = Outcome.DONE
        except ConditionFailed:  # somebody was faster, and it is tried again
            outcome = Outcome.REFUSED
            raise
        except ArtcafeError as exc:
            deed.facts["code"] = exc.code
            outcome = Outcome.UNKNOWN if isinstance(exc, OurFault | OutcomeUnknown) else Outcome.REFUSED
            raise
        finally:
            try:
                await self._append(tenant_id, actor, action, outcome, deed, intent.number)
            except OurFault as exc:
                log.warning("audit.outcome_not_told", action=action, intent=intent.number, outcome=outcome, error=str(exc))

    async def _append(
        self,
        tenant_id: TenantId | None,
        actor: str,
        action: str,
        outcome: Outcome,
        deed: Deed,
        intent: int | None = None,
        whence: Origin | None = None,
    ) -> Entry:
        whence = origin() if whence is None else whence

        def compose(last: bytes | None) -> bytes:
            number, before = (0, chain.FIRST) if last is None else (chain.read(last).number, chain.digest(last))
            entry = Entry(
                number=number + 1,
                id=ids.new_id("aud"),
                time=self._clock(),
                action=action,
                actor=actor,
                outcome=outcome,
                target=deed.target,
                facts=deed.facts,
                address=whence.address,
                request_id=whence.request_id,
                intent=intent,
                before=before,
            )
            return chain.canonical(entry)

        where = _chain_of(tenant_id)
        lock = self._locks.setdefault(where, asyncio.Lock())
        async with lock:  # what this server tells at once would only be in its own way
            return chain.read(await self._chains.append(where, compose))

    # --- what comes in floods ---

    def note(self, tenant_id: TenantId | None, actor: str, action: str, outcome: Outcome = Outcome.DONE, **facts: str) -> None:
        """Tells soon that something happened, and by the minute how often it did again. Waits for nothing, raises nothing.

        `tenant_id` may be a claim: it is told where there is such a tenant, and else in the platform's audit, counted together.
        """
        actors = self._actors.setdefault((tenant_id, action), set())
        if actor not in actors and len(actors) >= MOST_ACTORS:
            actor, facts = OTHERS, {}
        actors.add(actor)
        event = _Event(tenant_id, action, actor, outcome, origin().address, tuple(sorted(facts.items())))
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
        """Notes that somebody named a tenant that is not theirs: in that one's audit without who it was, and by name in their own
        tenant's, or the platform's where they have none."""
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
            merged: dict[_Event, _Counted] = {}
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

    def _keep(self, events: Mapping[_Event, _Counted], why: OurFault) -> None:
        """Counts on what could not be told now, to be told at the end of a later minute."""
        log.warning("audit.not_told_yet", entries=len(events), error=str(why))
        for event, counted in events.items():
            self._events.setdefault(event, _Counted(counted.first, 0)).add(counted)

    async def _tell(self, events: dict[_Event, _Counted]) -> None:
        """Tells the events, and removes each from them once it is told. Raises `Unavailable`."""
        while events:
            event, counted = next(iter(events.items()))
            await self._tell_counted(event, counted)
            del events[event]

    async def _tell_counted(self, event: _Event, counted: _Counted) -> None:
        facts = dict(event.facts)
        if counted.count > 1:
            facts |= {"count": str(counted.count), "first": times.to_text(counted.first), "last": times.to_text(counted.last)}
        deed = Deed(None, facts)
        await self._append(event.tenant_id, event.actor, event.action, event.outcome, deed, whence=Origin(event.address, None))

    async def _existing(self, events: Iterable[_Event]) -> set[TenantId | None]:
        """The tenants of the events that there are, and the platform."""
        named = sorted({event.tenant_id for event in events if event.tenant_id is not None})
        versions = await self._store.versions(named) if named else {}
        return {None, *(tenant_id for tenant_id, version in versions.items() if version is not None)}

    # --- reading ---

    async def page(self, principal: Principal, ask: PageRequest = FIRST, *, oldest_first: bool = False) -> Page[Line]:
        """The audit of the principal's tenant, newest first unless asked otherwise. Raises Forbidden and Unavailable."""
        access.check(principal, Action.READ_AUDIT)
        return await self.read(principal.tenant_id, ask, oldest_first=oldest_first)

    async def read(self, tenant_id: TenantId | None, ask: PageRequest = FIRST, *, oldest_first: bool = False) -> Page[Line]:
        """Any audit, also one that has outlived its tenant; None: the platform's own. Asks for no right: it is for commands of
        whoever holds the installation's secret. Raises Unavailable."""
        where, at = _chain_of(tenant_id), None if ask.after is None else int(ask.after)
        if oldest_first:
            kept = await self._chains.after(where, at or 0, ask.limit)
        else:
            kept = await self._chains.before(where, at, ask.limit)
        lines = tuple(_line(each) for each in kept)
        return Page(lines, str(lines[-1].seq) if len(lines) == ask.limit else None)


def _of_no_tenant(event: _Event) -> _Event:
    """What was claimed of a tenant that is not there: whoever makes ids up shall not fill the platform's audit with them."""
    return event._replace(tenant_id=None, actor=OTHERS, facts=(("problem", "there is no such tenant"),))


def _chain_of(tenant_id: TenantId | None) -> Subject:
    return subjects.AUDIT_OF_PLATFORM if tenant_id is None else subjects.audit(tenant_id)


def _line(kept: Kept) -> Line:
    return Line(kept.seq, chain.read(kept.text), chain.digest(kept.text))
