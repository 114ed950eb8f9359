"""Servers that ask each other for reports, over a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from artcafe.fabric.fabric import Fabric
from artcafe.fabric.server_reports import KnownServer, ServerReport
from artcafe.rules.subjects import SERVERS_ASK
from tests.fabric.nats_clients import BOUND_S, connected
from tests.fabric.nats_env import Nats, until


@asynccontextmanager
async def serving(nats: Nats, host: str | None) -> AsyncIterator[Fabric]:
    """Run a server that reports this host; one of an earlier version, which answers nothing, for None."""
    fabric = Fabric([nats.url], nats.accounts)
    fabric.announcements.listen(lambda _: None)  # Only a server has listeners, and sends heartbeats.
    reports = fabric.server_reports
    reports.set_report(lambda: ServerReport(reports.server, host=host, sessions=0))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        if host is None:
            await until(lambda: bool(fabric._platform._subscriptions))
            asked = [each for each in fabric._platform._subscriptions if each.subject == SERVERS_ASK]
            for each in asked:
                await fabric._platform.unsubscribe(each)
        try:
            yield fabric
        finally:
            await fabric.announcements.announce_end()
            fabric.close()
            await running


async def known_to(fabric: Fabric, count: int) -> list[KnownServer]:
    """Return the reports of this many other servers, once they have been heard."""
    await until(lambda: len(fabric.announcements.heard()) == count)
    return await fabric.server_reports.ask()


async def test_each_server_has_the_reports_of_the_others_and_not_its_own(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "one") as one, serving(nats, "two") as two, serving(nats, "three"):
        found = await known_to(one, 2)
        assert sorted(str(each.report and each.report.host) for each in found) == ["three", "two"]
        assert {(each.is_silent, each.heard_s < 2.5) for each in found} == {(False, True)}
        assert {each.report.sessions for each in found if each.report} == {0}
        assert one.server_reports.own().host == "one"
        assert two.server_reports.server in {each.server for each in found}
    assert one.server_reports.server not in {each.server for each in found}


async def test_server_alone_asks_nobody(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "one") as one:
        assert await one.server_reports.ask() == []


async def test_server_without_an_answer_is_known_without_a_report(nats: Nats) -> None:
    """As one of an earlier version, which does not know the question."""
    async with asyncio.timeout(BOUND_S), serving(nats, "one") as one, serving(nats, None):
        await until(lambda: len(one.announcements.heard()) == 1)
        (other,) = await one.server_reports.ask()
        assert (other.report, other.is_silent) == (None, False)


async def test_unreadable_answer_is_no_report(nats: Nats) -> None:
    async with asyncio.timeout(BOUND_S), serving(nats, "one") as one, serving(nats, "two"):
        await until(lambda: len(one.announcements.heard()) == 1)
        async with connected(nats.url, nats.accounts.platform_user()) as client:

            async def answer(msg: object) -> None:
                await client.publish(msg.reply, b"[not a report")  # type: ignore[attr-defined]  # nats-py's message

            await client.subscribe(SERVERS_ASK, cb=answer)
            await client.flush()
            (other,) = await one.server_reports.ask()
        assert other.report is not None
        assert other.report.host == "two"
