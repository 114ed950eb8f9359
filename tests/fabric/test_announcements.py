from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from artcafe.fabric.announcements import PORTION, Announcement, Announcements, _encode
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.model import TenantChange, TenantId
from artcafe.rules.subjects import CHANGES
from tests.fabric.nats_clients import BOUND_S, connected
from tests.fabric.nats_env import Nats, until

ACME, BETA = TenantId("ten_acme"), TenantId("ten_beta")


class Server:
    """One server's announcements, and those it received."""

    def __init__(self, nats: Nats, name: str, url: str | None) -> None:
        self.connection = NatsConnection("platform", [url or nats.url], nats.accounts.platform_user)
        self.announcements = Announcements(self.connection, name, heartbeat_s=0.01, silent_s=0.5)
        self.heard: list[TenantId] = []
        self.announcements.listen(lambda change: self.heard.append(change.tenant_id))

    def announce_change(self, tenant_id: TenantId) -> None:
        """Announce a change in the tenant."""
        self.announcements.announce(TenantChange(tenant_id=tenant_id))

    async def hears(self, other: Server) -> None:
        """Wait until this server receives the other's announcements."""
        count = len(self.heard)
        while len(self.heard) == count:
            other.announce_change(TenantId("ten_hello"))
            await asyncio.sleep(0.01)
        await until(lambda: len(other.announcements) == 0)
        self.heard.clear()


@asynccontextmanager
async def serving(nats: Nats, name: str, url: str | None = None) -> AsyncIterator[Server]:
    server = Server(nats, name, url)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.connection.run())
        running = group.create_task(server.announcements.run())
        try:
            await server.connection.wait_up(BOUND_S)
            yield server
        finally:
            running.cancel()
            server.connection.close()


async def test_every_other_server_receives_an_announcement_and_its_sender_does_not(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two, serving(nats, "c") as three:
        await two.hears(one)
        await three.hears(one)
        two.heard.clear()
        one.announce_change(ACME)
        one.announce_change(BETA)
        await until(lambda: BETA in two.heard and BETA in three.heard)
        assert [each for each in two.heard if each in (ACME, BETA)] == [ACME, BETA]
        await one.hears(two)  # An announcement received by its own sender would have arrived by now.
        assert ACME not in one.heard


async def test_many_changes_are_announced_in_several_messages(nats: Nats) -> None:
    tenants = [TenantId(f"{'t' * 120}{number}") for number in range(2 * PORTION + 1)]
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        for tenant in tenants:
            one.announce_change(tenant)
        await until(lambda: set(tenants) <= set(two.heard))


async def test_announce_now_returns_after_nats_has_received_it(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        await one.announcements.announce_now(ACME)
        await until(lambda: ACME in two.heard)


async def test_unsent_announcements_are_dropped_and_later_ones_arrive_after_a_reconnect(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), nats.proxy() as proxy, serving(nats, "a", proxy.url) as one, serving(nats, "b") as two:
        await two.hears(one)
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not one.connection.is_up)
        one.announce_change(ACME)
        await until(lambda: len(one.announcements) == 0)
        proxy.is_open = True
        await one.connection.wait_up(BOUND_S)
        await two.hears(one)
        await one.hears(two)
        one.announce_change(BETA)
        await until(lambda: BETA in two.heard)
        assert ACME not in two.heard


async def test_unreadable_announcement_is_ignored(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        async with connected(nats.url, nats.accounts.platform_user()) as stranger:
            for garbage in (b"", b"{", b"[]", b'["x",[1]]'):
                await stranger.publish(CHANGES, garbage)
            await stranger.flush()
        await one.connection.send(OutgoingMessage(CHANGES, "", b"[]"))
        one.announce_change(BETA)
        await until(lambda: two.heard == [BETA])


async def test_failing_listener_does_not_affect_other_tenants(nats: Nats) -> None:
    def fail(change: TenantChange) -> None:
        if change.tenant_id == ACME:
            raise ValueError(change)

    async with serving(nats, "a") as here, serving(nats, "b") as there:
        there.announcements.listen(fail)
        await there.hears(here)
        for tenant_id in (ACME, BETA):
            here.announce_change(tenant_id)
        await until(lambda: {ACME, BETA} <= set(there.heard))
        assert there.announcements.supervisor.failures == 1
        here.announce_change(BETA)
        await until(lambda: there.heard.count(BETA) == 2)


async def test_listener_is_complete_until_a_number_is_missing(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        await until(lambda: two.announcements.is_complete)
        losses = two.announcements.losses
        one.announce_change(ACME)
        await until(lambda: ACME in two.heard)
        assert two.announcements.losses == losses
        one.announcements._number += 1  # as after a lost announcement
        await until(lambda: two.announcements.losses == losses + 1)
        assert two.announcements.is_complete, "lost changes are in the tables, and later announcements arrive"


async def test_silent_server_counts_as_a_possible_loss(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), nats.proxy() as proxy, serving(nats, "a", proxy.url) as one, serving(nats, "b") as two:
        await two.hears(one)
        losses = two.announcements.losses
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not two.announcements.is_complete)
        assert two.announcements.losses == losses + 1
        assert not one.announcements.is_complete, "it does not receive the other's announcements either"
        proxy.is_open = True
        await until(lambda: two.announcements.is_complete and one.announcements.is_complete)


async def test_server_that_has_ended_is_not_waited_for(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "b") as two:
        async with serving(nats, "a") as one:
            await two.hears(one)
            losses = two.announcements.losses
        # Its heartbeats have ended with its loop, and its last message comes after all of them.
        async with connected(nats.url, nats.accounts.platform_user()) as last:
            await last.publish(CHANGES, _encode(Announcement("a", one.announcements._number, [], is_last=True)))
        await until(lambda: not two.announcements._peers)
        assert two.announcements.is_complete
        assert two.announcements.losses == losses


async def test_first_announcement_of_a_server_counts_as_a_loss_unless_its_number_starts(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "b") as two:
        async with serving(nats, "a") as one:
            await until(lambda: "a" in two.announcements._peers)
            losses = two.announcements.losses
            one.announce_change(ACME)
            await until(lambda: ACME in two.heard)
            assert two.announcements.losses == losses
        async with serving(nats, "c") as late:
            late.announcements._number = 7
            await until(lambda: two.announcements.losses > losses)


async def test_command_announces_once_without_a_number(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "b") as two:
        await until(lambda: two.announcements.is_complete)
        losses = two.announcements.losses
        command = Server(nats, "command", None)
        command.announcements._listeners.clear()
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(command.connection.run()), group.create_task(command.announcements.run())]
            while ACME not in two.heard:
                await command.announcements.announce_now(ACME)
            command.connection.close()
            loops[1].cancel()
        assert two.announcements._peers == {}
        assert (two.announcements.losses, two.announcements.is_complete) == (losses, True)
