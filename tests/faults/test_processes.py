"""kill -9 of one of several server processes during publishes, of their nats-server, and a rolling restart under load."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator

import pytest

from tests.faults.checker import judge
from tests.faults.conftest import SEED, Report
from tests.faults.load import running_on
from tests.faults.processes import ROLLING_RESTART_S, kill_nats, wait_for
from tests.platform import Platform, running
from tests.process_group.groups import PROCESSES, events, kill, wait_until_all_serve, worker_pids

KILLS = 8


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform with two processes to be killed. They write acks often, so that some are written when one dies."""
    with running(tmp_path_factory.mktemp("group"), [*PROCESSES, "--cursor-write-s", "0.3"]) as platform:
        yield platform


async def kill_one(platform: Platform, number: int) -> None:
    pids = await asyncio.to_thread(worker_pids, platform)
    await asyncio.to_thread(kill, pids[number])


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.promise("11a")
async def test_server_process_killed_during_publishes_loses_nothing_acknowledged(
    platform: Platform, report: Report, number: int
) -> None:
    async with running_on(platform) as load:
        await load.acknowledged(300)
        await load.note_cursors()
        await load.mid_publish()
        await kill_one(platform, number)
        await load.acknowledged(300)
        verdict = judge(await load.end())
    report(f"kill -9 of server process {number} of two", verdict)
    assert not verdict.findings, str(verdict)
    await asyncio.to_thread(wait_until_all_serve, platform)


@pytest.mark.timeout(300)
@pytest.mark.promise("6c", "11a")
async def test_rolling_restart_during_publishes_loses_nothing_acknowledged(platform: Platform, report: Report) -> None:
    done = len(events(platform, "group.restarted"))
    assert platform.process is not None
    async with running_on(platform) as load:
        await load.acknowledged(300)
        await load.note_cursors()
        await load.mid_publish()
        platform.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(
            wait_for, lambda: len(events(platform, "group.restarted")) > done, "a rolling restart", ROLLING_RESTART_S
        )
        await load.acknowledged(300)
        verdict = judge(await load.end())
    report("rolling restart of two server processes", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.promise("11b")
async def test_nats_server_of_a_group_killed_during_publishes_loses_nothing_acknowledged(
    platform: Platform, report: Report
) -> None:
    async with running_on(platform) as load:
        await load.acknowledged(300)
        await load.note_cursors()
        await load.mid_publish()
        await asyncio.to_thread(kill_nats, platform)
        await load.acknowledged(300)
        verdict = judge(await load.end(is_retried=True))
    report("kill -9 of nats-server under two server processes", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_server_processes_killed_at_any_moment_lose_nothing_acknowledged(platform: Platform, report: Report) -> None:
    chance = random.Random(f"{SEED} server processes")
    async with running_on(platform) as load:
        for _ in range(KILLS):
            await load.acknowledged(chance.randrange(1, 500))
            await load.note_cursors()
            if chance.random() < 0.5:
                await load.mid_publish()
            await asyncio.to_thread(wait_for, lambda: len(worker_pids(platform)) == 2, "two server processes")
            await kill_one(platform, chance.choice([1, 2]))
        await load.acknowledged(300)
        verdict = judge(await load.end())
    report(f"{KILLS} × kill -9 of one server process of two", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
