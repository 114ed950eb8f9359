"""The audit: actor, action, time and address of each change. One hash chain for each tenant makes edits detectable (decision 12).

Each change is written twice: the intent before the change, so that no change is made without an entry, and the outcome after it.
Frequent events are counted first (`services.audit_counters`). An entry never contains a payload, a token or a key, but only the
fingerprint of a key.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from artcafe.errors import ArtcafeError, OurFault, OutcomeUnknown, RateLimited
from artcafe.fabric.audit_log import Compose, StoredEntry
from artcafe.model import Entry, Outcome, Principal, Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.context import Origin, origin
from artcafe.observe.logs import log
from artcafe.rules import access, audit_chain, ids, subjects
from artcafe.rules.access import Action
from artcafe.rules.audit_filters import EVERYTHING, SLACK, AuditFilter
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.subjects import Subject
from artcafe.rules.throttle import Buckets
from artcafe.services.audit_counters import AuditCounters
from artcafe.services.event_counts import Event
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.store import Store

CHANGES_AT_ONCE: Final = 20_000
"""Burst of changes by one actor in a tenant: 100 agents subscribed to 100 channels, twice. Each adds 1.5 KB to an audit, which is
never deleted."""
CHANGES_PER_S: Final = 1.0
"""Average rate of changes by one actor: at most 130 MB a day. Limited per actor, so that no admin can block an owner."""
PORTION: Final = 100
"""Entries read at once to find those that match a filter."""
MOST_PORTIONS: Final = 4
"""Portions read for one page. Newest first, each entry is a request to NATS of some 0.2 ms."""
OPERATOR: Final = "operator"
"""Actor of operator commands: they are authorized by the secret, which names no person."""


class Chains(Protocol):
    """Stores the entries of each chain: `fabric.audit_log.AuditLog`."""

    async def append(self, chain: Subject, compose: Compose) -> bytes:
        """Append the text that `compose` makes from the chain's last one, and return it. Raises `Unavailable`."""
        ...

    async def after(self, chain: Subject, seq: Seq, most: int) -> list[StoredEntry]:
        """Return the texts of a chain above a sequence, oldest first."""
        ...

    async def before(self, chain: Subject, seq: Seq | None, most: int) -> list[StoredEntry]:
        """Return the texts of a chain below a sequence, newest first; None begins at the end."""
        ...

    async def since(self, chain: Subject, time: datetime) -> Seq | None:
        """Return the sequence of a chain's first text stored at this time or later."""
        ...


class ChainedEntry(NamedTuple):
    """An audit entry with its sequence, and its digest, repeated in the next entry."""

    seq: Seq
    entry: Entry
    digest: str


class AuditedAction:
    """An action in progress: set the target and facts known only during the action."""

    def __init__(self, target: str | None, facts: Mapping[str, str]) -> None:
        self.target, self.facts = target, dict(facts)


