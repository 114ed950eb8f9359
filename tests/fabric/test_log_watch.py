from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from artcafe.fabric import log_watch
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_ends import read_log_ends
from artcafe.fabric.log_state import NO_LOG, CheckedEnd, LogEnd
from artcafe.fabric.log_watch import LogWatch
from artcafe.fabric.nats import stream_reports
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import AgentId, Cursor, Epoch
from artcafe.rules.inboxes import inbox_of
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import A, B, Nats, Proxy, Writer, a_tenant, until, within, writing
from tests.fabric.test_channel_readers import Sink


@pytest.fixture(autouse=True)
def _many_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for the ends of all logs, however many other tests have left in this NATS."""
    monkeypatch.setattr(log_watch, "LOGS_A_CHECK", 10**6)


class Waiter:
    """A connection whose inbox has no delivery."""

    def __init__(self) -> None:
        self.is_woken = asyncio.Event()

    def wake_inbox(self) -> None:
        self.is_woken.set()


@dataclass
class Watched:
    """A tenant of a server behind a proxy, another server's writer of its log, and the watch of the first server."""

    tenant: TenantFabric
    writer: Writer
    proxy: Proxy
    watch: LogWatch

    async def is_due(self) -> bool:
        """Return whether the log must be checked, as after each interval of the watch."""
        return self.tenant in await self.watch._due()

    async def is_checked(self) -> None:
        """Run the watch until nothing is due."""
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            running = group.create_task(self.watch.run())
            while await self.is_due():  # noqa: ASYNC110 (a watch has no event for a pass without work)
                await asyncio.sleep(0.01)
            running.cancel()


@asynccontextmanager
async def watched(nats: Nats) -> AsyncIterator[Watched]:
    tenant_id, urls = a_tenant(), [nats.url]
    fabric, system = Fabric(urls, nats.accounts), NatsConnection("watch", [nats.url], nats.accounts.system_user)
    async with nats.proxy() as proxy, asyncio.TaskGroup() as group, nats.connection(tenant_id) as other, writing(other) as writer:
        running = [group.create_task(each) for each in (fabric.run(), system.run())]
        await fabric.wait_up(BOUND_S)
        await system.wait_up(BOUND_S)
        urls[0] = proxy.url  # of the connections from now on
        tenant = fabric.tenant(tenant_id)
        await tenant.connection.wait_up(BOUND_S)
        try:
            yield Watched(tenant, writer, proxy, LogWatch(system, nats.accounts, lambda: [tenant], check_s=0.02))
        finally:
            fabric.close()
            system.close()
            await asyncio.wait(running)


async def test_log_is_not_checked_while_all_its_messages_arrive(nats: Nats) -> None:
    async with watched(nats) as it:
        sink = Sink()
        assert not await it.is_due()
        await it.tenant.readers.follow(A, sink)
        await it.is_checked()

        await it.writer.publish(1)
        await it.is_checked()
        for number in range(5):
            await it.writer.publish(number)
        await until(lambda: len(sink.got) == 6)
        assert not await it.is_due()


async def test_message_that_has_not_arrived_is_read_from_the_log(nats: Nats) -> None:
    async with watched(nats) as it:
        sink = Sink()
        await it.writer.publish(0)
        await it.tenant.readers.follow(A, sink)
        await it.is_checked()
        it.proxy.is_mute = True
        await it.writer.publish(1)
        await until(lambda: it.proxy.lost_bytes > 0)
        it.proxy.is_mute = False

        assert await it.is_due()
        await it.is_checked()
        assert sink.seqs == [2]


async def test_direct_message_that_has_not_arrived_wakes_its_connection(nats: Nats) -> None:
    async with watched(nats) as it:
        waiter, agent_id = Waiter(), AgentId("agt_waiting")
        await it.writer.publish(0)
        it.tenant.readers.inboxes.wait(waiter, agent_id, Cursor(), Cursor())
        await it.is_checked()
        it.proxy.is_mute = True
        await it.writer.publish(1, channel=inbox_of(agent_id))
        await until(lambda: it.proxy.lost_bytes > 0)
        it.proxy.is_mute = False

        assert await it.is_due()
        await it.is_checked()
        await within(waiter.is_woken.wait())


async def test_message_of_a_channel_that_is_not_followed_has_the_log_checked(nats: Nats) -> None:
    async with watched(nats) as it:
        await it.writer.publish(0)
        await it.tenant.readers.follow(A, Sink())
        await it.is_checked()
        await it.writer.publish(0, channel=B)

        assert await it.is_due()
        await it.is_checked()


async def test_another_log_with_equal_sequences_has_the_log_checked(nats: Nats) -> None:
    async with watched(nats) as it:
        await it.writer.publish(0)
        sink = Sink()
        await it.tenant.readers.follow(A, sink)
        await it.is_checked()
        state = await it.writer.log.begin_epoch()

        assert await it.is_due()
        await it.is_checked()
        assert sink.lives[-1] == state.lineage


async def test_few_tenants_of_many_are_checked_without_asking_for_all_logs(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(nats) as it:
        await it.writer.publish(0)
        await it.tenant.readers.follow(A, Sink())
        await it.is_checked()
        monkeypatch.setattr(log_watch, "LOGS_A_CHECK", 0)

        assert await it.is_due()


async def test_every_open_tenant_is_checked_while_nats_does_not_answer(nats: Nats) -> None:
    async with watched(nats) as it:
        await it.writer.publish(0)
        await it.tenant.readers.follow(A, Sink())
        await it.is_checked()
        it.watch._system.close()
        await until(lambda: not it.watch._system.is_up)

        assert await it.is_due()


async def test_ends_of_all_logs_are_read_in_pages(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_reports, "ACCOUNTS_AT_ONCE", 2)
    async with watched(nats) as one, watched(nats) as other:
        ends: list[LogEnd] = []
        for each, count in ((one, 1), (other, 2)):
            for number in range(count):
                await each.writer.publish(number)
            state = await each.writer.log.state()
            assert state is not None
            ends.append(state.end)
        found = await read_log_ends(one.watch._system)

        assert [found.of(nats.accounts.account_key(each.tenant.tenant_id)) for each in (one, other)] == ends
        assert found.of(nats.accounts.account_key(a_tenant())) == NO_LOG
        assert (await one.watch.log_ends())[other.tenant.tenant_id] == 2


def test_checked_end_moves_on_with_the_messages_that_follow_it_only() -> None:
    end, epoch = CheckedEnd(), Epoch("e")
    for seq in (0, 1):
        end.note(seq)
    assert not end.is_at(LogEnd(epoch, 1))
    end.set(LogEnd(epoch, 5))
    for seq in (4, 6, 7, 9, 7):
        end.note(seq)
    assert end.is_at(LogEnd(epoch, 7))
    assert not end.is_at(LogEnd(Epoch("other"), 7))
