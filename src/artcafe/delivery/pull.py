"""Pull: delivery to an agent without a connection, one call at a time. Every transport may call it, so it knows nothing of HTTP.

A pull acknowledges nothing: its messages come again until `acknowledge` has moved their cursors. Any server answers either call.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple, Protocol, Self

from artcafe.delivery.delivery_metrics import count_deliveries
from artcafe.delivery.delivery_services import DeliveryServices
from artcafe.delivery.pull_acks import PullAcks, PulledAck
from artcafe.delivery.pull_channels import PullChannels, find_channels
from artcafe.delivery.pull_holds import ACK, PullHolds
from artcafe.delivery.pull_page import NO_PAGE, ChannelGap, read_unexpired
from artcafe.delivery.pull_revocation import PullRevocation
from artcafe.delivery.pull_settling import PullSettling, Settled, SettleEntry
from artcafe.delivery.pull_waits import FollowedFeeds, PullWait, PullWaits
from artcafe.delivery.queue_pull import QueuePull, TakenMessage, open_queues
from artcafe.errors import Invalid, Revoked
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import AgentPrincipal, Channel, ChannelId, Epoch, Principal
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.rules import access, times
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
    moves: Mapping[str, int]
    """How often the cursor of each channel, by its id, was moved before the pull, if it ever was."""


class Pulls:
    """The pulls of this server."""

    def __init__(self, services: PullServices, receipt_key: bytes) -> None:
        """`receipt_key` seals the receipts of queue messages: 32 bytes, the same on every server."""
        self._services = services
        self.waits = PullWaits()
        self.holds = PullHolds(services.queue_hub)
        self.revocation = PullRevocation(services, self.holds)
        self._acks, self._settling = PullAcks(services), PullSettling(services, self.holds, receipt_key)

    async def pull(self, principal: Principal, agent_id: str, request: PullRequest, wait: PullWait | None = None) -> PulledPage:
        """Return messages above the cursors of the agent's active subscriptions, and the gaps before them; for that agent only.

        With a `wait_s`, wait for the first message; `wait` lets the caller end that earlier. Raises `Forbidden`; for
        `request.channel`, `SubscriptionNotFound`, `Conflict` if it is paused and `Invalid` if it stores nothing; for a wait,
        `RateLimited` and `Overloaded`, and `Revoked` or `TenantSuspended` if the agent loses its access meanwhile.
        """
        agent = access.check_own_inbox(principal, agent_id)
        if not request.wait_s:
            return await self._pull(agent, request, PullWait())
        wait = PullWait() if wait is None else wait
        with self.waits.entered(agent, wait):
            return await self._pull(agent, request, wait)

    async def _pull(self, agent: AgentPrincipal, request: PullRequest, wait: PullWait) -> PulledPage:
        return await _Pull(self._services, self.holds, self._settling, agent, request, wait).run()

    async def settle(
        self,
        principal: Principal,
        agent_id: str,
        entries: Sequence[SettleEntry],
        epoch: str | None = None,
        moves: Mapping[str, int] | None = None,
    ) -> list[Settled]:
        """Acknowledge, give back and extend messages of the agent itself, and return the outcome of each entry.

        `epoch` and `moves` are those of the pull. An ack without a receipt moves a cursor (`PullAcks`); the others are about
        messages of queues (`PullSettling`). Raises `Forbidden`, and `Unavailable` if nothing was changed.
        """
        agent = access.check_own_inbox(principal, agent_id)
        cursors = [at for at, entry in enumerate(entries) if entry.kind == ACK and entry.receipt is None]
        held = [at for at, entry in enumerate(entries) if entry.kind != ACK or entry.receipt is not None]
        outcomes: dict[int, Settled] = {}
        async with self._services.shares.of(agent).slot():
            if cursors:
                acks = [PulledAck(entries[at].channel, entries[at].seq) for at in cursors]
                errors = await self._acks.acknowledge(agent, acks, epoch, moves)
                outcomes.update(zip(cursors, map(Settled, errors), strict=True))
            if held:
                outcomes.update(zip(held, await self._settling.settle(agent, [entries[at] for at in held]), strict=True))
        return [outcomes[at] for at in range(len(entries))]


class _Pull:
    """One pull: it finds the agent's channels, reads their messages, waits for the first one if it may, and answers.

    It begins again when the agent's subscriptions change during the wait.
    """

    def __init__(
        self,
        services: PullServices,
        holds: PullHolds,
        settling: PullSettling,
        agent: AgentPrincipal,
        request: PullRequest,
        wait: PullWait,
    ) -> None:
        self._services, self._holds, self._settling = services, holds, settling
        self._agent, self._request, self._wait = agent, request, wait
        self._deadline = asyncio.get_running_loop().time() + self._longest_wait_s()
        """The end of the wait, by the loop's clock."""
        self._feeds = FollowedFeeds(services.hub, agent.tenant_id, wait.wake)
        self._channels: PullChannels
        self._queues: QueuePull
        """The messages taken from queues, which the agent holds."""
        self._page = NO_PAGE
        """The messages above the cursors."""

    async def run(self) -> PulledPage:
        """Return the first page with a message, or at the end of the wait one with none; it may have gaps."""
        wait = self._wait
        with contextlib.closing(self._feeds):
            while True:
                if wait.take_change():
                    await self._check_access()
                async with self._open_channels():
                    await self._read()
                    if self._request.wait_s and not self._has_answer():
                        await self._wait_for_message()
                    await self._queues.end()
                    if wait.is_changed:
                        await self._check_access()
                    if self._has_answer() or wait.is_over or not wait.is_changed:
                        return self._answer()

    async def _check_access(self) -> None:
        """Raise `Revoked` or `TenantSuspended` if the login is not valid any more."""
        if not await self._services.login.is_current(self._agent):
            raise Revoked

    @asynccontextmanager
    async def _open_channels(self) -> AsyncIterator[None]:
        """Find the channels to pull from. An exception in the block gives back the messages of queues."""
        self._channels = await find_channels(self._services, self._agent, self._request.channel)
        async with open_queues(self._holds, self._agent, self._channels.queues, self._wait.wake) as self._queues:
            yield

    async def _read(self) -> None:
        """Take the waiting messages, each channel its share."""
        limit, queues = self._request.limit, self._queues
        share = self._channels.share_of_queues(limit)
        if share:
            await queues.fetch(share)
        self._page = NO_PAGE
        if self._channels.with_cursors and limit > len(queues.taken):
            await self._read_log(limit - len(queues.taken))
        left = limit - len(queues.taken) - len(self._page.messages)
        if left > 0 and len(queues) and (queues.has_more or not share):
            await queues.fetch(left)

    async def _read_log(self, limit: int) -> None:
        """Read the messages above the cursors, as one of the commands in progress of the agent and its tenant."""
        services, tenant_id = self._services, self._agent.tenant_id
        cursors = {channel_id: services.cursors.newest(row) for channel_id, row in self._channels.subscriptions.items()}
        async with services.shares.of(self._agent).slot():
            log = await services.fabric.tenant(tenant_id).connected_log()
            removed_to = partial(services.retention.removed_to_each, tenant_id)
            self._page = await read_unexpired(log, cursors, limit, removed_to, self._feeds.seen(), services.clock)

    async def _wait_for_message(self) -> None:
        """Wait for the first message, for a change of the agent's subscriptions, or until the deadline."""
        await self._feeds.follow(self._channels.with_cursors, self._deadline)
        while not (self._has_answer() or self._wait.is_over or self._wait.is_changed):
            await self._queues.begin(self._request.limit)
            # What was stored before the feeds opened wakes nobody, so look before each wait.
            await self._read_log(self._request.limit)
            if self._has_answer() or asyncio.get_running_loop().time() >= self._deadline:
                break
            await self._wait.until(min(self._deadline, self._queues.renew_at))
            self._wait.clear()

    def _has_answer(self) -> bool:
        """Return whether there is a message, or another reason to answer before the end of the wait."""
        return self._page.ends_wait or bool(self._queues.taken)

    def _longest_wait_s(self) -> float:
        """Return how long the pull may wait: it ends with the key of the login, if that expires."""
        wait_s, until = self._request.wait_s, self._agent.until
        return wait_s if until is None else min(wait_s, (until - self._services.clock()).total_seconds())

    def _answer(self) -> PulledPage:
        """Encode and count the messages. Give back those of queues if nobody reads the answer."""
        page, queues = self._page, self._queues
        if self._wait.is_gone:
            queues.give_back()
        self._trace()
        items = [self._held_item(taken) for taken in queues.taken]
        items += [_item(self._channels.with_cursors[channel_id], message) for channel_id, message in page.messages]
        self._count(len(items))
        rows = self._channels.subscriptions.values()
        moves: dict[str, int] = {row.channel_id: row.cursor.moves for row in rows if row.cursor.moves}
        return PulledPage(items, page.gaps, page.has_more or queues.has_more, page.epoch, moves)

    def _trace(self) -> None:
        """Record a span for each channel with traced messages, as for a write to a socket."""
        by_channel: dict[ChannelId, list[StoredMessage | QueuedMessage]] = {}
        for taken in self._queues.taken:
            by_channel.setdefault(taken.holder.feed.channel, []).append(taken.message)
        for channel_id, message in self._page.messages:
            by_channel.setdefault(channel_id, []).append(message)
        for channel_id, messages in by_channel.items():
            tracing = self._services.hub.tracing_of(self._agent.tenant_id, channel_id)
            span = None if tracing is None else tracing.start_deliver(messages)
            if span is not None:
                span.end()

    def _held_item(self, taken: TakenMessage) -> bytes:
        """Return a queue message with its receipt and deadline."""
        (_, message, held), feed = taken, taken.holder.feed
        text = queue_frame(channel_text(feed.channel, taken.holder.handle), message.seq, message.deliveries, message.envelope)[
            _BEFORE:-_AFTER
        ]
        until = self._services.clock() + timedelta(seconds=held.deadline - time.monotonic())
        receipt = self._settling.receipt(self._agent, feed, message, until)
        return b'%b,"receipt":"%b","held_until":"%b"}' % (text[:-1], receipt.encode(), times.to_text(until).encode())

    def _count(self, items: int) -> None:
        """Count messages as delivered. The feeds of queues count theirs in the tenant's usage."""
        metrics.PULLS.of("messages" if items else "empty").add()
        tenant_id, agent_id = self._agent.tenant_id, self._agent.agent_id
        for channel_id, number in Counter(channel_id for channel_id, _ in self._page.messages).items():
            self._services.usage_counters.count(tenant_id, Metric.DELIVERIES, number, agent=agent_id, channel=channel_id)
        if items:
            count_deliveries(tenant_id, items)


def _item(channel: Channel, message: StoredMessage) -> bytes:
    """Return a message as its push has it."""
    (text,) = KINDS[channel.type].texts(channel_text(channel.id, channel.handle), [message])
    return text[_BEFORE:-_AFTER]
