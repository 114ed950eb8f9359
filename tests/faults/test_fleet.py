"""Losing a server of a fleet, and a node of its NATS cluster, while agents publish and receive."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest
from nats.errors import Error as NatsError

from artcafe.data_dir import read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.tenant_log import STREAM
from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from artcafe.rules.secrets import derive
from tests.fabric.nats_clients import connected
from tests.faults.all_traffic import FEW, KINDS, check, note_kill, tenants_with_logs
from tests.faults.checker import judge
from tests.faults.conftest import SEED, QueueReport, Report, RulingReport
from tests.faults.load import running_on
from tests.faults.processes import frozen
from tests.faults.queue_checker import judge_queue
from tests.faults.queue_load import QueueLoad, working_on
from tests.faults.traffic import Traffic, advance_all, end_all, running_all
from tests.fleet import Fleet, running_fleet

KILLS: Final = 6
QUEUE_KILLS: Final = 3
TASKS: Final = 40
LEADER_S: Final = 60.0
"""For a cluster to elect a leader and for a restarted node to catch up, on a machine that is busy with other tests."""
FLAGS: Final = ["--cursor-write-s", "0.3"]


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), flags=FLAGS) as fleet:
        yield fleet


@pytest.fixture
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), nats=3, flags=FLAGS) as fleet:
        yield fleet


async def info_of(fleet: Fleet, tenant: str, verb: str, *, is_caught_up: bool = False) -> dict[str, Any]:
    """Return NATS's information on the tenant's stream or a consumer of it, once it has a leader and, if so asked, every replica
    is current."""
    accounts = Accounts(derive(read_secret(fleet.secret), "nats"), "prod")
    async with asyncio.timeout(LEADER_S):
        while True:
            for node in fleet.nats.nodes:
                try:
                    async with connected(node.url, accounts.user(TenantId(tenant))) as client:
                        info: dict[str, Any] = json.loads((await client.request(f"$JS.API.{verb}", b"{}", timeout=1)).data)
                except (NatsError, OSError, TimeoutError):
                    continue
                cluster = info.get("cluster", {})
                copies = cluster.get("replicas") or []
                if cluster.get("leader") and not (is_caught_up and any(not copy["current"] for copy in copies)):
                    return info
            await asyncio.sleep(0.1)


async def stream_of(fleet: Fleet, tenant: str, *, is_caught_up: bool = False) -> dict[str, Any]:
    """Return NATS's information on the tenant's stream, as `info_of`."""
    return await info_of(fleet, tenant, f"STREAM.INFO.{STREAM}", is_caught_up=is_caught_up)


async def leader_of(fleet: Fleet, tenant: str) -> str:
    return str((await stream_of(fleet, tenant))["cluster"]["leader"])


async def consumer_leader_of(fleet: Fleet, tenant: str, queue: str) -> str:
    """Return the node that leads the consumer of a queue channel."""
    consumer = subjects.queue_consumer(ChannelId(queue))
    return str((await info_of(fleet, tenant, f"CONSUMER.INFO.{STREAM}.{consumer}"))["cluster"]["leader"])


@pytest.mark.promise("11a")
async def test_killed_server_loses_nothing_acknowledged_and_its_agents_continue_at_the_other(
    fleet: Fleet, report: Report
) -> None:
    async with fleet.balanced(), running_on(fleet) as load:
        await load.acknowledged(300)
        await load.note_cursors()
        await load.mid_publish()
        fleet.servers[1].kill()
        await load.acknowledged(300)
        verdict = judge(await load.end())
    report("kill -9 of one server of two", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("11a")
async def test_servers_killed_in_turns_lose_nothing_acknowledged(fleet: Fleet, report: Report) -> None:
    chance = random.Random(f"{SEED} servers")
    async with fleet.balanced(), running_on(fleet) as load:
        for number in range(KILLS):
            await load.acknowledged(chance.randrange(1, 500))
            await load.note_cursors()
            await load.mid_publish()
            victim = fleet.servers[1 - number % 2]
            victim.kill()
            await load.acknowledged(chance.randrange(1, 500))
            await asyncio.to_thread(victim.start)
        verdict = judge(await load.end())
    report(f"{KILLS} × kill -9 of one server of two", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("1b", "11d")
async def test_cluster_of_three_loses_nothing_with_the_leader_of_a_log(clustered: Fleet, report: Report) -> None:
    """Kill each leader in turn during publishes; each is restarted before the next is killed."""
    nats = clustered.nats
    async with clustered.balanced(), running_on(clustered) as load:
        stream = await stream_of(clustered, load.cast.tenant)
        assert stream["config"]["num_replicas"] == 3
        for _ in range(KILLS):
            await load.acknowledged(200)
            await load.note_cursors()
            leader = await leader_of(clustered, load.cast.tenant)
            await load.mid_publish()
            nats.kill(leader)
            await load.acknowledged(200)
            nats.start(nats.node(leader))
        verdict = judge(await load.end(is_retried=True))
    report(f"{KILLS} × kill -9 of the leader of three nats-servers", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("11d")
async def test_cluster_of_three_continues_while_the_leader_of_a_log_is_stopped(clustered: Fleet, report: Report) -> None:
    """The leader hangs instead of dying, so no connection breaks, and then it continues as if nothing had happened."""
    async with clustered.balanced(), running_on(clustered) as load:
        await load.acknowledged(200)
        leader = await leader_of(clustered, load.cast.tenant)
        await load.mid_publish()
        with frozen(clustered.nats.pid(leader)):
            await load.acknowledged(200)
        await load.acknowledged(200)
        verdict = judge(await load.end(is_retried=True))
    report("pause of the leader of three nats-servers", verdict)
    assert not verdict.findings, str(verdict)


VICTIMS: Final = ("the leader of the queue's log", "the leader of the queue's consumer", "all three nats-servers")


async def victims(fleet: Fleet, load: QueueLoad, which: str) -> list[str]:
    """Return the nodes to kill."""
    if which == VICTIMS[2]:
        return [node.name for node in fleet.nats.nodes]
    if which == VICTIMS[1]:
        return [await consumer_leader_of(fleet, load.cast.tenant, load.queue.id)]
    return [await leader_of(fleet, load.cast.tenant)]


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", VICTIMS)
@pytest.mark.promise("9a", "9b", "11d")
async def test_killed_nodes_of_a_cluster_lose_no_task_and_give_none_two_holders(
    clustered: Fleet, queue_report: QueueReport, which: str
) -> None:
    nats = clustered.nats
    async with clustered.balanced(), working_on(clustered, SEED) as load:
        for _ in range(QUEUE_KILLS):
            await load.done(TASKS)
            killed = await victims(clustered, load, which)
            for name in killed:
                nats.kill(name)
            if len(killed) == 1:
                await load.done(TASKS)
            nats.start(*map(nats.node, killed))
            await stream_of(clustered, load.cast.tenant, is_caught_up=True)
        await load.done(TASKS)
        verdict = judge_queue(await load.end(is_faulted=True))
    queue_report(f"{QUEUE_KILLS} × kill -9 of {which}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


TRAFFIC_VICTIMS: Final = ("each of three nats-servers in turn", "the leader of a log", "all three nats-servers")


async def victims_of_turn(fleet: Fleet, all_of: Sequence[Traffic], which: str, turn: int) -> list[str]:
    """Return the nodes to kill in a turn; the leader is that of another traffic's log in each."""
    if which == TRAFFIC_VICTIMS[2]:
        return [node.name for node in fleet.nats.nodes]
    if which == TRAFFIC_VICTIMS[1]:
        return [await leader_of(fleet, tenants_with_logs(all_of)[turn])]
    return [fleet.nats.nodes[turn].name]


