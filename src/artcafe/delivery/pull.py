"""Pull: delivery to an agent without a connection, one call at a time. Shared by every door, so it knows nothing of HTTP.

A pull acknowledges nothing: its messages come again until `acknowledge` has moved their cursors. Any server answers either call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple, Protocol, Self

from artcafe.delivery.delivery_metrics import count_deliveries
from artcafe.delivery.delivery_services import NOT_PERMITTED, DeliveryServices, itself
from artcafe.delivery.pull_acks import PullAcks, PulledAck
from artcafe.delivery.pull_holds import ACK, PullHolds
from artcafe.delivery.pull_page import NO_PAGE, ChannelGap, LogPage, read_unexpired
from artcafe.delivery.pull_settling import PullSettling, Settled, SettleEntry
from artcafe.delivery.pull_waits import FollowedFeeds, PullWait, PullWaits
from artcafe.delivery.queue_pull import QueuePull, TakenMessage, open_queues
from artcafe.errors import ChannelNotFound, Conflict, Forbidden, Invalid, Revoked, SubscriptionNotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import (
    AgentId,
    AgentPrincipal,
    Channel,
    ChannelId,
    Epoch,
    Permission,
    Principal,
    Seq,
    Subscription,
    SubscriptionStatus,
    TenantId,
)
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.rules import times
from artcafe.rules.usage import Metric
from artcafe.services.login import Login
from artcafe.services.retention import Retention
from artcafe.services.shares import Shares
from artcafe.services.usage_counters import UsageCounters
from artcafe.wire.envelopes import channel_text, queue_frame

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_WAIT_S: Final = 25
"""Below the 30 s of many clients and proxies."""

_BEFORE, _AFTER = len(b'{"message":'), len(b"}")
"""What surrounds a message in its push."""


class PullServices(DeliveryServices, Protocol):
    """The services for pulls."""

    @property
    def fabric(self) -> Fabric: ...

    @property
    def retention(self) -> Retention: ...

    @property
    def login(self) -> Login: ...

    @property
    def usage_counters(self) -> UsageCounters: ...

    @property
    def shares(self) -> Shares: ...

    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A request for at most `limit` messages, of one channel or of all subscribed ones, with a wait of `wait_s` for the first."""

    limit: int = DEFAULT_LIMIT
    wait_s: float = 0
    channel: str | None = None

    @classmethod
    def checked(cls, limit: int = DEFAULT_LIMIT, wait_s: float = 0, channel: str | None = None) -> Self:
        """Return a request. Raises `Invalid` for a value outside its range."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid("limit", f"must be from 1 to {MAX_LIMIT}")
        if not 0 <= wait_s <= MAX_WAIT_S:
            raise Invalid("wait_s", f"must be from 0 to {MAX_WAIT_S} (seconds)")
        return cls(limit, wait_s, channel)


class PulledPage(NamedTuple):
    """The answer to a pull. Each item is a message as its push has it, as JSON text."""

    items: Sequence[bytes]
    gaps: Sequence[ChannelGap]
    has_more: bool
    epoch: Epoch | None


@dataclass(frozen=True, slots=True)
class _Sources:
    """The channels to pull from: subscriptions with cursors, by channel, and queues."""

    logs: Mapping[ChannelId, Subscription]
    channels: Mapping[ChannelId, Channel]
    """The channels of `logs`."""
    queues: Sequence[Channel]


class Pulls:
    """The pulls of this server."""

    def __init__(self, services: PullServices, receipt_key: bytes) -> None:
        """`receipt_key` seals the receipts of queue messages: 32 bytes, the same on every server."""
        self._services = services
        self.waits = PullWaits()
        self.holds = PullHolds(services.queue_hub)
        self._acks, self._settling = PullAcks(services), PullSettling(services, self.holds, receipt_key)

    async def pull(self, principal: Principal, agent_id: str, request: PullRequest, wait: PullWait | None = None) -> PulledPage:
        """Return messages above the cursors of the agent's active subscriptions, and the gaps before them; for that agent only.

        With a `wait_s`, wait for the first message; `wait` lets the caller end that earlier. Raises `Forbidden`; for
        `request.channel`, `SubscriptionNotFound`, `Conflict` if it is paused and `Invalid` if it stores nothing; for a wait,
        `RateLimited` and `Overloaded`, and `Revoked` or `TenantSuspended` if the agent loses its access meanwhile.
        """
        agent = itself(principal, agent_id)
        if not request.wait_s:
            sources = await self._sources(agent, request.channel)
            async with self._open_queues(agent, sources, PullWait()) as queues:
                page = await self._read(agent, sources, queues, request.limit, {})
                return await self._answer(agent, sources, page, queues)
        wait = PullWait() if wait is None else wait
        with self.waits.entered(agent, wait):
            return await self._wait(agent, request, wait)

    async def settle(
        self, principal: Principal, agent_id: str, entries: Sequence[SettleEntry], epoch: str | None = None
    ) -> list[Settled]:
        """Acknowledge, give back and extend messages of the agent itself, and return the outcome of each entry.

        An ack without a receipt moves a cursor (`PullAcks`); the others are about messages of queues (`PullSettling`). Raises
        `Forbidden`, and `Unavailable` if nothing was changed.
        """
        agent = itself(principal, agent_id)
        cursors = [at for at, entry in enumerate(entries) if entry.kind == ACK and entry.receipt is None]
        held = [at for at, entry in enumerate(entries) if entry.kind != ACK or entry.receipt is not None]
        outcomes: dict[int, Settled] = {}
        async with self._services.shares.of(agent).slot():
            if cursors:
                acks = [PulledAck(entries[at].channel, entries[at].seq) for at in cursors]
                errors = await self._acks.acknowledge(agent, acks, epoch)
                outcomes.update(zip(cursors, map(Settled, errors), strict=True))
            if held:
                outcomes.update(zip(held, await self._settling.settle(agent, [entries[at] for at in held]), strict=True))
        return [outcomes[at] for at in range(len(entries))]

    async def _wait(self, agent: AgentPrincipal, request: PullRequest, wait: PullWait) -> PulledPage:
        """Return the first page with a message, or at the end of the wait one with none; it may have gaps."""
        deadline = self._deadline(agent, request.wait_s)
        with contextlib.closing(FollowedFeeds(self._services.hub, agent.tenant_id, wait.wake)) as feeds:
            while True:
                if wait.take_change():
                    await self._check(agent)
                sources = await self._sources(agent, request.channel)
                async with self._open_queues(agent, sources, wait) as queues:
                    page = await self._read(agent, sources, queues, request.limit, feeds.seen())
                    if not (page.ends_wait or queues.taken):
                        page = await self._wait_for_more(agent, request, wait, sources, queues, feeds, deadline, page)
                    await queues.end()
                    if wait.is_changed:
                        await self._check(agent)
                    if page.ends_wait or queues.taken or not wait.is_changed or wait.is_over:
                        if wait.is_gone:
                            queues.give_back()
                        return await self._answer(agent, sources, page, queues)

    async def _wait_for_more(
        self,
        agent: AgentPrincipal,
        request: PullRequest,
        wait: PullWait,
        sources: _Sources,
        queues: QueuePull,
        feeds: FollowedFeeds,
        deadline: float,
        page: LogPage,
    ) -> LogPage:
        """Wait for a message, for a change of the agent's subscriptions, or until the deadline. `page`: what was read before."""
        await feeds.follow(sources.channels, deadline)
        while not (page.ends_wait or queues.taken or wait.is_over or wait.is_changed):
            await queues.begin(request.limit)
            # What was stored before the feeds opened wakes nobody, so look before each wait.
            page = await self._read_log(agent, sources, request.limit, feeds.seen())
            if page.ends_wait or queues.taken or asyncio.get_running_loop().time() >= deadline:
                break
            await wait.until(min(deadline, queues.renew_at))
            wait.clear()
        return page

    def _deadline(self, principal: AgentPrincipal, wait_s: float) -> float:
        """Return the end of a wait by the loop's clock: it ends with the key of the login, if that expires."""
        if principal.until is not None:
            wait_s = min(wait_s, (principal.until - self._services.clock()).total_seconds())
        return asyncio.get_running_loop().time() + wait_s

    async def _check(self, principal: AgentPrincipal) -> None:
        """Raise `Revoked` or `TenantSuspended` if the login is not valid any more."""
        if not await self._services.login.is_current(principal):
            raise Revoked

    async def _sources(self, agent: AgentPrincipal, channel: str | None) -> _Sources:
        """Read the subscriptions to pull from."""
        if channel is not None:
            row = await self._subscription(agent, await self._services.record_cache.channel_id(agent.tenant_id, channel))
            found = await self._services.record_cache.subscribed(agent.tenant_id, row.channel_id)
            kind = KINDS[found.type]
            if not kind.has_log:
                raise Invalid("channel", "is a live channel, which stores nothing to pull: receive it on a socket")
            return _Sources({}, {}, [found]) if kind.is_shared else _Sources({found.id: row}, {found.id: found}, [])
        logs, channels, queues = {}, {}, []
        for row in await self._services.subscriptions.for_connect(agent.tenant_id, agent.agent_id):
            with contextlib.suppress(ChannelNotFound):  # the channel is being deleted, together with its subscriptions
                found = await self._services.record_cache.subscribed(agent.tenant_id, row.channel_id)
                kind = KINDS[found.type]
                if kind.is_shared:
                    queues.append(found)
                elif kind.has_log:
                    logs[row.channel_id], channels[row.channel_id] = row, found
        return _Sources(logs, channels, queues)

    async def _subscription(self, agent: AgentPrincipal, channel_id: ChannelId) -> Subscription:
        (row,) = await self._services.subscriptions.now(agent.tenant_id, [(channel_id, agent.agent_id)])
        if row is None:
            raise SubscriptionNotFound(agent.agent_id)
        if row.status is not SubscriptionStatus.ACTIVE:
            raise Conflict("this subscription is paused; resume it first, by PATCH of its status to active")
        if not row.allows(Permission.RECEIVE):
            raise Forbidden(NOT_PERMITTED, "an agent")
        return row

    def _open_queues(self, agent: AgentPrincipal, sources: _Sources, wait: PullWait) -> AbstractAsyncContextManager[QueuePull]:
        return open_queues(self.holds, agent, sources.queues, wait.wake)

    async def _read(
        self, agent: AgentPrincipal, sources: _Sources, queues: QueuePull, limit: int, seen: Mapping[ChannelId, Seq]
    ) -> LogPage:
        """Take the waiting messages, each channel its share: those of queues are in `queues`, the others returned."""
        share = _share_of_queues(limit, len(sources.logs), len(sources.queues))
        if share:
            await queues.fetch(share)
        page = NO_PAGE
        if sources.logs and limit > len(queues.taken):
            page = await self._read_log(agent, sources, limit - len(queues.taken), seen)
        left = limit - len(queues.taken) - len(page.messages)
        if left > 0 and len(queues) and (queues.has_more or not share):
            await queues.fetch(left)
        return page

    async def _read_log(self, agent: AgentPrincipal, sources: _Sources, limit: int, seen: Mapping[ChannelId, Seq]) -> LogPage:
        """Read a page, as one of the commands in progress of the agent and its tenant."""
        services, tenant_id = self._services, agent.tenant_id
        cursors = {channel_id: services.cursors.newest(row) for channel_id, row in sources.logs.items()}
        async with services.shares.of(agent).slot():
            log = await services.fabric.tenant(tenant_id).connected_log()
            removed_to = partial(services.retention.removed_to_each, tenant_id)
            return await read_unexpired(log, cursors, limit, removed_to, seen, services.clock)

    async def _answer(self, agent: AgentPrincipal, sources: _Sources, page: LogPage, queues: QueuePull) -> PulledPage:
        """End the requests of a pull, and encode and count its messages."""
        await queues.end()
        self._trace(agent.tenant_id, page, queues)
        items = [self._held_item(agent, taken) for taken in queues.taken]
        items += [_item(sources.channels[channel_id], message) for channel_id, message in page.messages]
        self._count(agent.tenant_id, agent.agent_id, page, len(items))
        return PulledPage(items, page.gaps, page.has_more or queues.has_more, page.epoch)

    def _trace(self, tenant_id: TenantId, page: LogPage, queues: QueuePull) -> None:
        """Record a span for each channel with traced messages, as for a write to a socket."""
        by_channel: dict[ChannelId, list[StoredMessage | QueuedMessage]] = {}
        for taken in queues.taken:
            by_channel.setdefault(taken.holder.feed.channel, []).append(taken.message)
        for channel_id, message in page.messages:
            by_channel.setdefault(channel_id, []).append(message)
        for channel_id, messages in by_channel.items():
            tracing = self._services.hub.tracing_of(tenant_id, channel_id)
            span = None if tracing is None else tracing.start_deliver(messages)
            if span is not None:
                span.end()

    def _held_item(self, agent: AgentPrincipal, taken: TakenMessage) -> bytes:
        """Return a queue message with its receipt and deadline."""
        (_, message, held), feed = taken, taken.holder.feed
        text = queue_frame(channel_text(feed.channel, taken.holder.handle), message.seq, message.deliveries, message.envelope)[
            _BEFORE:-_AFTER
        ]
        until = self._services.clock() + timedelta(seconds=held.deadline - time.monotonic())
        receipt = self._settling.receipt(agent, feed, message, until)
        return b'%b,"receipt":"%b","held_until":"%b"}' % (text[:-1], receipt.encode(), times.to_text(until).encode())

    def _count(self, tenant_id: TenantId, agent_id: AgentId, page: LogPage, items: int) -> None:
        """Count messages as delivered. The feeds of queues count theirs in the tenant's usage."""
        metrics.PULLS.of("messages" if items else "empty").add()
        for channel_id, number in Counter(channel_id for channel_id, _ in page.messages).items():
            self._services.usage_counters.count(tenant_id, Metric.DELIVERIES, number, agent=agent_id, channel=channel_id)
        if items:
            count_deliveries(tenant_id, items)


def _item(channel: Channel, message: StoredMessage) -> bytes:
    """Return a message as its push has it."""
    (text,) = KINDS[channel.type].texts(channel_text(channel.id, channel.handle), [message])
    return text[_BEFORE:-_AFTER]


def _share_of_queues(limit: int, logs: int, queues: int) -> int:
    """Return how many of `limit` messages are asked from the queues first; with a small limit, whether any is drawn."""
    if not queues or not logs:
        return limit if queues else 0
    share = limit * queues // (logs + queues)
    return share or int(random.randrange(logs + queues) < queues)  # noqa: S311 (for fairness; nothing depends on a secret)
