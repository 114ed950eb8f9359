"""Pull: what an agent without a connection receives, one call at a time. Shared by every door, so it knows nothing of HTTP.

A pull acknowledges nothing: its messages come again until `acknowledge` has moved their cursors. Any server answers either call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol, Self

from artcafe.delivery.delivery_metrics import count_deliveries
from artcafe.delivery.hub import Hub
from artcafe.delivery.pull_acks import PullAcks, PulledAck
from artcafe.delivery.pull_page import ChannelGap, LogPage, read_page, without_expired
from artcafe.delivery.pull_waits import FollowedFeeds, PullWait, PullWaits
from artcafe.errors import ArtcafeError, ChannelNotFound, Conflict, Forbidden, Invalid, Revoked, SubscriptionNotFound
from artcafe.fabric.channel_kinds import KINDS, ChannelKind
from artcafe.fabric.fabric import Fabric
from artcafe.model import (
    AgentId,
    AgentPrincipal,
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
from artcafe.rules import access
from artcafe.rules.access import Action
from artcafe.rules.usage import Metric
from artcafe.services.cursors import Cursors
from artcafe.services.login import Login
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.services.shares import Shares
from artcafe.services.subscriptions import Subscriptions
from artcafe.services.usage_counters import UsageCounters
from artcafe.wire.envelopes import channel_text

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_WAIT_S: Final = 25
"""Below the 30 s after which many clients and proxies give up."""

NOT_PERMITTED: Final = "receive this channel: its subscription lacks the permission 'receive', which a member can give it"

_BEFORE, _AFTER = len(b'{"message":'), len(b"}")
"""What surrounds a message in its push."""


class PullServices(Protocol):
    """The services for pulls."""

    @property
    def subscriptions(self) -> Subscriptions: ...

    @property
    def record_cache(self) -> RecordCache: ...

    @property
    def cursors(self) -> Cursors: ...

    @property
    def hub(self) -> Hub: ...

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
    """A request for at most `limit` messages, of one channel or of all subscribed ones, that waits `wait_s` for the first."""

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


class Pulled(NamedTuple):
    """The answer to a pull. Each item is a message as its push has it, as JSON text."""

    items: Sequence[bytes]
    gaps: Sequence[ChannelGap]
    has_more: bool
    epoch: Epoch | None


@dataclass(frozen=True, slots=True)
class _Source:
    """A channel that an agent receives."""

    subscription: Subscription
    kind: ChannelKind
    handle: str | None


class Pulls:
    """The pulls of this server."""

    def __init__(self, services: PullServices) -> None:
        self._services = services
        self.waits = PullWaits()
        self._acks = PullAcks(services)

    async def pull(self, principal: Principal, agent_id: str, request: PullRequest, wait: PullWait | None = None) -> Pulled:
        """Return messages above the cursors of the agent's active subscriptions, and the gaps before them; for that agent only.

        With a `wait_s`, wait for the first message; `wait` lets the caller end that earlier. Raises `Forbidden`; for
        `request.channel`, `SubscriptionNotFound`, `Conflict` if it is paused and `Invalid` if it stores nothing; for a wait,
        `RateLimited` and `Overloaded`, and `Revoked` or `TenantSuspended` if the agent loses its access meanwhile.
        """
        access.check(principal, Action.PULL, AgentId(agent_id))
        assert isinstance(principal, AgentPrincipal), "the table of permissions has no person for it"
        if not request.wait_s:
            return await self._read(principal, await self._sources(principal, request.channel), request.limit, {})
        wait = PullWait() if wait is None else wait
        with self.waits.entered(principal, wait):
            return await self._wait(principal, request, wait)

    async def acknowledge(
        self, principal: Principal, agent_id: str, acks: Sequence[PulledAck], epoch: str | None = None
    ) -> list[ArtcafeError | None]:
        """Acknowledge messages for the agent itself, as `PullAcks.acknowledge` does. Raises `Forbidden` and `Unavailable`."""
        access.check(principal, Action.PULL, AgentId(agent_id))
        assert isinstance(principal, AgentPrincipal), "the table of permissions has no person for it"
        async with self._services.shares.of(principal).slot():
            return await self._acks.acknowledge(principal, acks, epoch)

    async def _wait(self, principal: AgentPrincipal, request: PullRequest, wait: PullWait) -> Pulled:
        """Return the first page with something in it, or an empty one at the end of the wait."""
        deadline = self._deadline(principal, request.wait_s)
        sources = await self._sources(principal, request.channel)
        with contextlib.closing(FollowedFeeds(self._services.hub, principal.tenant_id, wait.wake)) as feeds:
            is_following = False
            while True:
                if wait.take_change():
                    await self._check(principal)
                    sources, is_following = await self._sources(principal, request.channel), False
                pulled = await self._read(principal, sources, request.limit, feeds.seen())
                is_over = wait.is_over or asyncio.get_running_loop().time() >= deadline
                if pulled.items or pulled.gaps or (is_over and not wait.is_changed):
                    return pulled
                if is_following:
                    await wait.until(deadline)
                    continue
                # Read once more after this: what was stored before the feeds opened wakes nobody.
                await feeds.follow({channel_id: source.kind for channel_id, source in sources.items()}, deadline)
                is_following = True

    def _deadline(self, principal: AgentPrincipal, wait_s: float) -> float:
        """Return the end of a wait by the loop's clock: it ends with the key of the login, if that expires."""
        if principal.until is not None:
            wait_s = min(wait_s, (principal.until - self._services.clock()).total_seconds())
        return asyncio.get_running_loop().time() + wait_s

    async def _check(self, principal: AgentPrincipal) -> None:
        """Raise `Revoked` or `TenantSuspended` if the login is not valid any more."""
        if not await self._services.login.is_current(principal):
            raise Revoked

    async def _sources(self, principal: AgentPrincipal, channel: str | None) -> dict[ChannelId, _Source]:
        """Read the subscriptions to pull from: of channels with stored messages."""
        tenant_id = principal.tenant_id
        if channel is not None:
            channel_id = await self._services.record_cache.channel_id(tenant_id, channel)
            return {channel_id: await self._source(principal, channel_id)}
        sources = {}
        for row in await self._services.subscriptions.for_connect(tenant_id, principal.agent_id):
            with contextlib.suppress(ChannelNotFound):  # the channel is being deleted, together with its subscriptions
                found = await self._services.record_cache.subscribed(tenant_id, row.channel_id)
                kind = KINDS[found.type]
                if kind.has_log and not kind.is_shared:
                    sources[row.channel_id] = _Source(row, kind, found.handle)
        return sources

    async def _source(self, principal: AgentPrincipal, channel_id: ChannelId) -> _Source:
        (row,) = await self._services.subscriptions.now(principal.tenant_id, [(channel_id, principal.agent_id)])
        if row is None:
            raise SubscriptionNotFound(principal.agent_id)
        if row.status is not SubscriptionStatus.ACTIVE:
            raise Conflict("this subscription is paused; resume it first, by PATCH of its status to active")
        if not row.allows(Permission.RECEIVE):
            raise Forbidden(NOT_PERMITTED, "an agent")
        channel = await self._services.record_cache.subscribed(principal.tenant_id, channel_id)
        kind = KINDS[channel.type]
        if kind.is_shared or not kind.has_log:
            raise Invalid("channel", "is a queue or live channel, whose messages cannot be pulled: receive it on a socket")
        return _Source(row, kind, channel.handle)

    async def _read(
        self, principal: AgentPrincipal, sources: Mapping[ChannelId, _Source], limit: int, seen: Mapping[ChannelId, Seq]
    ) -> Pulled:
        """Read a page, as one of the commands that the agent and its tenant may have in progress at once."""
        services, tenant_id = self._services, principal.tenant_id
        cursors = {channel_id: services.cursors.newest(source.subscription) for channel_id, source in sources.items()}
        async with services.shares.of(principal).slot():
            log = await services.fabric.tenant(tenant_id).connected_log()
            page = await read_page(log, cursors, limit, partial(services.retention.removed_to_each, tenant_id), seen)
        page = without_expired(page, services.clock)
        texts = {channel_id: channel_text(channel_id, source.handle) for channel_id, source in sources.items()}
        items = [
            sources[channel_id].kind.texts(texts[channel_id], [message])[0][_BEFORE:-_AFTER]
            for channel_id, message in page.messages
        ]
        self._count(tenant_id, principal.agent_id, page)
        return Pulled(items, page.gaps, page.has_more, page.epoch)

    def _count(self, tenant_id: TenantId, agent_id: AgentId, page: LogPage) -> None:
        """Count the messages of a page as delivered."""
        metrics.PULLS.of("messages" if page.messages else "empty").add()
        for channel_id, number in Counter(channel_id for channel_id, _ in page.messages).items():
            self._services.usage_counters.count(tenant_id, Metric.DELIVERIES, number, agent=agent_id, channel=channel_id)
        if page.messages:
            count_deliveries(tenant_id, len(page.messages))