async def kill_nodes_under(all_of: Sequence[Traffic], fleet: Fleet, killed: Sequence[str]) -> float:
    """Kill nodes, and start them again. Return the seconds until every copy of each log was current."""
    began = note_kill(all_of)
    for name in killed:
        fleet.nats.kill(name)
    if len(killed) == 1:
        await advance_all(all_of, FEW)
    fleet.nats.start(*map(fleet.nats.node, killed))
    for tenant in tenants_with_logs(all_of):
        await stream_of(fleet, tenant, is_caught_up=True)
    return time.monotonic() - began


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", TRAFFIC_VICTIMS)
@pytest.mark.promise(
    "q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5", "p10", "11d"
)
async def test_killed_nodes_of_a_cluster_keep_the_promises_of_requests_pulls_receipts_and_scheduled_messages(
    clustered: Fleet, ruling_report: RulingReport, which: str
) -> None:
    away_s: list[float] = []
    async with clustered.balanced(), running_all(clustered, KINDS, SEED) as all_of:
        for turn in range(len(clustered.nats.nodes)):
            await advance_all(all_of, FEW)
            killed = await victims_of_turn(clustered, all_of, which, turn)
            away_s.append(await kill_nodes_under(all_of, clustered, killed))
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=max(away_s))
    ruling_report(f"kill -9 of {which}, 3 times in all", rulings)
    check(rulings, SEED)
