"""Queues that order messages by key, on one server and two: order, naks, lost acks, ends without a mark. On a real
nats-server.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from contextlib import AsyncExitStack

import pytest

from artcafe.delivery import key_gate
from artcafe.fabric.key_log import store_end
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import QueueSettings
from artcafe.rules import subjects
from artcafe.wire.envelopes import key_of, mark_envelope
from tests.delivery.test_queue_feed import Hands, joined, serving
from tests.fabric.conftest import nats as nats  # noqa: PLC0414 (pytest finds a fixture by its name here)
from tests.fabric.nats_env import A, Nats, a_tenant, until, writing

ORDERED = QueueSettings(key_ordered=True)


async def put(connection: NatsConnection, keys: str) -> None:
    """Store a message for each letter: its key, or none for `-`. Sequences count up from 1."""
    async with writing(connection) as writer:
        for key in keys:
            await writer.publish(0, headers=None if key == "-" else {"partition": key})


@pytest.mark.promise("9c")
async def test_messages_of_a_key_are_held_one_at_a_time_and_others_are_not_delayed(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 16)
        await put(connection, "aab-ab-")
        await until(lambda: len(hands.got) == 4)
        assert sorted(hands.seqs) == [1, 3, 4, 7]
        feed.ack(hands, 1)
        await until(lambda: hands.seqs[4:] == [2])
        feed.ack(hands, 3)
        await until(lambda: hands.seqs[4:] == [2, 6])
        feed.ack(hands, 2)
        await until(lambda: hands.seqs[4:] == [2, 6, 5])
        assert {each.deliveries for each in hands.got} == {1}
        for seq in (4, 5, 6, 7):
            feed.ack(hands, seq)
        await feed.flushed()
        assert await QueueConsumer(TenantLog(connection), A).is_done(7)


async def test_key_waits_for_its_message_through_a_nak_with_a_delay(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 16)
        await put(connection, "aab")
        await until(lambda: sorted(hands.seqs) == [1, 3])
        feed.nak(hands, 1, 0.5)
        await until(lambda: len(hands.got) == 3)
        assert (hands.got[2].seq, hands.got[2].deliveries) == (1, 2)
        feed.ack(hands, 1)
        await until(lambda: hands.seqs[3:] == [2])


async def test_key_goes_on_after_a_dead_letter(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 16)
        await put(connection, "aa")
        await until(lambda: hands.seqs == [1])
        await connection.request(subjects.dead_mark(A, 1), mark_envelope("dead", "msg_1", "artcafe", "now"))
        await until(lambda: hands.seqs == [1, 2])


@pytest.mark.promise("9c")
async def test_two_servers_hold_each_key_once_and_in_order(nats: Nats) -> None:
    tenant, chance, count = a_tenant(), random.Random(54), 240
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(nats.connection(tenant)) for _ in range(2)]
        feeds = [await stack.enter_async_context(serving(each, ORDERED)) for each in connections]
        hands = [(feed, joined(feed, f"agt_{number}", 4)) for number, feed in enumerate((*feeds, *feeds))]
        await put(connections[0], "".join(chance.choice("abcdefg-") for _ in range(count)))
        done: dict[str, list[int]] = defaultdict(list)
        held: dict[str, int] = {}
        seen: dict[Hands, int] = defaultdict(int)
        async with asyncio.timeout(60):
            while sum(map(len, done.values())) < count:
                for feed, one in hands:
                    new, seen[one] = one.got[seen[one] :], len(one.got)
                    for message in new:
                        key = key_of(message.envelope) or "-"
                        assert key == "-" or held.setdefault(key, message.seq) == message.seq, f"{key} is held twice"
                        if key != "-":
                            continue
                        feed.ack(one, message.seq)
                        done[key].append(message.seq)
                    for key, seq in list(held.items()):
                        if seq not in one.held or chance.random() < 0.5:
                            continue
                        if chance.random() < 0.2:
                            feed.nak(one, seq, chance.choice([0, 0.05]))
                        else:
                            feed.ack(one, seq)
                            done[key].append(seq)
                        del held[key]
                await asyncio.sleep(0.002)
        assert all(seqs == sorted(seqs) for key, seqs in done.items() if key != "-")


async def test_message_goes_to_the_server_that_has_room_when_its_turn_comes_and_counts_one_delivery(nats: Nats) -> None:
    tenant = a_tenant()
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(nats.connection(tenant)) for _ in range(2)]
        feed, rest = [await stack.enter_async_context(serving(each, ORDERED)) for each in (here, there)]
        first = joined(feed, "agt_a", 2)
        await put(here, "aa")
        await until(lambda: first.seqs == [1])
        await feed.checked()
        busy = joined(feed, "agt_c", 1)
        first.opens = False
        feed.update(first)
        await put(here, "b")
        await until(lambda: busy.seqs == [3])
        idle = joined(rest, "agt_b", 1)
        feed.ack(first, 1)
        await until(lambda: idle.seqs == [2])
        assert idle.got[0].deliveries == 1
        rest.nak(idle, 2)
        await until(lambda: idle.seqs == [2, 2])
        assert idle.got[1].deliveries == 2


async def test_acknowledged_message_whose_ack_was_lost_is_not_delivered_again(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 1)
        await put(connection, "aa")
        await until(lambda: hands.seqs == [1])
        await store_end(TenantLog(connection), A, [1])  # as a server does that dies before it acknowledges the message in NATS
        feed.nak(hands, 1)
        await until(lambda: hands.seqs == [1, 2])
        feed.ack(hands, 2)
        await feed.flushed()
        assert await QueueConsumer(TenantLog(connection), A).is_done(2)


async def test_server_that_begins_later_knows_what_has_ended(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as here, nats.connection(tenant) as there:
        async with serving(here, ORDERED) as feed:
            hands = joined(feed, "agt_a", 2)
            await put(here, "babaa")
            await until(lambda: sorted(hands.seqs) == [1, 2])
            feed.ack(hands, 2)
            await until(lambda: sorted(hands.seqs) == [1, 2, 4])
        async with serving(there, ORDERED) as rest:
            heir = joined(rest, "agt_b", 8)
            await until(lambda: len(heir.got) == 2)
            assert sorted((each.seq, each.deliveries) for each in heir.got) == [(1, 2), (4, 2)]
            rest.ack(heir, 4)
            rest.ack(heir, 1)
            await until(lambda: sorted((each.seq, each.deliveries) for each in heir.got[2:]) == [(3, 1), (5, 1)])


@pytest.mark.parametrize("how", ["removed", "acknowledged without a mark"])
async def test_key_goes_on_after_an_end_without_a_mark(nats: Nats, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_gate, "COMPARE_S", 0.2)
    tenant = a_tenant()
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(nats.connection(tenant)) for _ in range(2)]
        feed = await stack.enter_async_context(serving(here, ORDERED))
        async with serving(there, QueueSettings()) as rest:
            other = joined(rest, "agt_b", 1)
            await put(here, "a")
            await until(lambda: other.seqs == [1])
            hands = joined(feed, "agt_a", 4)
            await put(here, "ab")
            await until(lambda: hands.seqs == [3])
            if how == "removed":
                await TenantLog(here).purge(A, up_to=1)
            else:
                rest.ack(other, 1)
            await until(lambda: hands.seqs == [3, 2])


async def test_message_that_waits_long_is_extended_and_its_holder_has_the_whole_deadline(nats: Nats) -> None:
    settings = QueueSettings(key_ordered=True, ack_wait_s=1)
    async with nats.connection(a_tenant()) as connection, serving(connection, settings) as feed:
        hands = joined(feed, "agt_a", 4)
        await put(connection, "aa")
        await until(lambda: hands.seqs == [1])
        began = time.monotonic()
        while time.monotonic() < began + 4:  # NATS would deliver the second message again after 7 s, this server drops it after 3
            await feed.extend(hands, 1)
            await asyncio.sleep(0.2)
        feed.ack(hands, 1)
        await until(lambda: hands.seqs == [1, 2])
        assert hands.got[1].deliveries == 1
        assert feed.held[2].deadline - time.monotonic() > 0.5


async def test_switching_it_off_lets_every_message_pass(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 16)
        await put(connection, "aaa")
        await until(lambda: hands.seqs == [1])
        await feed.checked()
        feed.change(QueueSettings())
        await until(lambda: sorted(hands.seqs) == [1, 2, 3])


async def test_full_storage_stops_no_key(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 16)
        await put(connection, "aa")
        await until(lambda: hands.seqs == [1])
        await TenantLog(connection).limit(1)
        feed.ack(hands, 1)
        await until(lambda: hands.seqs == [1, 2])


async def test_server_with_too_many_waiting_messages_pulls_no_more(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_gate, "MOST_WAITING", 3)
    async with nats.connection(a_tenant()) as connection, serving(connection, ORDERED) as feed:
        hands = joined(feed, "agt_a", 2)
        await put(connection, "aaaaaaaab")
        for seq in range(1, 9):
            await until(lambda seq=seq: seq in hands.seqs)  # type: ignore[misc]  # mypy cannot infer the default's type
            assert feed.room == 0 or len(hands.got) == seq
            feed.ack(hands, seq)
        await until(lambda: sorted(hands.seqs) == list(range(1, 10)))
        assert hands.seqs.index(9) > 3
