"""A fleet whose NATS cluster is partitioned in eight ways, one after the other, while agents connect, disconnect, publish and
receive."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Final

import pytest

from tests.faults.all_traffic import FEW, KINDS, check, tenants_with_logs
from tests.faults.checker import judge
from tests.faults.cluster_network import ClusterNetwork
from tests.faults.conftest import SEED, QueueReport, Report, RulingReport
from tests.faults.flapping import flapping_on
from tests.faults.processes import Frozen
from tests.faults.queue_checker import judge_queue
from tests.faults.queue_load import working_on
from tests.faults.test_fleet import FLAGS, leader_of
from tests.faults.traffic import advance_all, end_all, running_all
from tests.fleet import Fleet, NatsServers, running_fleet

SERVERS: Final = 2
TASKS: Final = 40
ACK_WAIT_S: Final = 10
SLACK_S: Final = 6.0
"""A server may get a task late: NATS has delivered it up to `queue_consumer.PULL_S` before."""

ELECTION_S: Final = 10.0
"""The longest time after a partition in which NATS elects leaders again."""

Partitioned = tuple[Fleet, ClusterNetwork]
Part = Callable[[ClusterNetwork, str, str, str], None]
"""Partitions a cluster: takes its relays, the node that leads the log, and the two others."""


@pytest.fixture
async def partitioned(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Partitioned]:
    """Run a fleet on relays. This event loop passes the bytes, so the servers are started in a thread."""
    folder = tmp_path_factory.mktemp("fleet")
    nats = NatsServers(folder / "nats", 3)
    async with ClusterNetwork(nats).open(SERVERS) as network:
        with ExitStack() as stack:
            fleet = await asyncio.to_thread(
                stack.enter_context, running_fleet(folder, servers=SERVERS, nats=nats, flags=FLAGS, urls=network.urls)
            )
            try:
                yield fleet, network
            finally:
                network.heal()
                await asyncio.to_thread(stack.close)


def leader_from_nodes(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.isolate(leader)


def leader_from_all(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.unplug(leader)


def node_from_all(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.unplug(one)


def leader_unheard(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.mute(leader, one)
    network.mute(leader, other)


def leader_from_one(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.block(leader, one)


def server_from_nats(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.cut_off(0)


def each_from_each(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    network.isolate(leader)
    network.block(one, other)


def leader_stands_still(network: ClusterNetwork, leader: str, one: str, other: str) -> None:
    """Holds no relay: the test stops the process instead."""


PARTITIONS: Final[list[tuple[str, Part, float]]] = [
    ("leader cut from the other nodes, not from our servers", leader_from_nodes, 25.0),
    ("leader cut from everybody", leader_from_all, 15.0),
    ("a follower cut from everybody", node_from_all, 15.0),
    ("leader not heard by the others, but hearing them", leader_unheard, 15.0),
    ("leader and one follower cut from each other", leader_from_one, 15.0),
    ("one of our servers cut from NATS", server_from_nats, 15.0),
    ("all three nodes cut from each other", each_from_each, 12.0),
    ("leader stopped", leader_stands_still, 20.0),
]


@asynccontextmanager
async def parted(fleet: Fleet, network: ClusterNetwork, tenant: str, part: Part) -> AsyncIterator[None]:
    """Partition the cluster around the leader of a tenant's log within this block."""
    leader = await leader_of(fleet, tenant)
    one, other = (node.name for node in fleet.nats.nodes if node.name != leader)
    stopped = Frozen(*([fleet.nats.pid(leader)] if part is leader_stands_still else []))
    stopped.stop()
    part(network, leader, one, other)
    try:
        yield
    finally:
        network.heal()
        stopped.go_on()


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("what", "part", "for_s"), PARTITIONS, ids=[each[1].__name__ for each in PARTITIONS])
@pytest.mark.promise("5a", "5b", "6a", "8c")
async def test_partitioned_cluster_skips_nothing_and_repeats_nothing_acknowledged(
    partitioned: Partitioned, report: Report, what: str, part: Part, for_s: float
) -> None:
    fleet, network = partitioned
    async with flapping_on(fleet) as load:
        await load.acknowledged(100)
        await load.note_cursors()
        async with parted(fleet, network, load.cast.tenant, part):
            await asyncio.sleep(for_s)
        await load.acknowledged(100)
        verdict = judge(await load.end(is_retried=True))
    report(f"{for_s:.0f} s of {what}", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("what", "part", "for_s"), PARTITIONS, ids=[each[1].__name__ for each in PARTITIONS])
@pytest.mark.promise("9a", "9b")
async def test_partitioned_cluster_loses_no_task_and_gives_none_two_holders(
    partitioned: Partitioned, queue_report: QueueReport, what: str, part: Part, for_s: float
) -> None:
    fleet, network = partitioned
    async with working_on(fleet, SEED, ack_wait_s=ACK_WAIT_S) as load:
        await load.done(TASKS)
        async with parted(fleet, network, load.cast.tenant, part):
            await asyncio.sleep(for_s)
        await load.done(TASKS)
        verdict = judge_queue(await load.end(is_faulted=True, slack_s=SLACK_S))
    queue_report(f"{for_s:.0f} s of {what}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("what", "part", "for_s"), PARTITIONS, ids=[each[1].__name__ for each in PARTITIONS])
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_partitioned_cluster_keeps_the_promises_of_requests_pulls_receipts_and_scheduled_messages(
    partitioned: Partitioned, ruling_report: RulingReport, what: str, part: Part, for_s: float
) -> None:
    """Each traffic has a log of its own; the partition is around the leader of one of them."""
    fleet, network = partitioned
    async with running_all(fleet, KINDS, SEED) as all_of:
        await advance_all(all_of, FEW)
        tenant = random.Random(f"{SEED} {what}").choice(tenants_with_logs(all_of))
        began = time.monotonic()
        async with parted(fleet, network, tenant, part):
            await asyncio.sleep(for_s)
        for traffic in all_of:
            traffic.nats_cuts.append((began, time.monotonic()))
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=for_s + ELECTION_S)
    ruling_report(f"{for_s:.0f} s of {what}", rulings)
    check(rulings, SEED)
