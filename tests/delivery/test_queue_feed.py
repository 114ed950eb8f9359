"""A queue's messages on one server: fair turns, deadlines, and everything that gives a message back. On a real nats-server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from artcafe.delivery.other_holders import RECONNECT_S, AskedServers
from artcafe.delivery.queue_feed import Mover, QueueFeed
from artcafe.delivery.queue_holder import Holder
from artcafe.errors import NotHeld
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_log import TenantLog
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import ChannelId, Epoch, QueueSettings, Seq
from artcafe.wire.envelopes import DeadLetterReason
from tests.fabric.conftest import nats as nats  # noqa: PLC0414 (pytest finds a fixture by its name here)
from tests.fabric.nats_env import A, Nats, a_tenant, until, writing


class Hands(Holder):
    """Keeps the messages that it was handed."""

    def __init__(self, agent: str, max_unacked: int = 1) -> None:
        super().__init__(agent, max_unacked)
        self.got: list[QueuedMessage] = []
        self.opens = True

    @property
    def is_open(self) -> bool:
        return self.opens

    def hand(self, messages: Sequence[QueuedMessage]) -> None:
        self.got += messages

    @property
    def seqs(self) -> list[int]:
        return [each.seq for each in self.got]

    def has_last(self, seq: int) -> bool:
        return self.seqs[-1:] == [seq]

    def has_got(self, count: int) -> bool:
        return len(self.got) == count


async def nothing() -> None:
    """Confirm that the channel exists."""


class NothingFails:
    """Moves nothing: no message fails often enough."""

    def move_undeliverable(self, _feed: QueueFeed, _message: QueuedMessage) -> bool:
        return False

    def move(self, _feed: QueueFeed, message: QueuedMessage, reason: DeadLetterReason, deliveries: int) -> None:
        raise AssertionError(f"{message.seq} was moved after {deliveries} deliveries: {reason}")


class ThirdDeliveriesEnd(NothingFails):
    """Ends messages that are delivered more than twice."""

    def __init__(self) -> None:
        self.ended: list[QueuedMessage] = []

    def move_undeliverable(self, feed: QueueFeed, message: QueuedMessage) -> bool:
        if message.deliveries > 2:
            self.ended.append(message)
            feed.queue.terminate(message)
        return message.deliveries > 2


class NoOthers:
    """A fleet of one server, which never lost NATS."""

    may_hold = False
    reconnected_at: float | None = None

    async def ask(self, _channel: ChannelId, _epoch: Epoch | None, seqs: Sequence[Seq]) -> set[Seq]:
        raise AssertionError(f"nobody can be asked for {seqs}")


class FirstIsElsewhere:
    """Another server that has the first message of the log, after a lost connection to NATS."""

    may_hold = True

    def __init__(self) -> None:
        self.reconnected_at: float | None = time.monotonic() - RECONNECT_S

    async def ask(self, _channel: ChannelId, _epoch: Epoch | None, seqs: Sequence[Seq]) -> set[Seq]:
        return {1} & set(seqs)


@asynccontextmanager
async def serving(
    connection: NatsConnection,
    settings: QueueSettings | None = None,
    *,
    servers: AskedServers | None = None,
    mover: Mover | None = None,
) -> AsyncIterator[QueueFeed]:
    """Run one server's feed of channel A."""
    log, settings = TenantLog(connection), settings or QueueSettings()
    async with asyncio.TaskGroup() as group:
        feed = QueueFeed(log, a_tenant(), A, settings, nothing, servers or NoOthers(), mover or NothingFails(), group.create_task)
        group.create_task(feed.queue.run())
        yield feed
        feed.close()


def joined(feed: QueueFeed, agent: str, max_unacked: int = 1) -> Hands:
    """Add a holder of this agent."""
    hands = Hands(agent, max_unacked)
    feed.join(hands)
    return hands


async def put(connection: NatsConnection, count: int) -> None:
    """Store messages with the sequences from 1 on."""
    async with writing(connection) as writer:
        for at in range(count):
            await writer.publish(at)


async def test_agents_take_turns_and_then_the_sockets_of_each(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection) as feed:
        one, two = joined(feed, "agt_a", 4), joined(feed, "agt_a", 4)
        other = joined(feed, "agt_b", 4)
        await put(connection, 8)
        await until(lambda: len(feed.held) == 8)
        await until(lambda: len(one.got) + len(two.got) + len(other.got) == 8)
        assert (len(other.got), len(one.got), len(two.got)) == (4, 2, 2)
        assert feed.take_counts() == {"agt_a": 4, "agt_b": 4}


