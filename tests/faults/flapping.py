"""Traffic of agents that connect, subscribe, receive and acknowledge some messages, and leave after seconds.

In addition, all traffic of `load`, and two publishers over REST.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from artcafe.errors import ArtcafeError, OutcomeUnknown
from artcafe.sdk.http import HttpClient, path_of
from artcafe.wire import frames, replies
from tests.faults import bare_client, load
from tests.faults.checker import Acked, Began, Joined, Missed, Sent
from tests.faults.load import Load
from tests.fleet import Fleet
from tests.platform import Cast

CHANNELS: Final = 12
LISTENED: Final = 2
"""Channels with permanent listeners; servers start and stop following the other channels all the time."""
FLAPPERS: Final = 30
OF_EACH: Final = 3
"""Channels to which each of them is subscribed."""
LIFE_S: Final = (1.0, 5.0)
AWAY_S: Final = 1.0
ACKS: Final = 0.2
"""Probability of acknowledging a message, and with it everything before it."""
TURNS: Final = 0.05
"""Probability that an agent subscribes again, or unsubscribes, instead of receiving a message."""
PACE_S: Final = 0.05
REST_PACE_S: Final = 0.25
REST_TIMEOUT_S: Final = 30.0
WAIT_S: Final = 90.0


class Flapping(Load):
    """All traffic of `Load`, slower, and agents that connect and disconnect."""

    pace_s, wait_s = PACE_S, WAIT_S

    def __init__(self, fleet: Fleet, cast: Cast) -> None:
        super().__init__(fleet, cast)
        self._fleet = fleet
        self._owner = "usr:owner-1@example.com"
        self._chance = random.Random(random.randrange(2**32))
        numbers = range(load.AGENTS, load.AGENTS + FLAPPERS)
        self._channels_of = {number: self._chance.sample(cast.channels, OF_EACH) for number in numbers}
        self._connections = dict.fromkeys(numbers, 0)
        self._flappers: list[asyncio.Task[None]] = []
        self._are_leaving = False

    @property
    def listened(self) -> Sequence[str]:
        return self.cast.channels[:LISTENED]

    async def begin(self, group: asyncio.TaskGroup) -> None:
        async with self.cast.rest() as rest:
            for number, channels in self._channels_of.items():
                for channel in channels:
                    await rest.tenant(self.cast.tenant).subscriptions.create(channel, self.cast.agents[number])
        await super().begin(group)
        self._publishers += [group.create_task(self._publish_rest(is_keyed)) for is_keyed in (True, False)]
        self._flappers = [group.create_task(self._flap(number)) for number in self._channels_of]
        self._listeners += self._flappers

    async def _end_publishing(self) -> None:
        await super()._end_publishing()
        self._are_leaving = True

    def _subscribers(self) -> dict[str, Sequence[str]]:
        flappers = {self.cast.agents[number]: channels for number, channels in self._channels_of.items()}
        return {**super()._subscribers(), **flappers}

    # --- publishing over REST ---

    async def _publish_rest(self, is_keyed: bool) -> None:
        """Publish one message after the other, alternating between the servers. A publish with a key is repeated until its
        outcome is known."""
        line, number = f"rest/{is_keyed}", 0
        while not self._stopping:
            await asyncio.sleep(REST_PACE_S)
            sent = self._next_of(f"{line}/{number}", self._owner, is_keyed=is_keyed)
            answer = await self._post(sent)
            while answer is None and is_keyed:
                await asyncio.sleep(load.RETRY_S)
                answer = await self._post(sent)
            self._answered(sent, answer)
            number += answer is None  # it may still be stored, after the next publish

    async def _post(self, sent: Sent) -> replies.PublishReply | replies.ErrorBody | None:
        """Return the answer, or None if the outcome is unknown."""
        url = self._chance.choice(self._fleet.living).url
        try:
            async with HttpClient(url, self.cast.token, REST_TIMEOUT_S) as client:
                body = {"data": msgspec.Raw(sent.data.encode()), **({"key": sent.key} if sent.key else {})}
                path = path_of(self.cast.tenant, "channels", sent.channel, "messages")
                found = await client.send(replies.PublishReply, "POST", path, body)
        except OutcomeUnknown:
            return None
        except ArtcafeError as exc:
            return replies.ErrorBody(exc.code, str(exc), exc.temporary)
        return replies.PublishReply(found.seq, found.message_id, found.duplicate)

    # --- coming and going ---

    async def _flap(self, number: int) -> None:
        """Run short connections one after the other, and a last one that stays when the publishers have ended."""
        while not self._are_leaving:
            with suppress(*bare_client.GONE):
                async with asyncio.timeout(self._chance.uniform(*LIFE_S)):
                    await self._live(number)
            await asyncio.sleep(self._chance.uniform(0, AWAY_S))
        while True:
            with suppress(*bare_client.GONE):
                await self._live(number, is_restless=False)
            await asyncio.sleep(load.RETRY_S)

    async def _live(self, number: int, *, is_restless: bool = True) -> None:
        """Run one connection, until it is lost or cancelled; then the agent leaves, with a close frame or without."""
        self._connections[number] += 1
        connection, name = self._connections[number], self.cast.agents[number]
        self._record(Joined(name, connection))
        max_unacked = self._chance.choice((None, None, 16)) if is_restless else None
        async with bare_client.connected(self._fleet.a_gateway(), self.cast, number, max_unacked) as agent:
            try:
                await self._work(agent, number, connection, is_restless)
            finally:
                if is_restless and self._chance.random() < 0.5:
                    agent.abort()

    async def _work(self, agent: bare_client.BareClient, number: int, connection: int, is_restless: bool) -> None:
        name = self.cast.agents[number]
        asked: dict[int, str] = {}
        """Subscriptions without an answer yet."""
        muted: set[str] = set()
        if is_restless:
            for channel in self._chance.sample(self._channels_of[number], self._chance.randrange(1, OF_EACH + 1)):
                await self._turn(agent, channel, asked, muted)
        while True:
            if is_restless and self._chance.random() < TURNS:
                await self._turn(agent, self._chance.choice(self._channels_of[number]), asked, muted)
            frame = await agent.receive()
            if frame.subscribe is not None and frame.id is not None:
                self._record(Began(name, connection, asked.pop(frame.id), frame.subscribe.cursor or 0))
            if frame.gap is not None:
                self._record(Missed(name, connection, frame.gap.channel, frame.gap.reason))
            if frame.message is not None:
                entry = load.entry_of(frame.message)
                self._got(name, connection, entry)
                if self._chance.random() < ACKS:
                    self._record(Acked(name, connection, entry.channel, entry.seq))
                    await agent.ack(entry.channel, entry.seq)

    async def _turn(self, agent: bare_client.BareClient, channel: str, asked: dict[int, str], muted: set[str]) -> None:
        """Subscribe to a channel, again if it is already delivered, or unsubscribe from it."""
        id = agent.new_id()
        if channel not in muted and self._chance.random() < 0.3:
            muted.add(channel)
            await agent.send("unsubscribe", frames.Unsubscribe(channel), id)
        else:
            muted.discard(channel)
            asked[id] = channel
            await agent.send("subscribe", frames.Subscribe(channel, "cursor"), id)


@asynccontextmanager
async def flapping_on(fleet: Fleet) -> AsyncIterator[Flapping]:
    """Run agents that connect and disconnect in a new tenant; all of it ends with this block."""
    cast = await fleet.tenant_with(agents=load.AGENTS + FLAPPERS, channels=CHANNELS, subscribed=False)
    async with load.running(Flapping(fleet, cast)) as running:
        yield running
