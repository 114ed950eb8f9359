"""Stop endless answers between agents: count the messages of each chain of answers, and refuse those above a limit.

A chain is a message without a cause, and all direct and indirect answers to it. Its place is in each stored envelope, so `hops`
needs no counter. The number of its messages is a counter shared by all servers (`fabric.counters`): an addition before the
message is stored returns the new total, and is taken back if the message is not stored. A chain is forgotten when nothing was
added to it for a day, and when NATS restarts as a whole: then its messages are counted anew (decision record 42).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final

from artcafe.errors import (
    ArtcafeError,
    ChainNotFound,
    Conflict,
    LoopStopped,
    NatsConnectionLost,
    NotStored,
    OurFault,
    OutcomeUnknown,
    Unavailable,
)
from artcafe.fabric.counters import Counters
from artcafe.model import ChannelId, Outcome, Principal, Record, TenantId
from artcafe.observe.logs import log
from artcafe.rules import access, subjects
from artcafe.rules.access import Action
from artcafe.rules.plans import Limit, TenantLimits
from artcafe.rules.subjects import Subject
from artcafe.services.audit import Audit
from artcafe.services.causes import Causes
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor
from artcafe.wire import frames, replies
from artcafe.wire.envelopes import ChainLink

REMEMBER_S: Final = 1.0
"""How long a stopped chain is refused, and a released one continued, without asking NATS: agents that repeat a refused message
must not load it. A release on another server takes effect here after this time."""
MOST_REMEMBERED: Final = 10_000
REFUNDS_AT_ONCE: Final = 256
MOST_REFUNDS: Final = 100_000


Admission = ChainLink | ArtcafeError
"""The place of a message in its chain, which counts it, or the reason why it is refused."""


class ChainStatus(StrEnum):
    """`stopped`: a message of the chain was refused, and further ones are, until a member releases it."""

    ACTIVE = "active"
    STOPPED = "stopped"


class Chain(Record, frozen=True, kw_only=True):
    """A message without a cause, and all direct and indirect answers to it. The chain has that message's id.

    `messages` counts all of them. The limits are the plan's, multiplied by one more than the number of `releases`.
    """

    id: str
    tenant_id: TenantId
    status: ChainStatus
    messages: int
    releases: int
    max_messages: int
    max_hops: int


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A chain above its plan's limits: the number of its releases, and whether all its budget is used."""

    until: float
    releases: int
    is_full: bool = False
    is_recorded: bool = False
    """Whether its stop is in the audit."""