async def test_a_server_pulls_only_what_its_holders_have_room_for(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as here, nats.connection(tenant) as there, serving(here) as feed, serving(there) as rest:
        busy = joined(feed, "agt_a", 3)
        await put(here, 10)
        await until(lambda: busy.seqs == [1, 2, 3])
        idle = joined(rest, "agt_b", 16)
        await until(lambda: len(idle.got) == 7)
        assert (len(busy.got), len(feed.held), feed.room) == (3, 3, 0)


async def test_message_left_to_another_server_makes_room_for_the_next(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, servers=FirstIsElsewhere()) as feed:
        hands = joined(feed, "agt_a")
        await put(connection, 2)
        await until(lambda: hands.seqs == [2])


@pytest.mark.promise("9a")
async def test_a_message_whose_deadline_passes_goes_to_another_holder_and_the_late_ack_is_not_held(nats: Nats) -> None:
    tenant, settings = a_tenant(), QueueSettings(ack_wait_s=1)
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(nats.connection(tenant)) for _ in range(2)]
        feed, rest = [await stack.enter_async_context(serving(each, settings)) for each in (here, there)]
        slow = joined(feed, "agt_a")
        await put(here, 1)
        await until(lambda: slow.seqs == [1])
        slow.opens = False
        next_one = joined(rest, "agt_b")
        await until(lambda: next_one.seqs == [1])
        assert next_one.got[0].deliveries == 2
        with pytest.raises(NotHeld, match="does not hold message 1"):
            feed.ack(slow, 1)
        with pytest.raises(NotHeld):
            feed.nak(slow, 1)
        with pytest.raises(NotHeld):
            await feed.extend(slow, 1)
        rest.ack(next_one, 1)
        assert not rest.held


async def test_an_ack_is_refused_after_the_deadline_even_before_its_timer_has_run(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, QueueSettings(ack_wait_s=1)) as feed:
        hands = joined(feed, "agt_a")
        await put(connection, 1)
        await until(lambda: hands.seqs == [1])
        while time.monotonic() < feed.held[1].deadline:
            pass  # this process is busy, or stopped
        with pytest.raises(NotHeld):
            feed.ack(hands, 1)


async def test_extending_keeps_a_message_beyond_its_first_deadline(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, QueueSettings(ack_wait_s=1)) as feed:
        hands = joined(feed, "agt_a")
        await put(connection, 1)
        await until(lambda: hands.seqs == [1])
        first = feed.held[1].deadline
        while time.monotonic() < first + 0.5:
            await feed.extend(hands, 1)
            await asyncio.sleep(0.1)
        assert hands.seqs == [1]
        feed.ack(hands, 1)


@pytest.mark.promise("9a")
async def test_a_holder_that_leaves_gives_its_messages_to_the_others_at_once(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection) as feed:
        gone = joined(feed, "agt_a", 3)
        await put(connection, 3)
        await until(lambda: gone.seqs == [1, 2, 3])
        heir = joined(feed, "agt_b", 8)
        feed.leave(gone)
        feed.leave(gone)
        await until(lambda: sorted(heir.seqs) == [1, 2, 3])
        assert [each.deliveries for each in heir.got] == [2, 2, 2]
        with pytest.raises(NotHeld):
            feed.ack(gone, 1)


