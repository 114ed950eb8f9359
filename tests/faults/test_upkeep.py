"""What clients see while each NATS node of a cluster is killed once, and while the servers of a fleet are replaced in turns."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from tests.faults import load as loads
from tests.faults.checker import Broken, judge
from tests.faults.client_view import ClientView, Reconnects, sdk_reconnects
from tests.faults.conftest import SEED, ClientReport
from tests.faults.load import Load
from tests.faults.queue_checker import Acked, QueueBroken, QueueHistory, Taken, judge_queue
from tests.faults.queue_load import QueueLoad, working_on
from tests.faults.test_fleet import FLAGS, stream_of
from tests.fleet import Fleet, running_fleet

MORE: Final = 200
"""Acknowledged publishes before, during and after each fault."""
TASKS: Final = 60


class SteadyLoad(Load):
    """The traffic of `Load` at a rate that leaves the machine time for the faults."""

    pace_s, wait_s = 0.02, 90.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run two executed servers on three NATS nodes."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), nats=3, flags=FLAGS, python=sys.executable) as fleet:
        yield fleet


def after_ack(history: QueueHistory) -> int:
    """Return how many deliveries came after an ack of the task, which was lost with a server or refused."""
    acked, found = set[int](), 0
    for event in history.events:
        if isinstance(event, Acked):
            acked.add(event.seq)
        found += isinstance(event, Taken) and event.seq in acked
    return found


@dataclass
class Traffic:
    """Broadcast and queue traffic on one fleet, each in a tenant of its own."""

    broadcast: Load
    queue: QueueLoad
    reconnects: Reconnects

    def restart(self) -> None:
        """Measure from now on."""
        self.reconnects.count = 0
        for load in (self.broadcast, self.queue):
            load.pauses.restart()
            load.slowest_s = 0.0

    async def goes_on(self) -> None:
        """Wait until both kinds have made progress."""
        await self.broadcast.acknowledged(MORE)
        await self.queue.done(TASKS)

    async def end(self, report: ClientReport, fault: str) -> None:
        """Report what the clients saw since `restart`, and check both histories."""
        waits = [(load.slowest_s, load.pauses.longest_s(), self.reconnects.count) for load in (self.broadcast, self.queue)]
        stored = judge(await self.broadcast.end(is_retried=True))
        lost, found = stored.counts[Broken.LOST], len(stored.findings)
        report(
            fault, "broadcast", ClientView(stored.acknowledged, stored.deliveries, lost, stored.repeats, found - lost, *waits[0])
        )
        history = await self.queue.end(is_faulted=True)
        done = judge_queue(history)
        lost, found = done.counts[QueueBroken.LOST], len(done.findings)
        report(fault, "queue", ClientView(done.stored, done.deliveries, lost, after_ack(history), found - lost, *waits[1]))
        assert not stored.findings, str(stored)
        assert not done.findings, f"ARTCAFE_TEST_SEED={SEED}: {done}"


@asynccontextmanager
async def traffic_on(fleet: Fleet) -> AsyncIterator[Traffic]:
    """Run both kinds of traffic; they end with this block."""
    async with fleet.balanced():
        cast = await fleet.tenant_with(agents=loads.AGENTS, channels=loads.CHANNELS, subscribed=False)
        with sdk_reconnects() as reconnects:
            async with loads.running(SteadyLoad(fleet, cast)) as broadcast, working_on(fleet, SEED) as queue:
                traffic = Traffic(broadcast, queue, reconnects)
                await traffic.goes_on()
                yield traffic


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.promise("1b", "9a", "11d")
async def test_each_node_of_three_killed_once_loses_nothing(fleet: Fleet, client_report: ClientReport) -> None:
    """Each node is restarted, and has caught up, before the next one is killed."""
    async with traffic_on(fleet) as traffic:
        traffic.restart()
        for node in fleet.nats.nodes:
            await traffic.broadcast.note_cursors()
            fleet.nats.kill(node.name)
            await traffic.goes_on()
            fleet.nats.start(node)
            for tenant in (traffic.broadcast.cast.tenant, traffic.queue.cast.tenant):
                await stream_of(fleet, tenant, is_caught_up=True)
        await traffic.goes_on()
        await traffic.end(client_report, "each of three nats-servers killed once")


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.promise("6c", "9a", "11a")
async def test_rolling_upgrade_of_two_servers_loses_nothing(fleet: Fleet, client_report: ClientReport) -> None:
    """Each server is stopped, which drains it, and another process of it is started, as docs/fleet.md describes."""
    async with traffic_on(fleet) as traffic:
        traffic.restart()
        for server in fleet.servers:
            await traffic.broadcast.note_cursors()
            assert await asyncio.to_thread(server.stop) == 0
            await traffic.goes_on()
            await asyncio.to_thread(server.start)
            await traffic.goes_on()
        await traffic.end(client_report, "rolling upgrade of two servers")
