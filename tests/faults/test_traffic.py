"""Requests, pulls, receipts and scheduled messages during faults: each keeps what the contract promises of it."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final

import pytest
from websockets.exceptions import ConnectionClosed

from artcafe.fabric.announcements import SILENT_S
from tests.aws import Aws
from tests.faults import bare_client
from tests.faults.all_traffic import FEW, KINDS, check, note_kill
from tests.faults.conftest import SEED, RulingReport
from tests.faults.processes import frozen, wait_for
from tests.faults.schedule_traffic import ScheduleTraffic
from tests.faults.test_kill import VICTIMS, kill
from tests.faults.traffic import Traffic, advance_all, end_all, running_all
from tests.faulty_aws import READS, WRITES, Fault, faulty
from tests.platform import Cast, Platform, running
from tests.process_group.groups import PROCESSES, events, wait_until_all_serve, worker_pids
from tests.process_group.groups import kill as kill_process

KILLS: Final = 8
LOCKED_S: Final = 1.0
STOPPED_S: Final = 6.0
"""Longer than the servers wait for an answer of NATS."""
BRIEFLY_S: Final = 1.0
STORMS: Final = 5
SOCKETS: Final = 100
FLOOD: Final = 400
FLOOD_BYTES: Final = 30_000
"""Some 12 MB: more than the buffers of a socket hold."""
STALL_S: Final = 15.0
"""Longer than a connection may read nothing while messages wait."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform to be killed and stopped."""
    with running(tmp_path_factory.mktemp("platform"), ["--cursor-write-s", "0.3"]) as platform:
        yield platform


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform with two server processes."""
    with running(tmp_path_factory.mktemp("group"), [*PROCESSES, "--cursor-write-s", "0.3"]) as platform:
        yield platform


async def kill_under(all_of: Sequence[Traffic], platform: Platform, victim: str) -> float:
    """Kill the victim; nats-server ends with its server. Return how long it was away: a nats-server that dies repeatedly is
    started again with a growing delay."""
    began = note_kill(all_of)
    await kill(platform, victim)
    return time.monotonic() - began


async def stop_for(platform: Platform, victim: str, stopped_s: float) -> None:
    """Stop a process, and let it continue after a while."""
    assert platform.process is not None
    with frozen(platform.nats_pid if victim == "nats-server" else platform.process.pid):
        await asyncio.sleep(stopped_s)


@contextmanager
def locked_tables(platform: Platform) -> Iterator[None]:
    """Lock the tables for writers within this block."""
    with closing(sqlite3.connect(platform.data / "tables.sqlite", isolation_level=None, timeout=30)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def lock_tables(platform: Platform, times: int) -> None:
    """Lock the tables repeatedly, with pauses as long as the locks."""

    def lock() -> None:
        for _ in range(times):
            with locked_tables(platform):
                threading.Event().wait(LOCKED_S)
            threading.Event().wait(LOCKED_S)

    await asyncio.to_thread(lock)


async def test_traffic_without_faults_keeps_its_promises(platform: Platform, ruling_report: RulingReport) -> None:
    async with running_all(platform, KINDS, SEED) as all_of:
        await advance_all(all_of, 2 * FEW)
        rulings = await end_all(all_of, is_faulted=False)
    ruling_report("none", rulings)
    check(rulings, SEED)


@pytest.mark.timeout(300)
@pytest.mark.promise(
    "q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5", "p10"
)
async def test_traffic_keeps_its_promises_through_one_fault_of_each_kind(platform: Platform, ruling_report: RulingReport) -> None:
    """All of them in one run, because starting and ending the traffic takes longer than a fault."""
    async with running_all(platform, KINDS, SEED) as all_of:
        await advance_all(all_of, FEW)
        stopped_s = BRIEFLY_S + LOCKED_S
        for victim in VICTIMS:
            stopped_s = max(stopped_s, await kill_under(all_of, platform, victim))
            await advance_all(all_of, FEW)
        for victim in ("nats-server", "the server"):
            await stop_for(platform, victim, BRIEFLY_S)
        await lock_tables(platform, 1)
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=stopped_s)
    ruling_report("one of each kind", rulings)
    check(rulings, SEED)


@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_traffic_keeps_its_promises_through_a_rolling_restart(group: Platform, ruling_report: RulingReport) -> None:
    done = len(events(group, "group.restarted"))
    assert group.process is not None
    async with running_all(group, KINDS, SEED) as all_of:
        await advance_all(all_of, FEW)
        group.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(wait_for, lambda: len(events(group, "group.restarted")) > done, "a rolling restart")
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True)
    ruling_report("rolling restart of two server processes", rulings)
    check(rulings, SEED)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.promise(
    "q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5", "p10"
)
async def test_traffic_keeps_its_promises_through_kills_at_any_moment(
    platform: Platform, ruling_report: RulingReport, victim: str
) -> None:
    chance, away_s = random.Random(f"{SEED} {victim}"), list[float]()
    async with running_all(platform, KINDS, SEED) as all_of:
        for _ in range(KILLS):
            await advance_all(all_of, chance.randrange(1, 20))
            away_s.append(await kill_under(all_of, platform, victim))
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=max(away_s))
    ruling_report(f"{KILLS} × kill -9 of {victim}", rulings)
    check(rulings, SEED)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["nats-server", "the server"])
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_traffic_keeps_its_promises_through_a_stopped_process(
    platform: Platform, ruling_report: RulingReport, victim: str
) -> None:
    async with running_all(platform, KINDS, SEED) as all_of:
        await advance_all(all_of, FEW)
        await stop_for(platform, victim, STOPPED_S)
        await advance_all(all_of, 2 * FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=STOPPED_S)
    ruling_report(f"{STOPPED_S:g} s SIGSTOP of {victim}", rulings)
    check(rulings, SEED)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_traffic_keeps_its_promises_through_kills_of_one_of_two_processes(
    group: Platform, ruling_report: RulingReport
) -> None:
    chance = random.Random(f"{SEED} processes")
    async with running_all(group, KINDS, SEED) as all_of:
        (schedule,) = [each for each in all_of if isinstance(each, ScheduleTraffic)]
        for _ in range(KILLS):
            await advance_all(all_of, chance.randrange(1, 20))
            await asyncio.to_thread(wait_for, lambda: len(worker_pids(group)) == 2, "two server processes")
            pids = await asyncio.to_thread(worker_pids, group)
            await asyncio.to_thread(kill_process, pids[chance.choice([1, 2])])
            # The other process leaves the messages to this one until then. Several kills may follow one another closely.
            schedule.pauses.append((time.monotonic(), time.monotonic() + SILENT_S))
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True)
    ruling_report(f"{KILLS} × kill -9 of one server process of two", rulings)
    check(rulings, SEED)
    await asyncio.to_thread(wait_until_all_serve, group)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_traffic_keeps_its_promises_while_the_tables_are_locked(platform: Platform, ruling_report: RulingReport) -> None:
    async with running_all(platform, KINDS, SEED) as all_of:
        await advance_all(all_of, FEW)
        await lock_tables(platform, 10)
        await advance_all(all_of, 2 * FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=LOCKED_S)
    ruling_report(f"10 × tables locked for {LOCKED_S:g} s", rulings)
    check(rulings, SEED)


async def storm(platform: Platform, cast: Cast) -> None:
    """Connect an agent on many sockets at once, and break them, repeatedly."""

    async def come_and_break() -> None:
        with suppress(*bare_client.GONE):
            async with bare_client.connected(platform.a_gateway(), cast, 0) as connection:
                connection.abort()

    for _ in range(STORMS):
        async with asyncio.TaskGroup() as group:
            for _ in range(SOCKETS):
                group.create_task(come_and_break())


async def read_on(reader: bare_client.BareClient) -> None:
    while True:
        await reader.receive()


async def stall(platform: Platform, cast: Cast) -> None:
    """Read nothing on one connection while more is published than its buffers hold, until the server closes it."""
    async with bare_client.connected(platform.a_gateway(), cast, 1, has_pings=False) as reader, cast.rest() as rest:
        for _ in range(FLOOD):
            await rest.tenant(cast.tenant).messages.publish(cast.channels[0], "x" * FLOOD_BYTES)
        await asyncio.sleep(STALL_S)
        with pytest.raises(ConnectionClosed):  # without its close frame, for which the buffers had no room
            await read_on(reader)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise(
    "q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5", "10c"
)
async def test_traffic_keeps_its_promises_beside_a_storm_of_sockets_and_a_stalled_reader(
    platform: Platform, ruling_report: RulingReport
) -> None:
    """Both are in a tenant of their own. No fault excuses anything: no ack and no answer may be lost or late."""
    other = await platform.tenant_with(agents=2, channels=1)
    async with running_all(platform, KINDS, SEED) as all_of:
        await advance_all(all_of, FEW)
        async with asyncio.TaskGroup() as group:
            group.create_task(storm(platform, other))
            group.create_task(stall(platform, other))
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=False)
    ruling_report(f"{STORMS} × {SOCKETS} sockets at once, and a stalled reader", rulings)
    check(rulings, SEED)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_traffic_keeps_its_promises_on_slow_tables(
    aws: Aws, tmp_path_factory: pytest.TempPathFactory, ruling_report: RulingReport
) -> None:
    with faulty(aws.url) as proxy, running(tmp_path_factory.mktemp("slow"), aws.tables_flags(proxy.url)) as platform:
        async with running_all(platform, KINDS, SEED) as all_of:
            await advance_all(all_of, FEW)
            proxy.strike(Fault.SLOW, *WRITES, *READS, every=10)
            await advance_all(all_of, 4 * FEW)
            proxy.spare()
            rulings = await end_all(all_of, is_faulted=True, stopped_s=STOPPED_S)
    ruling_report("tables on DynamoDB that answer every 10th call after 5.5 s", rulings)
    check(rulings, SEED)
