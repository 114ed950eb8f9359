"""Receipts that a publish has requested: what becomes of the message for each recipient, as the server pushes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Self

from artcafe.sdk.messages import Receipt
from artcafe.wire import receipts

CONNECTION_LOST: Final = "connection_lost"
"""The reason of a receipt that ended with its connection: the server follows it no more."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """An agent that receives the message. `state` is `pending`, `delivered` (sent to a socket), `acked`, `dead_lettered`,
    `expired`, `skipped`, `away` or `unknown`. `last_seen` is when an agent that is away was last known to be connected.

    In a queue, `agent` is the one that holds the message or has acknowledged it, None if there is none or it is unknown, and
    `reason` says why it is a dead letter (`max_deliveries`, `expired` or `rejected`).
    """

    agent: str | None
    state: str
    last_seen: datetime | None = None
    reason: str | None = None


class TrackedReceipt:
    """The result of a publish that requested a receipt. The message is stored on disk.

    Wait for the end with `wait`, or iterate over the recipients as their states change.
    """

    def __init__(self, published: Receipt) -> None:
        self.published = published
        self.reason: str | None = None
        """Why the receipt has ended: `reached` (every recipient has), `deadline`, `too_many` (recipients to follow),
        `unavailable` or `connection_lost`. None while it waits."""
        self.open: int | None = None
        """The number of recipients that have not reached what was waited for; None if it is unknown."""
        self.outcome: Recipient | None = None
        """In a queue, the last known state of the message, which has one holder at a time. None in other channels."""
        self._recipients: dict[str, Recipient] = {}
        self._changes: list[Recipient] = []
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"TrackedReceipt(seq={self.seq}, open={self.open}, reason={self.reason!r})"

    @property
    def seq(self) -> int | None:
        return self.published.seq

    @property
    def message_id(self) -> str | None:
        return self.published.message_id

    @property
    def recipients(self) -> Mapping[str, Recipient]:
        """The last known state of each recipient, by the agent's id. Empty in a queue, which has an `outcome`."""
        return MappingProxyType(self._recipients)

    @property
    def is_reached(self) -> bool:
        """Whether every recipient has reached what was waited for."""
        return self.reason == "reached"

    async def wait(self, timeout_s: float | None = None) -> Self:
        """Return when the receipt has ended: look at `reason` or `is_reached`. Raises TimeoutError after `timeout_s`.

        May be called by several tasks, and again.
        """
        async with asyncio.timeout(timeout_s):
            while self.reason is None:
                await self._news.wait()
        return self

    async def __aiter__(self) -> AsyncIterator[Recipient]:
        """Yield each change of a recipient's state, from the first one, until the receipt has ended."""
        at = 0
        while True:
            while at < len(self._changes):
                at += 1
                yield self._changes[at - 1]
            if self.reason is not None:
                return
            await self._news.wait()

    def take(self, push: receipts.ReceiptPush) -> None:
        """Apply a push of the server."""
        for each in push.recipients:
            seen = None if each.last_seen is None else datetime.fromisoformat(each.last_seen)
            recipient = Recipient(each.agent, each.state, seen, each.reason)
            if each.agent is None or push.queue:
                before, self.outcome = self.outcome, recipient
            else:
                before = self._recipients.get(each.agent)
                self._recipients[each.agent] = recipient
            if before != recipient:
                self._changes.append(recipient)
        self.open = push.open
        if push.final:
            self.reason = push.reason or "reached"
        self._notify()

    def end(self, reason: str) -> None:
        """End the receipt without a push."""
        self.reason = self.reason or reason
        self._notify()

    def _notify(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class TrackedReceipts:
    """The receipts of a connection that wait for pushes, by channel and sequence."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], list[TrackedReceipt]] = {}

    def follow(self, channel: str, receipt: TrackedReceipt) -> None:
        """Pass the pushes about a stored message to its receipt."""
        assert receipt.seq is not None, "the server refuses a receipt in a channel without a log"
        self._waiting.setdefault((channel, receipt.seq), []).append(receipt)

    def on_push(self, push: receipts.ReceiptPush) -> None:
        """Apply a push. After a repeat of a publish several receipts wait for one message, and the first one ends first."""
        place = (push.channel, push.seq)
        waiting = self._waiting.get(place, [])
        for receipt in list(waiting):
            if push.final:
                waiting.remove(receipt)
            receipt.take(push)
            if push.final:
                break
        if not waiting:
            self._waiting.pop(place, None)

    def end_all(self) -> None:
        """End every receipt: the connection is lost."""
        waiting, self._waiting = self._waiting, {}
        for several in waiting.values():
            for receipt in several:
                receipt.end(CONNECTION_LOST)