class LoopGuard:
    """Admits answers to messages, and releases stopped chains."""

    def __init__(
        self,
        record_cache: RecordCache,
        counters: Counters,
        audit: Audit,
        causes: Causes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record_cache, self._counters, self._audit = record_cache, counters, audit
        self.causes, self._monotonic = causes, monotonic
        self._remembered: OrderedDict[tuple[TenantId, str], _Remembered] = OrderedDict()
        self._refunds: deque[Subject] = deque(maxlen=MOST_REFUNDS)
        self._due = asyncio.Event()
        self.supervisor = Supervisor("loop_guard")

    # --- publishing ---

    async def admit(self, principal: Principal, named: Sequence[frames.CausedBy], limits: TenantLimits) -> list[Admission]:
        """Return, for a message that answers each of `named`, its place in its chain, and count it there.

        Causes are looked up at once, and counted in one write. Pass the outcome of each publish to `watch`, or its link to
        `refund`. An error in place of a link refuses the message: `CauseNotFound`, `LoopStopped` above a limit, and `Unavailable`
        or `NotStored` while the limit cannot be read or counted: the log is in the same NATS.
        """
        if len(named) == 1:
            found = [await self._link(principal, named[0], limits)]
        else:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._link(principal, each, limits)) for each in named]
            found = [task.result() for task in tasks]
        counted = [(at, each) for at, each in enumerate(found) if isinstance(each, ChainLink)]
        if counted:
            totals = await self._add([subjects.chain_counter(principal.tenant_id, link.chain) for _, link in counted])
            for (at, link), total in zip(counted, totals, strict=True):
                found[at] = await self._within(principal.tenant_id, link, total, limits[Limit.CHAIN_MESSAGES])
        return found

    async def _link(self, principal: Principal, named: frames.CausedBy, limits: TenantLimits) -> Admission:
        """Return the place of a message that answers `named`, if its chain may go on as far as this server knows."""
        tenant_id = principal.tenant_id
        try:
            link = (await self.causes.find(principal, named)).link()
            most = limits[Limit.HOPS]
            if link.hops > most:
                most *= 1 + (await self._releases(tenant_id, link.chain)).releases
        except ArtcafeError as exc:
            return NotStored() if isinstance(exc, NatsConnectionLost) else exc
        except TimeoutError:
            return NotStored()
        if link.hops > most:
            return _stopped(link, Limit.HOPS, most, link.hops)
        known = self._recall(tenant_id, link.chain)
        if known is not None and known.is_full:
            most = limits[Limit.CHAIN_MESSAGES] * (1 + known.releases)
            return _stopped(link, Limit.CHAIN_MESSAGES, most, most)
        return link

    async def _add(self, counters: Sequence[Subject]) -> Sequence[int | Exception]:
        """Add 1 to each counter in one write. Return the totals, or an error in their place."""
        try:
            return await self._counters.add_each([(counter, 1) for counter in counters])
        except OurFault as exc:
            return [exc] * len(counters)

    async def _within(self, tenant_id: TenantId, link: ChainLink, total: int | Exception, most: int) -> Admission:
        """Return the link of a counted message, or the error if its chain has more messages than it may have."""
        if isinstance(total, Exception):
            return total if isinstance(total, Unavailable) else NotStored()
        messages = 1 + total  # The first message answers none, and is not in the counter.
        if messages <= most:
            return link
        try:
            releases = (await self._releases(tenant_id, link.chain)).releases
        except (OurFault, TimeoutError):
            self.refund(tenant_id, link)
            return NotStored()
        most *= 1 + releases
        if messages <= most:
            return link
        self._remember(tenant_id, link.chain, _Remembered(self._until(), releases, is_full=True))
        self.refund(tenant_id, link)
        return _stopped(link, Limit.CHAIN_MESSAGES, most, most)

    async def record_stop(self, principal: Principal, channel_id: ChannelId, stopped: LoopStopped) -> None:
        """Write a stopped chain to the audit: once for all its refused messages on all servers, and again after a release."""
        tenant_id, chain = principal.tenant_id, stopped.chain
        try:
            known = await self._releases(tenant_id, chain)
            if known.is_recorded:
                return
            stops = await self._counters.add(subjects.chain_stop_counter(tenant_id, chain, known.releases), 1)
        except (OurFault, TimeoutError) as exc:
            log.warning("chain.stop_not_recorded", chain=chain, error=repr(exc))
            return
        self._remember(tenant_id, chain, replace(known, is_recorded=True))
        if stops == 1:
            facts = {"chain": chain, "channel": channel_id, "hops": str(stopped.hops)}
            facts |= {"limit": stopped.limit, "at": str(stopped.most)}
            self._audit.counters.count(tenant_id, principal.sender, "chain.stop", Outcome.REFUSED, **facts)

    def watch(self, tenant_id: TenantId, link: ChainLink, outcome: asyncio.Future[replies.PublishReply]) -> None:
        """Take an admitted message back if it turns out that it was not stored: a repeat of a key, or a refused one."""
        outcome.add_done_callback(partial(self._on_outcome, tenant_id, link))

    def _on_outcome(self, tenant_id: TenantId, link: ChainLink, outcome: asyncio.Future[replies.PublishReply]) -> None:
        if outcome.cancelled() or isinstance(error := outcome.exception(), OutcomeUnknown):
            return
        if error is not None or outcome.result().duplicate:
            self.refund(tenant_id, link)

    def refund(self, tenant_id: TenantId, link: ChainLink) -> None:
        """Take a counted message back, in the background."""
        self._refunds.append(subjects.chain_counter(tenant_id, link.chain))
        self._due.set()

    async def run(self) -> None:
        """Take back messages until cancelled. One that cannot be taken back stays counted: the chain ends earlier, not later."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._refunds:
                taken = [self._refunds.popleft() for _ in range(min(REFUNDS_AT_ONCE, len(self._refunds)))]
                with self.supervisor.contain(messages=len(taken)):
                    await self._counters.add_each([(counter, -1) for counter in taken])

    # --- released chains ---

    async def _releases(self, tenant_id: TenantId, chain: str) -> _Remembered:
        """Return how often a chain was released. Adding nothing to the counter reads its leader, and keeps it from expiring
        before the counter of messages."""
        known = self._recall(tenant_id, chain)
        if known is None:
            releases = await self._counters.add(subjects.chain_release_counter(tenant_id, chain), 0)
            known = _Remembered(self._until(), releases)
            self._remember(tenant_id, chain, known)
        return known

    def _until(self) -> float:
        return self._monotonic() + REMEMBER_S

    def _recall(self, tenant_id: TenantId, chain: str) -> _Remembered | None:
        known = self._remembered.get((tenant_id, chain))
        return known if known is not None and known.until > self._monotonic() else None

    def _remember(self, tenant_id: TenantId, chain: str, known: _Remembered) -> None:
        self._remembered[tenant_id, chain] = known
        self._remembered.move_to_end((tenant_id, chain))
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    # --- members ---

    async def get(self, principal: Principal, chain: str) -> Chain:
        """Return the state of a chain. Raises Forbidden, ChainNotFound and Unavailable."""
        access.check(principal, Action.READ_CHAINS)
        return await self._read(principal.tenant_id, chain)

    async def release(self, principal: Principal, chain: str) -> Chain:
        """Let a stopped chain continue until it has used its limits once more. Any other chain stays as it is.

        Raises Forbidden, ChainNotFound, Conflict if it is released by another request at the same time, and Unavailable.
        """
        access.check(principal, Action.RELEASE_CHAINS)
        state = await self._read(principal.tenant_id, chain)
        if state.status is ChainStatus.ACTIVE:
            return state
        counter = subjects.chain_release_counter(principal.tenant_id, chain)
        async with self._audit.action(principal, "chain.release", chain, releases=str(state.releases + 1)):
            if await self._counters.add(counter, 1) != state.releases + 1:
                await self._counters.add(counter, -1)
                raise Conflict("the chain is being released by another request at the same time; read it again")
        self._remembered.pop((principal.tenant_id, chain), None)
        return await self._read(principal.tenant_id, chain)

    async def _read(self, tenant_id: TenantId, chain: str) -> Chain:
        messages, releases = subjects.chain_counter(tenant_id, chain), subjects.chain_release_counter(tenant_id, chain)
        first_stop = subjects.chain_stop_counter(tenant_id, chain, 0)
        totals = await self._counters.totals([messages, releases, first_stop])
        if messages not in totals and first_stop not in totals:
            raise ChainNotFound(chain)
        released = totals.get(releases, 0)
        stop = subjects.chain_stop_counter(tenant_id, chain, released)
        stops = totals.get(stop, 0) if released == 0 else (await self._counters.totals([stop])).get(stop, 0)
        limits = await self._record_cache.limits(tenant_id)
        return Chain(
            id=chain,
            tenant_id=tenant_id,
            status=ChainStatus.STOPPED if stops > 0 else ChainStatus.ACTIVE,
            messages=1 + totals.get(messages, 0),
            releases=released,
            max_messages=limits[Limit.CHAIN_MESSAGES] * (1 + released),
            max_hops=limits[Limit.HOPS] * (1 + released),
        )


def _stopped(link: ChainLink, limit: Limit, most: int, used: int) -> LoopStopped:
    return LoopStopped(limit.value, most, used, chain=link.chain, hops=link.hops)
