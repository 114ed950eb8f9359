from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from artcafe.fabric.announcements import PORTION, Announcements
from artcafe.fabric.client import Outgoing
from artcafe.fabric.link import Link
from artcafe.model import TenantId
from artcafe.rules.subjects import CHANGES
from tests.fabric.clients import BOUND_S, connected
from tests.fabric.rooms import Nats, until

ACME, BETA = TenantId("ten_acme"), TenantId("ten_beta")


class Server:
    """One server's announcements, and what it heard."""

    def __init__(self, nats: Nats, name: str, url: str | None) -> None:
        self.link = Link("platform", [url or nats.url], nats.accounts.platform_user)
        self.announcements = Announcements(self.link, name)
        self.heard: list[TenantId] = []
        self.announcements.listen(self.heard.append)

    async def hears(self, other: Server) -> None:
        """Returns once this one hears what the other tells."""
        count = len(self.heard)
        while len(self.heard) == count:
            other.announcements.tell(TenantId("ten_hello"))
            await asyncio.sleep(0.01)
        self.heard.clear()


@asynccontextmanager
async def serving(nats: Nats, name: str, url: str | None = None) -> AsyncIterator[Server]:
    server = Server(nats, name, url)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.link.run())
        running = group.create_task(server.announcements.run())
        try:
            await server.link.wait_up(BOUND_S)
            yield server
        finally:
            running.cancel()
            server.link.close()


async def test_every_other_server_hears_what_one_tells_and_the_teller_does_not(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two, serving(nats, "c") as three:
        await two.hears(one)
        await three.hears(one)
        two.heard.clear()
        one.announcements.tell(ACME)
        one.announcements.tell(ACME)
        one.announcements.tell(BETA)
        await until(lambda: BETA in two.heard and BETA in three.heard)
        assert [each for each in two.heard if each in (ACME, BETA)] == [ACME, BETA], (
            "what is told twice before it left is told once"
        )
        await one.hears(two)  # so whatever one might have heard of itself has come
        assert ACME not in one.heard


async def test_more_than_fits_one_message_is_told_in_several(nats: Nats) -> None:
    tenants = [TenantId(f"{'t' * 120}{number}") for number in range(2 * PORTION + 1)]
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        for tenant in tenants:
            one.announcements.tell(tenant)
        await until(lambda: set(tenants) <= set(two.heard))


async def test_what_is_told_now_is_with_nats_when_that_returns(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        await one.announcements.tell_now(ACME)
        await until(lambda: ACME in two.heard)


async def test_what_could_not_be_told_is_dropped_and_a_new_connection_goes_on(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), nats.proxy() as proxy, serving(nats, "a", proxy.url) as one, serving(nats, "b") as two:
        await two.hears(one)
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not one.link.is_up)
        one.announcements.tell(ACME)
        await until(lambda: len(one.announcements) == 0)
        proxy.is_open = True
        await one.link.wait_up(BOUND_S)
        await two.hears(one)
        await one.hears(two)
        one.announcements.tell(BETA)
        await until(lambda: BETA in two.heard)
        assert ACME not in two.heard


async def test_what_is_no_announcement_is_passed_over(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "a") as one, serving(nats, "b") as two:
        await two.hears(one)
        async with connected(nats.url, nats.accounts.platform_user()) as stranger:
            for garbage in (b"", b"{", b"[]", b'["x",[1]]'):
                await stranger.publish(CHANGES, garbage)
            await stranger.flush()
        await one.link.send(Outgoing(CHANGES, "", b"[]"))
        one.announcements.tell(BETA)
        await until(lambda: two.heard == [BETA])


async def test_a_listener_that_raises_costs_no_other_tenant(nats: Nats) -> None:
    def fail(tenant_id: TenantId) -> None:
        if tenant_id == ACME:
            raise ValueError(tenant_id)

    async with serving(nats, "a") as here, serving(nats, "b") as there:
        there.announcements.listen(fail)
        await there.hears(here)
        for tenant_id in (ACME, BETA):
            here.announcements.tell(tenant_id)
        await until(lambda: {ACME, BETA} <= set(there.heard))
        assert there.announcements.supervisor.failures == 1
        here.announcements.tell(BETA)
        await until(lambda: there.heard.count(BETA) == 2)