@pytest.mark.promise("9a")
async def test_a_holder_that_leaves_gives_its_messages_to_another_server_though_this_one_is_busy(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as here, nats.connection(tenant) as there, serving(here) as feed, serving(there) as rest:
        busy = joined(feed, "agt_a")
        await put(here, 1)
        await until(lambda: busy.seqs == [1])
        gone = joined(feed, "agt_b", 4)
        await put(here, 1)
        await until(lambda: gone.seqs == [2] and feed.queue.has_asked)
        feed.leave(gone)
        idle = joined(rest, "agt_c", 4)
        await put(here, 1)
        await until(lambda: sorted(idle.seqs) == [2, 3])
        assert {each.seq: each.deliveries for each in idle.got} == {2: 2, 3: 1}


async def test_a_holder_with_a_smaller_window_leaves_messages_to_another_server(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as here, nats.connection(tenant) as there, serving(here) as feed, serving(there) as rest:
        narrowed = joined(feed, "agt_a", 8)
        await until(lambda: feed.queue.has_asked)
        narrowed.max_unacked = 1
        feed.update(narrowed)
        await feed.queue.flushed()
        idle = joined(rest, "agt_b", 8)
        await put(here, 6)
        await until(lambda: len(narrowed.got) + len(idle.got) == 6)
        assert len(narrowed.got) <= 1


async def test_server_without_holders_keeps_no_message(nats: Nats) -> None:
    """A pull keeps the feed, and takes no message in turn."""
    tenant = a_tenant()
    async with nats.connection(tenant) as here, nats.connection(tenant) as there, serving(here) as feed, serving(there) as rest:
        gone = joined(feed, "agt_a", 4)
        await until(lambda: feed.queue.has_asked)
        feed.leave(gone)
        await put(here, 2)
        idle = joined(rest, "agt_b", 4)
        await until(lambda: sorted(idle.seqs) == [1, 2])


async def test_a_leaving_holder_costs_waiting_messages_one_delivery(nats: Nats) -> None:
    """What was requested for the window of one that has left does not go back and forth."""
    async with nats.connection(a_tenant()) as connection, serving(connection) as feed:
        wide, narrow = joined(feed, "agt_a", 32), joined(feed, "agt_b", 1)
        await until(lambda: feed.queue.has_asked)
        feed.leave(wide)
        await put(connection, 12)
        for seq in range(1, 13):
            await until(partial(narrow.has_last, seq))
            feed.ack(narrow, seq)
        assert [each.deliveries for each in narrow.got] == [1] * 12


async def test_a_nak_waits_for_its_delay_or_for_the_back_off_of_its_delivery(nats: Nats) -> None:
    settings = QueueSettings(back_off=(0, 60))
    async with nats.connection(a_tenant()) as connection, serving(connection, settings) as feed:
        hands = joined(feed, "agt_a")
        await put(connection, 1)
        await until(lambda: hands.seqs == [1])
        feed.nak(hands, 1)  # at once, by the back-off of the first delivery
        await until(lambda: len(hands.got) == 2)
        assert (hands.got[1].seq, hands.got[1].deliveries) == (1, 2)
        feed.nak(hands, 1)  # after a minute
        await put(connection, 1)
        await until(lambda: hands.seqs == [1, 1, 2])
        feed.nak(hands, 2, 0.2)
        await until(lambda: hands.seqs == [1, 1, 2, 2])


async def test_a_paused_holder_gets_nothing_until_it_goes_on(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection) as feed:
        paused, other = joined(feed, "agt_a", 2), joined(feed, "agt_b", 1)
        paused.opens = False
        await put(connection, 3)
        await until(lambda: other.seqs == [1])
        assert paused.got == []
        paused.opens = True
        feed.update(paused)
        await until(lambda: paused.seqs == [2, 3])


async def test_undeliverable_message_goes_to_no_holder(nats: Nats) -> None:
    mover = ThirdDeliveriesEnd()
    async with nats.connection(a_tenant()) as connection, serving(connection, mover=mover) as feed:
        hands = joined(feed, "agt_a")
        await put(connection, 1)
        for deliveries in (1, 2):
            await until(partial(hands.has_got, deliveries))
            feed.nak(hands, 1)
        await until(lambda: len(mover.ended) == 1)
        await put(connection, 1)
        await until(lambda: hands.seqs == [1, 1, 2])
        assert [(each.seq, each.deliveries) for each in mover.ended] == [(1, 3)]


async def test_a_shorter_ack_wait_applies_to_messages_held_now(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, QueueSettings(ack_wait_s=600)) as feed:
        slow = joined(feed, "agt_a")
        await put(connection, 1)
        await until(lambda: slow.seqs == [1])
        feed.change(QueueSettings(ack_wait_s=1))
        await until(lambda: slow.seqs == [1, 1])


async def test_every_message_is_acknowledged_once_while_holders_come_and_go(nats: Nats) -> None:
    tenant, count, done = a_tenant(), 300, set[int]()
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(nats.connection(tenant)) for _ in range(2)]
        feeds = [await stack.enter_async_context(serving(each)) for each in connections]
        await put(connections[0], count)
        repeats = 0
        async with asyncio.timeout(30):
            while len(done) < count:
                for at, feed in enumerate(feeds):
                    hands = joined(feed, f"agt_{at}", 8)
                    await asyncio.sleep(0.01)
                    for message in hands.got[: len(hands.got) // 2 + 1]:
                        repeats += message.seq in done
                        done.add(message.seq)
                        feed.ack(hands, message.seq)
                    feed.leave(hands)
        assert (done, repeats) == (set(range(1, count + 1)), 0)
