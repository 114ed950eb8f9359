from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from artcafe.errors import LogRefused, NatsConnectionLost, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.counters import DAILY, RECENT, Counters, CounterStream
from artcafe.fabric.nats.account_claims import register_account
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.jetstream import JetStream
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, a_tenant

_numbers = itertools.count(1)


@asynccontextmanager
async def counting(nats: Nats, stream: CounterStream = RECENT, url: str | None = None) -> AsyncIterator[Counters]:
    """Connect to the platform's account, as one server does."""
    connection = NatsConnection("test platform", [url or nats.url], nats.accounts.platform_user)
    system = NatsConnection("test system", [nats.url], nats.accounts.system_user)

    async def renew() -> None:
        await register_account(system, nats.accounts.platform_jwt())

    async with asyncio.TaskGroup() as group:
        group.create_task(connection.run())
        group.create_task(system.run())
        try:
            await connection.wait_up(BOUND_S)
            await system.wait_up(BOUND_S)
            yield Counters(connection, stream, renew)
        finally:
            connection.close()
            system.close()


def short_lived(expiry_s: int, max_bytes: int = 1 << 20) -> CounterStream:
    """Return a stream of its own, whose counters expire soon."""
    number = next(_numbers)
    return CounterStream(f"counters-{number}", Subject(f"test{number}.>"), expiry_s, max_bytes)


async def test_each_addition_returns_the_new_total(nats: Nats) -> None:
    counter, other = subjects.rate_counter(a_tenant(), "messages_a_minute", 7), subjects.rate_counter(a_tenant(), "x", 7)
    async with counting(nats) as counters:
        assert [await counters.add(counter, amount) for amount in (1, 10, -3, 0)] == [1, 11, 8, 8]
        assert await counters.add(other, 2) == 2
        assert await counters.totals([counter, other, subjects.rate_counter(a_tenant(), "x", 7)]) == {counter: 8, other: 2}


async def test_concurrent_additions_of_two_servers_return_each_total_once(nats: Nats) -> None:
    counter = subjects.chain_counter(a_tenant(), "msg_1")
    async with counting(nats, DAILY) as one, counting(nats, DAILY) as two, asyncio.TaskGroup() as group:
        added = [group.create_task(each.add(counter, 1)) for _ in range(50) for each in (one, two)]
    assert sorted(each.result() for each in added) == list(range(1, 101))


async def test_several_additions_are_applied_in_order(nats: Nats) -> None:
    first, second = (subjects.rate_counter(a_tenant(), "x", slot) for slot in (1, 2))
    async with counting(nats) as counters:
        assert await counters.add_each([(first, 5), (second, 1), (first, -2)]) == [5, 1, 3]


async def test_unused_counter_expires_and_a_used_one_does_not(nats: Nats) -> None:
    stream = short_lived(expiry_s=1)
    used, unused = Subject(f"{stream.subjects[:-1]}used"), Subject(f"{stream.subjects[:-1]}unused")
    async with counting(nats, stream) as counters, asyncio.timeout(4 * BOUND_S):
        await counters.add(unused, 5)
        total = await counters.add(used, 1)
        while unused in await counters.totals([unused]):
            total = await counters.add(used, 1)
        assert await counters.totals([used, unused]) == {used: total}
        assert await counters.add(unused, 1) == 1


async def test_full_stream_drops_the_counters_unused_for_longest(nats: Nats) -> None:
    stream = short_lived(expiry_s=60, max_bytes=4096)
    names = [Subject(f"{stream.subjects[:-1]}{number}") for number in range(100)]
    async with counting(nats, stream) as counters:
        for name in names:
            await counters.add(name, 1)
            assert await counters.add(names[0], 1) > 1  # so that this one stays
        kept = await counters.totals(names)
    assert names[0] in kept
    assert names[1] not in kept
    assert 0 < len(kept) < len(names)


async def test_account_of_an_older_version_is_renewed_to_allow_counters(nats: Nats) -> None:
    older = Accounts(bytes(range(32)), "dev")
    claims = older._account("platform", "platform", {"disk_storage": -1, "streams": 4, "consumer": -1}, 1)
    stream = short_lived(expiry_s=60)
    async with counting(nats, stream) as counters:
        system = NatsConnection("test system", [nats.url], nats.accounts.system_user)
        async with asyncio.TaskGroup() as group:
            group.create_task(system.run())
            await system.wait_up(BOUND_S)
            await register_account(system, claims)
            system.close()
        assert await counters.add(Subject(f"{stream.subjects[:-1]}a"), 1) == 1


async def test_additions_fail_as_unavailable_while_nats_is_away(nats: Nats) -> None:
    counter = subjects.rate_counter(a_tenant(), "x", 1)
    async with nats.proxy() as proxy, counting(nats, RECENT, proxy.url) as counters:
        assert await counters.add(counter, 1) == 1
        proxy.is_open = False
        proxy.cut()
        with pytest.raises((Unavailable, NatsConnectionLost)):
            await counters.add(counter, 1)
        with pytest.raises(Unavailable):
            await counters.add(counter, 1)
        proxy.is_open = True


async def test_addition_without_an_answer_fails_as_unknown_and_may_have_counted(nats: Nats) -> None:
    counter = subjects.rate_counter(a_tenant(), "x", 1)
    async with nats.proxy() as proxy, counting(nats, RECENT, proxy.url) as counters, counting(nats) as witness:
        assert await counters.add(counter, 1) == 1
        proxy.is_mute = True
        with pytest.raises(TimeoutError):
            await counters.add(counter, 1, timeout_s=0.2)
        assert await witness.totals([counter]) == {counter: 2}


async def test_nats_refuses_a_stream_of_counters_with_other_rules(nats: Nats) -> None:
    """The restrictions that the streams' configuration is built around."""
    refused: list[dict[str, object]] = [{"discard": "new"}, {"retention": "interest"}, {"allow_msg_ttl": True}]
    async with counting(nats) as counters:
        for number, other in enumerate(refused):
            config = {**counters._config(), "name": f"other-{number}", "subjects": [f"other{number}.>"], **other}
            with pytest.raises(LogRefused):
                await JetStream(counters._connection).create(config)


async def test_message_without_an_amount_is_refused(nats: Nats) -> None:
    counter = subjects.rate_counter(a_tenant(), "x", 1)
    async with counting(nats) as counters:
        await counters.add(counter, 1)
        answer = msgspec.json.decode((await counters._connection.request(counter, b"7")).data)
        assert "error" in answer
        assert await counters.totals([counter]) == {counter: 1}
