"""The queue channels of one pull: fetch messages for the agent, and hold them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

from artcafe.delivery.pull_holds import PullHolder, PullHolds
from artcafe.delivery.queue_holder import HeldMessage
from artcafe.errors import NotHeld
from artcafe.fabric.queue_fetch import QueueFetch
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import AgentPrincipal, Channel

PULL_BYTES: Final = 512 * 1024
"""Size of a pull's messages; above it, no more are fetched."""


class TakenMessage(NamedTuple):
    """A message held by the agent now, with its envelope."""

    holder: PullHolder
    message: QueuedMessage
    held: HeldMessage


class QueuePull:
    """The requests of one pull to its queues, and their messages. `open_queues` makes it."""

    def __init__(self, holders: Sequence[PullHolder], wake: Callable[[], None]) -> None:
        """`wake` is called at each message, and when `begin` must be called again."""
        self._wake = wake
        self._queues = [(holder, QueueFetch(holder.feed.queue, partial(self._offer, holder), wake)) for holder in holders]
        random.shuffle(self._queues)  # so that a small limit starves no queue
        self.taken: list[TakenMessage] = []
        self._bytes = 0
        self._is_over = False
        self.has_more = False
        """Whether a queue had as many messages as were asked for."""

    def __len__(self) -> int:
        """Return the number of queues."""
        return len(self._queues)

    def _offer(self, holder: PullHolder, message: QueuedMessage) -> None:
        holder.feed.take(message, partial(self._take, holder))

    def _take(self, holder: PullHolder, message: QueuedMessage) -> None:
        if self._is_over:
            holder.feed.place(message)
            return
        held = holder.take(message)
        if held is not None:
            self.taken.append(TakenMessage(holder, message, held))
            self._bytes += len(message.envelope)
            self._wake()

    async def fetch(self, limit: int) -> None:
        """Take at most `limit` waiting messages: each queue's share, then the rest. Raises `Unavailable`."""
        most = len(self.taken) + limit
        share = max(1, limit // max(1, len(self)))
        full = [each for each in self._queues if await self._fetch_from(*each, min(share, most - len(self.taken)))]
        self.has_more = bool(full)
        for each in full:
            await self._fetch_from(*each, most - len(self.taken))

    async def _fetch_from(self, holder: PullHolder, fetch: QueueFetch, most: int) -> bool:
        """Take messages of one queue, and return whether it had as many as that."""
        most = min(most, holder.space)
        if most <= 0 or self._bytes >= PULL_BYTES:
            return True
        before = len(self.taken)
        await fetch.now(most, PULL_BYTES - self._bytes)
        await holder.feed.checked()
        return len(self.taken) - before >= most

    async def begin(self, limit: int) -> None:
        """Have NATS send at most `limit` messages as they come. Call again when `wake` was called without one. Raises
        `Unavailable`."""
        share = max(1, limit // max(1, len(self)))
        for holder, fetch in self._queues[:limit]:
            most = min(share, holder.space)
            if most > 0 and not fetch.is_open:
                await fetch.begin(most, PULL_BYTES)

    @property
    def renew_at(self) -> float:
        """The time, by the event loop's clock, of the next `begin`, unless `wake` is called before."""
        open_s = min((fetch.open_s for _, fetch in self._queues), default=math.inf)
        return asyncio.get_running_loop().time() + open_s

    async def end(self) -> None:
        """Withdraw the requests. Messages on their way are taken before the return."""
        for holder, fetch in self._queues:
            await fetch.end()
            await holder.feed.checked()
        self._is_over = True

    def give_back(self) -> None:
        """Give the taken messages back at once: the pull is not answered."""
        for holder, message, _ in self.taken:
            with contextlib.suppress(NotHeld):
                holder.feed.nak(holder, message.seq, 0)
        self.taken = []


@asynccontextmanager
async def open_queues(
    holds: PullHolds, principal: AgentPrincipal, channels: Sequence[Channel], wake: Callable[[], None]
) -> AsyncIterator[QueuePull]:
    """Yield the queue side of a pull. An exception in the block gives back its messages."""
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(holds.pulling(principal.agent_id, channel, principal.sender)) for channel in channels]
        pull = QueuePull(holders, wake)
        is_done = False
        try:
            yield pull
            is_done = True
        finally:
            await pull.end()
            if not is_done:
                pull.give_back()
