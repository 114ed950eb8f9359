"""Pulls waiting for a message: their number, and the signals to wake them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from artcafe.delivery.feed import Feed
from artcafe.delivery.hub import Hub
from artcafe.delivery.open_limits import OpenLimits
from artcafe.errors import Unavailable
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import AgentId, AgentPrincipal, Channel, ChannelId, Seq, TenantChange, TenantId

MAX_WAITS_PER_AGENT: Final = 2
MAX_WAITS_PER_TENANT: Final = 500
MAX_WAITS: Final = 2_000
"""Of one server. Each takes a connection and some 50 KB."""
OPEN_S: Final = 5.0
"""Longest wait for the feeds of a pull's channels."""
RECHECK_S: Final = 1.0
"""Shortest time between two reads of an agent's subscriptions by a waiting pull; a revocation has 5 s (contract, sentence 12)."""

WAITING: Final = "waiting pulls"
"""What `RateLimited` and `Overloaded` refuse."""


class PullWait:
    """One pull, waiting or not. The transport makes it, and ends it when the caller is gone."""

    __slots__ = ("_checked_at", "_event", "is_changed", "is_gone", "is_over")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._checked_at = float("-inf")
        self.is_over = False
        """Whether the pull must answer now, with any messages so far."""
        self.is_gone = False
        """Whether nobody reads the answer."""
        self.is_changed = False
        """Whether the agent or its subscriptions may have changed since `take_change`."""

    def wake(self) -> None:
        """Look for messages again."""
        self._event.set()

    def end(self) -> None:
        """Answer now. May be repeated."""
        self.is_over = True
        self._event.set()

    def abandon(self) -> None:
        """End the pull, because its caller is gone. May be repeated."""
        self.is_gone = True
        self.end()

    def change(self) -> None:
        """Read the agent's subscriptions again, at most once in `RECHECK_S`."""
        if not self.is_changed:
            self.is_changed = True
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._checked_at + RECHECK_S), self._event.set)

    def take_change(self) -> bool:
        """Return whether to read the agent's subscriptions again. Clears both signals: a later read sees their causes."""
        self._event.clear()
        changed, self.is_changed = self.is_changed, False
        if changed:
            self._checked_at = asyncio.get_running_loop().time()
        return changed

    def clear(self) -> None:
        """Clear the signal of `wake`: a later read sees its cause."""
        self._event.clear()

    async def until(self, deadline: float) -> None:
        """Wait for a signal, or for a time of the event loop's clock."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._event.wait()


class PullWaits:
    """The waiting pulls of this server."""

    def __init__(self) -> None:
        self._waits: dict[TenantId, dict[PullWait, AgentId]] = {}
        self.limits = OpenLimits(WAITING, MAX_WAITS_PER_AGENT, MAX_WAITS_PER_TENANT, MAX_WAITS)
        self._is_draining = False

    def __len__(self) -> int:
        return len(self.limits)

    def tenants(self) -> set[TenantId]:
        """Return the tenants with a waiting pull."""
        return set(self._waits)

    @contextlib.contextmanager
    def entered(self, principal: AgentPrincipal, wait: PullWait) -> Iterator[None]:
        """Count a pull as waiting during the block. Raises `RateLimited` above the limits of the agent and the tenant, and
        `Overloaded` above the server's."""
        tenant_id = principal.tenant_id
        with self.limits.entered(principal):
            self._waits.setdefault(tenant_id, {})[wait] = principal.agent_id
            if self._is_draining:
                wait.end()
            try:
                yield
            finally:
                del self._waits[tenant_id][wait]
                if not self._waits[tenant_id]:
                    del self._waits[tenant_id]

    def on_change(self, change: TenantChange) -> None:
        """Have the affected pulls check their agents and subscriptions again."""
        agents = {*change.agents, *(agent_id for _, agent_id in change.subscriptions)}
        for wait, agent_id in self._waits.get(change.tenant_id, {}).items():
            if change.is_whole or change.channels or agent_id in agents:
                wait.change()

    def drain(self) -> None:
        """Have every waiting pull answer now, and later ones at once: the server shuts down."""
        self._is_draining = True
        for waits in self._waits.values():
            for wait in waits:
                wait.end()


class FollowedFeeds:
    """The feeds of one pull's channels. Each wakes it at a new message."""

    def __init__(self, hub: Hub, tenant_id: TenantId, wake: Callable[[], None]) -> None:
        self._hub, self._tenant_id, self._wake = hub, tenant_id, wake
        self._feeds: dict[ChannelId, Feed] = {}

    def seen(self) -> dict[ChannelId, Seq]:
        """Return the newest message of each channel known to this server."""
        return {channel_id: feed.seen for channel_id, feed in self._feeds.items() if feed.opened.is_set()}

    async def follow(self, channels: Mapping[ChannelId, Channel], deadline: float) -> None:
        """Follow these channels and no others. After the return, a later message of each wakes the pull.

        Raises `Unavailable` if that is not possible within `OPEN_S` or until the deadline.
        """
        for channel_id in set(self._feeds) - set(channels):
            self._release(channel_id)
        for channel_id in set(channels) - set(self._feeds):
            channel = channels[channel_id]
            feed = self._feeds[channel_id] = self._hub.feed(self._tenant_id, channel_id, KINDS[channel.type], channel.handle)
            feed.wakers.add(self._wake)
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + OPEN_S)):
                for feed in self._feeds.values():
                    await feed.opened.wait()
        except TimeoutError as exc:
            if asyncio.get_running_loop().time() < deadline:
                raise Unavailable("the message log (NATS)") from exc

    def close(self) -> None:
        """Follow nothing. May be repeated."""
        for channel_id in list(self._feeds):
            self._release(channel_id)

    def _release(self, channel_id: ChannelId) -> None:
        feed = self._feeds.pop(channel_id)
        feed.wakers.discard(self._wake)
        self._hub.release(feed)
