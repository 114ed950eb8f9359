"""Queue messages held by agents after a pull, without a connection, on the server of the pull.

They are in the channel's `QueueFeed` like those of sockets: one holder at a time, with the channel's deadline. They are given
back when the agent loses its access (`pull_revocation`), but not at the end of the server. An ack may reach any server, and is
passed on by the receipt (`pull_settling`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from artcafe.delivery.queue_feed import QueueFeed
from artcafe.delivery.queue_holder import HeldMessage, Holder
from artcafe.delivery.queue_hub import QueueHub
from artcafe.errors import NotHeld, OurFault
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import AgentId, Channel, ChannelId, Epoch, QueueSettings, Seq, TenantId

MAX_HELD: Final = 1_000
"""Messages of one queue held by one agent's pulls from one server."""
MAX_HELD_BYTES: Final = 4 << 20
"""Their size, exceeded by at most one pull. They are kept, since any of them may become a dead letter."""
SWEEP_S: Final = 30.0
"""How often queues without held messages are left."""

ACK: Final = "ack"
NAK: Final = "nak"
REJECT: Final = "reject"
EXTEND: Final = "extend"


HolderKey = tuple[TenantId, AgentId, ChannelId]


class HoldChange(msgspec.Struct, frozen=True, array_like=True):
    """An ack, nak, rejection or extension of a held message in its delivery of this number."""

    kind: str
    channel: ChannelId
    seq: Seq
    deliveries: int
    delay_s: float | None = None


class HoldOutcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of a change: the code of an error, or the seconds to the new deadline of an extended message."""

    code: str | None = None
    left_s: float = 0


class PullHolder(Holder):
    """The messages held by an agent's pulls in one queue. It takes no turns: messages are fetched for it."""

    __slots__ = ("feed", "handle", "pulls", "tickets")

    def __init__(self, feed: QueueFeed, receiver: str) -> None:
        super().__init__(receiver, MAX_HELD)
        self.feed = feed
        self.handle: str | None = None
        """The channel's handle at the last pull."""
        self.pulls = 0
        """Pulls in progress."""
        self.tickets: dict[Seq, int] = {}
        """The number of the delivery of each held message, as its receipt has it. NATS may count on while it is held."""

    @property
    def is_open(self) -> bool:
        return False

    def hand(self, messages: Sequence[QueuedMessage]) -> None:
        """Never called: it takes no turns."""
        raise AssertionError("a pull takes no turns")

    @property
    def space(self) -> int:
        """How many more messages it may hold."""
        size = sum(len(held.message.envelope) for held in self.held.values())
        return max(0, MAX_HELD - len(self.held)) if size < MAX_HELD_BYTES else 0

    def take(self, message: QueuedMessage) -> HeldMessage | None:
        """Hold a fetched message. Return None if it is not delivered."""
        held = self.feed.hold_for(self, message)
        if held is not None:
            self.tickets[message.seq] = message.deliveries
        return held


class PullHolds:
    """All messages held by pulls on this server."""

    def __init__(self, hub: QueueHub) -> None:
        self._hub = hub
        self._holders: dict[HolderKey, PullHolder] = {}

    def __len__(self) -> int:
        return sum(len(holder.held) for holder in self._holders.values())

    def tenants(self) -> set[TenantId]:
        """Return the tenants whose agents hold messages."""
        return {tenant_id for tenant_id, _, _ in self._holders}

    def keys_of(self, tenant_id: TenantId) -> list[HolderKey]:
        """Return a tenant's holders."""
        return [key for key in self._holders if key[0] == tenant_id]

    def give_back(self, key: HolderKey) -> bool:
        """Give back the messages of a holder, to be delivered again at once. Return whether a pull may still take some for it."""
        holder = self._holders.get(key)
        if holder is None:
            return False
        holder.feed.give_back(holder)
        return holder.pulls > 0

    @contextlib.contextmanager
    def pulling(self, agent_id: AgentId, channel: Channel, receiver: str) -> Iterator[PullHolder]:
        """Yield an agent's holder in a queue, for a pull. Raises `Unavailable` during a shutdown."""
        key = channel.tenant_id, agent_id, channel.id
        holder = self._holders.get(key)
        if holder is None:
            feed = self._hub.feed(channel.tenant_id, channel.id, channel.queue or QueueSettings())
            holder = self._holders[key] = PullHolder(feed, receiver)
        holder.handle = channel.handle
        holder.pulls += 1
        try:
            yield holder
        finally:
            holder.pulls -= 1

    async def settle(self, tenant_id: TenantId, agent_id: AgentId, changes: Sequence[HoldChange]) -> list[HoldOutcome]:
        """Apply changes to an agent's messages held here. On return an ack or nak has reached NATS, except for `unavailable`."""
        holders = {change.channel: self._holders.get((tenant_id, agent_id, change.channel)) for change in changes}
        outcomes = [await _change(holders[change.channel], change) for change in changes]
        for channel_id in {change.channel for change, outcome in zip(changes, outcomes, strict=True) if outcome.code is None}:
            holder = holders[channel_id]
            try:
                if holder is not None:
                    await holder.feed.flushed()
            except OurFault as exc:
                outcomes = [
                    HoldOutcome(exc.code) if change.channel == channel_id and outcome.code is None else outcome
                    for change, outcome in zip(changes, outcomes, strict=True)
                ]
        return outcomes

    def note_ack(self, tenant_id: TenantId, agent_id: AgentId, channel_id: ChannelId, seq: Seq, epoch: Epoch | None) -> None:
        """Remember for receipts an ack of a message pulled by a server that has ended."""
        self._hub.note_ack(tenant_id, channel_id, seq, agent_id, epoch)

    async def run(self) -> None:
        """Leave queues without held messages, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Leave the queues without held messages."""
        for key, holder in list(self._holders.items()):
            holder.tickets = {seq: number for seq, number in holder.tickets.items() if seq in holder.held}
            if not holder.held and not holder.pulls:
                del self._holders[key]
                self._hub.release(holder.feed)


async def _change(holder: PullHolder | None, change: HoldChange) -> HoldOutcome:
    if holder is None or holder.tickets.get(change.seq) != change.deliveries:
        return HoldOutcome(NotHeld.code)
    try:
        return await _apply(holder, change)
    except (NotHeld, OurFault) as exc:
        return HoldOutcome(exc.code)


async def _apply(holder: PullHolder, change: HoldChange) -> HoldOutcome:
    """Apply a change. Raises `NotHeld` and `Unavailable`."""
    match change.kind:
        case "ack":
            holder.feed.ack(holder, change.seq)
        case "nak":
            holder.feed.nak(holder, change.seq, change.delay_s)
        case "reject":
            holder.feed.reject(holder, change.seq)
        case _:
            await holder.feed.extend(holder, change.seq)
            return HoldOutcome(left_s=holder.feed.settings.ack_wait_s)
    del holder.tickets[change.seq]
    return HoldOutcome()
