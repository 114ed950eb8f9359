"""Messages of a queue that NATS delivers again while another server has them.

A single nats-server writes a delivery to its disk within a second. If it is killed before that, it has forgotten the delivery,
and the next server that asks gets the message. So after a lost connection to NATS, a server asks the others before a holder gets
a message (decision record 74).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from artcafe.delivery.queue_stage import FRESH_S, Passes, Place, StartTask
from artcafe.errors import OurFault
from artcafe.fabric.queue_consumer import MARGIN_S
from artcafe.fabric.work_queue import QueuedMessage, WorkQueue
from artcafe.model import ChannelId, Epoch, QueueSettings, Seq
from artcafe.observe.logs import log
from artcafe.supervision import Supervisor

RECONNECT_S: Final = 2.5
"""How long after its own reconnect a server waits for those of the others, which try again every 2 s at the latest."""


class AskingFeed(Protocol):
    """The feed of the channel."""

    channel: ChannelId
    settings: QueueSettings
    queue: WorkQueue


class AskedServers(Protocol):
    """The other servers of the fleet (`delivery.other_servers`)."""

    @property
    def may_hold(self) -> bool:
        """Whether another server may have messages that NATS has forgotten."""

    @property
    def reconnected_at(self) -> float | None:
        """When this server last connected to NATS again, by the monotonic clock; None if it never lost it."""

    async def ask(self, channel: ChannelId, epoch: Epoch | None, seqs: Sequence[Seq]) -> Collection[Seq]:
        """Return those of a channel's messages that another server has. Raises nothing."""
        ...


class OtherHolders:
    """Keeps the messages of one queue channel until the other servers were asked for them."""

    def __init__(self, feed: AskingFeed, servers: AskedServers, spawn: StartTask) -> None:
        self._feed, self._servers, self._spawn = feed, servers, spawn
        self._asked: dict[Seq, tuple[QueuedMessage, Place]] = {}
        self._is_running = False
        self._passes = Passes()
        self.supervisor = Supervisor("other_holders")

    def __len__(self) -> int:
        """Return the number of messages that wait for an answer."""
        return len(self._asked)

    @property
    def may_have_it(self) -> bool:
        """Whether another server may have a message that is delivered now."""
        reconnected_at = self._servers.reconnected_at
        if reconnected_at is None:
            return False
        return time.monotonic() <= reconnected_at + self._feed.settings.ack_wait_s + MARGIN_S and self._servers.may_hold

    def keep(self, message: QueuedMessage, place: Place) -> None:
        """Keep a delivered message. It goes to `place` later, unless another server has it."""
        self._asked[message.seq] = message, place
        if not self._is_running:
            self._is_running = True
            self._spawn(self.supervisor.keep(self._run))

    async def checked(self) -> None:
        """Return once the other servers were asked for each message so far, at the latest after `ANSWER_S`."""
        await self._passes.wait_until(lambda: not self._asked)

    def forget(self) -> None:
        """Forget every message: the log is another one."""
        self._asked.clear()

    def close(self) -> None:
        """Give back every message. May be repeated."""
        for message, _ in self._asked.values():
            self._feed.queue.nak(message)
        self._asked.clear()

    async def _run(self) -> None:
        try:
            while self._asked:
                reconnected_at = self._servers.reconnected_at or 0.0
                await asyncio.sleep(max(0.0, reconnected_at + RECONNECT_S - time.monotonic()))
                await self._ask_for(list(self._asked))
                self._passes.note()
        finally:
            self._is_running = False

    async def _ask_for(self, seqs: Sequence[Seq]) -> None:
        """Ask for messages, and place those that no other server has. NATS delivers the others again if they do not end there."""
        elsewhere = await self._servers.ask(self._feed.channel, self._feed.queue.epoch, seqs)
        taken_at = await self._extend([self._asked[seq][0] for seq in seqs if seq in self._asked and seq not in elsewhere])
        for seq in seqs:
            message, place = self._asked.pop(seq, (None, None))
            if message is None or place is None or seq in elsewhere:
                continue
            place(message if taken_at is None else message._replace(taken_at=taken_at))
        self._feed.queue.wake()  # a message that was left to another server, or waits for its key, takes no room any more

    async def _extend(self, messages: Sequence[QueuedMessage]) -> float | None:
        """Let the deadlines of messages that waited begin again, and return when; None if they did not."""
        if not any(time.monotonic() - each.taken_at > FRESH_S for each in messages):
            return None
        try:
            return await self._feed.queue.extend_each(messages)
        except OurFault as exc:
            log.debug("other_holders.not_extended", error=repr(exc))
            return None
