"""Receipts of broadcast messages with faults: a publisher that requests them, and recipients that acknowledge all, some or none.

`receipt_checker` judges what they saw.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Final, get_args

import msgspec

from artcafe.errors import ArtcafeError
from artcafe.wire import frames, receipts, replies
from tests.faults import bare_client
from tests.faults.receipt_checker import (
    AckGiven,
    Arrived,
    Claimed,
    Followed,
    Gone,
    LastPush,
    PublisherGone,
    Read,
    ReceiptEvent,
    ReceiptHistory,
    judge_receipts,
)
from tests.faults.traffic import PAUSE_S, Traffic
from tests.faults.verdicts import Ruling

PUBLISHER, QUICK, SLOW, GUEST, ABSENT = range(5)
RECIPIENTS: Final = {"close": (QUICK, SLOW), "wide": (QUICK, SLOW, GUEST, ABSENT)}
"""By channel. The guest comes and goes, and the absent agent never comes."""
LEVELS: Final[Sequence[frames.ReceiptLevel]] = get_args(frames.ReceiptLevel)
AT_ONCE: Final = 8
PACE_S: Final = 0.05
SLACK_S: Final = 5.0
RECEIPTS_S: Final = (0.5, 2.0)
ACKS: Final = {QUICK: 1.0, SLOW: 0.3, GUEST: 0.5}
"""The chance of each recipient to acknowledge a message."""
RECENT: Final = 50
IS_RECENT: Final = 0.7
"""How many messages count as recent, and the chance that such a one's states are read."""
STAYS_S, AWAY_S = 0.7, 0.3
"""How long the guest stays, and is away."""


class ReceiptTraffic(Traffic):
    """Receipts in one tenant. A step is a receipt that has ended."""

    name = "receipts"
    agents = 5

    async def prepare(self) -> None:
        self.events: list[ReceiptEvent] = []
        self._numbers = itertools.count(1)
        self._open: set[tuple[str, int]] = set()
        """Receipts without a last push."""
        self._followed: list[tuple[str, int]] = []
        self.recipients: dict[str, Sequence[str]] = {}
        async with self.cast.rest() as rest:
            for name, agents in RECIPIENTS.items():
                channel = (await rest.tenant(self.cast.tenant).channels.create(name)).id
                self.recipients[channel] = [self.cast.agents[number] for number in agents]
                for agent in self.recipients[channel]:
                    await rest.tenant(self.cast.tenant).subscriptions.create(channel, agent)

    @property
    def all_events(self) -> list[ReceiptEvent]:
        return self.events

    def work(self) -> Sequence[Coroutine[None, None, None]]:
        return [*(self._receive_on(number) for number in ACKS), self._publish(), self._read()]

    async def end(self, *, is_faulted: bool, stopped_s: float = 0.0) -> Ruling:
        self.is_stopping = True
        await self.until(lambda: not self._open, "last push of every receipt")
        self.stop()
        return judge_receipts(ReceiptHistory(self.events, self.recipients, SLACK_S + stopped_s, is_faulted))

    # --- the publisher ---

    async def _publish(self) -> None:
        """Publish on one connection after another."""
        while not self.is_stopping:
            try:
                async with bare_client.connected(self.platform.a_gateway(), self.cast, PUBLISHER) as agent:
                    try:
                        await self._publish_on(agent)
                    finally:
                        self.events.append(PublisherGone(time.monotonic()))
                        self._open.clear()
            except bare_client.GONE:
                await asyncio.sleep(PAUSE_S)

    async def _publish_on(self, agent: bare_client.BareClient) -> None:
        waiting: dict[int, frames.Publish] = {}
        while self._open or waiting or not self.is_stopping:
            if len(self._open) + len(waiting) < AT_ONCE and not self.is_stopping:
                id, body = agent.new_id(), self._next()
                waiting[id] = body
                await agent.send("publish", body, id)
            try:
                async with asyncio.timeout(PACE_S):
                    while True:
                        self._take(await agent.receive(), waiting)
            except TimeoutError:
                continue

    def _next(self) -> frames.Publish:
        data = msgspec.Raw(b'{"n":%d}' % next(self._numbers))
        channel = self.chance.choice(list(self.recipients))
        receipt_s = self.chance.choice(RECEIPTS_S)
        return frames.Publish(channel, data, receipt=self.chance.choice(LEVELS), receipt_s=receipt_s)

    def _take(self, frame: replies.Incoming, waiting: Mapping[int, frames.Publish]) -> None:
        """Record the answer to a publish, or a receipt push."""
        assert isinstance(waiting, dict)
        if frame.id is not None:
            body = waiting.pop(frame.id)
            if frame.publish is not None and frame.publish.seq is not None:
                self._follow(body, frame.publish.seq)
        elif frame.receipt is not None:
            self._push(frame.receipt)

    def _follow(self, body: frames.Publish, seq: int) -> None:
        assert body.receipt is not None
        assert body.receipt_s is not None
        self.events.append(Followed(body.channel, seq, body.receipt, body.receipt_s, time.monotonic()))
        self._open.add((body.channel, seq))
        self._followed.append((body.channel, seq))

    def _push(self, push: receipts.ReceiptPush) -> None:
        now = time.monotonic()
        self.events += [Claimed(each.agent or "", push.channel, push.seq, each.state, now) for each in push.recipients]
        if push.final:
            self.events.append(LastPush(push.channel, push.seq, push.reason or "", push.open, now))
            self._open.discard((push.channel, push.seq))
            self.progress += 1

    async def _read(self) -> None:
        """Read the states of some messages over REST."""
        async with self.cast.rest() as rest:
            while not self.is_stopping:
                await asyncio.sleep(PAUSE_S)
                if not self._followed:
                    continue
                of = self._followed[-RECENT:] if self.chance.random() < IS_RECENT else self._followed
                (channel, seq), began = self.chance.choice(of), time.monotonic()
                try:
                    found = [each async for each in rest.tenant(self.cast.tenant).messages.receipts(channel, seq)]
                except ArtcafeError:
                    continue
                self.events += [Claimed(each.agent_id or "", channel, seq, each.state, began, True) for each in found]

    # --- the recipients ---

    async def _receive_on(self, number: int) -> None:
        """Receive on one connection after another; the guest leaves each after a while."""
        agent = self.cast.agents[number]
        while True:
            try:
                async with bare_client.connected(self.platform.a_gateway(), self.cast, number) as connection:
                    self.events.append(Arrived(agent, time.monotonic()))
                    try:
                        async with asyncio.timeout(STAYS_S if number == GUEST else None):
                            while True:
                                await self._handle(connection, number)
                    finally:
                        self.events.append(Gone(agent, time.monotonic()))
            except bare_client.GONE:
                await asyncio.sleep(AWAY_S if number == GUEST else PAUSE_S)

    async def _handle(self, connection: bare_client.BareClient, number: int) -> None:
        """Record a message, and acknowledge some."""
        frame, agent = await connection.receive(), self.cast.agents[number]
        if frame.message is None or frame.message.seq is None:
            return
        channel, seq = frame.message.channel, frame.message.seq
        self.events.append(Read(agent, channel, seq, time.monotonic()))
        if self.chance.random() < ACKS[number]:
            self.events.append(AckGiven(agent, channel, seq, time.monotonic()))
            await connection.ack(channel, seq)