class Audit:
    """Writes and reads the audits of all tenants, and the platform's own audit under the tenant None."""

    def __init__(self, chains: Chains, store: Store, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._chains, self._clock, self._monotonic = chains, clock, monotonic
        self._changes = Buckets(CHANGES_PER_S, CHANGES_AT_ONCE)
        self._locks: WeakValueDictionary[Subject, asyncio.Lock] = WeakValueDictionary()
        self.counters = AuditCounters(self._write_counted, store, clock)

    # --- changes ---

    @asynccontextmanager
    async def change(
        self, tenant_id: TenantId | None, actor: str, action: str, target: str | None = None, **facts: str
    ) -> AsyncIterator[AuditedAction]:
        """Write the intent of a change before the block, and its outcome after it.

        Raises `Unavailable` if the intent cannot be written, and `RateLimited`; the block does not run then. A failure to write
        the outcome is only logged: the intent is already in the audit.
        """
        if wait_s := self._changes.take((tenant_id, actor), self._monotonic()):
            raise RateLimited("changes", wait_s, "by you in this tenant")
        audited = AuditedAction(target, facts)
        intent = await self._append(tenant_id, actor, action, Outcome.INTENDED, audited)
        outcome = Outcome.UNKNOWN
        try:
            yield audited
            outcome = Outcome.DONE
        except ConditionFailed:  # a concurrent change won, and the caller retries
            outcome = Outcome.REFUSED
            raise
        except ArtcafeError as exc:
            audited.facts["code"] = exc.code
            outcome = Outcome.UNKNOWN if isinstance(exc, OurFault | OutcomeUnknown) else Outcome.REFUSED
            raise
        finally:
            try:
                await self._append(tenant_id, actor, action, outcome, audited, intent.number)
            except OurFault as exc:
                log.warning("audit.outcome_not_written", action=action, intent=intent.number, outcome=outcome, error=str(exc))

    def action(
        self, principal: Principal, action: str, target: str | None = None, **facts: str
    ) -> AbstractAsyncContextManager[AuditedAction]:
        """Audit a principal's change in their own tenant, as `change` does. Call it after the access checks."""
        return self.change(principal.tenant_id, principal.sender, action, target, **facts)

    async def _append(
        self,
        tenant_id: TenantId | None,
        actor: str,
        action: str,
        outcome: Outcome,
        audited: AuditedAction,
        intent: int | None = None,
        request_origin: Origin | None = None,
    ) -> Entry:
        request_origin = origin() if request_origin is None else request_origin

        def compose(last: bytes | None) -> bytes:
            if last is None and tenant_id is not None and action != audit_chain.BEGINNING:
                # Expected once for a tenant of an older system; for any other tenant its audit was lost.
                log.warning("audit.begun_late", tenant=tenant_id, action=action)
            number, before = (0, audit_chain.FIRST) if last is None else (audit_chain.read(last).number, audit_chain.digest(last))
            entry = Entry(
                number=number + 1,
                id=ids.new_id("aud"),
                time=self._clock(),
                action=action,
                actor=actor,
                outcome=outcome,
                target=audited.target,
                facts=audited.facts,
                address=request_origin.address,
                request_id=request_origin.request_id,
                intent=intent,
                before=before,
            )
            return audit_chain.canonical(entry)

        where = _chain_of(tenant_id)
        lock = self._locks.setdefault(where, asyncio.Lock())
        async with lock:  # concurrent appends of this server would only conflict with each other
            return audit_chain.read(await self._chains.append(where, compose))

    async def _write_counted(self, event: Event, facts: Mapping[str, str]) -> None:
        """Write a counted event."""
        request_origin = Origin(event.address, None)
        await self._append(
            event.tenant_id, event.actor, event.action, event.outcome, AuditedAction(None, facts), request_origin=request_origin
        )

    # --- reading ---

    async def list(
        self,
        principal: Principal,
        page_request: PageRequest = FIRST,
        wanted: AuditFilter = EVERYTHING,
        *,
        oldest_first: bool = False,
    ) -> Page[ChainedEntry]:
        """Return a page of the audit of the principal's tenant, newest first by default. Raises Forbidden and Unavailable."""
        access.check(principal, Action.READ_AUDIT)
        return await self.list_any(principal.tenant_id, page_request, wanted, oldest_first=oldest_first)

    async def list_any(
        self,
        tenant_id: TenantId | None,
        page_request: PageRequest = FIRST,
        wanted: AuditFilter = EVERYTHING,
        *,
        oldest_first: bool = False,
    ) -> Page[ChainedEntry]:
        """Return a page of any audit, also of a deleted tenant; None is the platform's. Raises Unavailable.

        Checks no access: for operator commands, which hold the installation's secret. A filter reads all entries, so a filtered
        page can have fewer than `limit` entries, or none, and still have a next page.
        """
        where = _chain_of(tenant_id)
        at = (
            int(page_request.after)
            if page_request.after is not None
            else await self._start(where, wanted, oldest_first=oldest_first)
        )
        portion = page_request.limit if wanted == EVERYTHING else PORTION
        lines: list[ChainedEntry] = []
        for _ in range(MOST_PORTIONS):
            read = self._chains.after(where, at or 0, portion) if oldest_first else self._chains.before(where, at, portion)
            kept = await read
            for line in map(_line, kept):
                if wanted.is_past_end(line.entry, oldest_first=oldest_first):
                    return Page(tuple(lines), None)
                at = line.seq
                if wanted.matches(line.entry):
                    lines.append(line)
                if len(lines) == page_request.limit:
                    return Page(tuple(lines), str(at))
            if len(kept) < portion:
                return Page(tuple(lines), None)
        return Page(tuple(lines), str(at))

    async def _start(self, where: Subject, wanted: AuditFilter, *, oldest_first: bool) -> Seq | None:
        """Return the sequence after which the requested entries begin, in reading order; None is the end of the chain."""
        if oldest_first and wanted.since is not None:
            first = await self._chains.since(where, wanted.since - SLACK)
            return sys.maxsize if first is None else first - 1
        if not oldest_first and wanted.until is not None:
            return await self._chains.since(where, wanted.until + SLACK)
        return None


def _chain_of(tenant_id: TenantId | None) -> Subject:
    return subjects.AUDIT_OF_PLATFORM if tenant_id is None else subjects.audit(tenant_id)


def _line(kept: StoredEntry) -> ChainedEntry:
    return ChainedEntry(kept.seq, audit_chain.read(kept.text), audit_chain.digest(kept.text))
