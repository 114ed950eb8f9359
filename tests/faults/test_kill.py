"""kill -9 during publishes: of nats-server, of the server, of both. Nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.faults.checker import judge
from tests.faults.conftest import SEED, Report
from tests.faults.load import Load, running_on
from tests.faults.processes import kill_both, kill_nats
from tests.platform import Platform, running

VICTIMS = ("nats-server", "the server", "both")
KILLS = 10


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform to be killed. It writes acks often, so that some are written when it dies."""
    with running(tmp_path_factory.mktemp("platform"), ["--cursor-write-s", "0.3"]) as platform:
        yield platform


async def kill(platform: Platform, victim: str) -> None:
    """End the victim with SIGKILL; return when it has restarted; the server restarts a nats-server by itself."""
    if victim == "nats-server":
        await asyncio.to_thread(kill_nats, platform)
        return
    if victim == "the server":
        platform.kill()
    else:
        kill_both(platform)
    await asyncio.to_thread(platform.start)


async def kill_in_mid_publish(load: Load, platform: Platform, victim: str) -> None:
    await load.note_cursors()
    await load.mid_publish()
    await kill(platform, victim)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.promise("4a", "11b")
async def test_kill_during_publishes_loses_doubles_and_reorders_nothing(platform: Platform, report: Report, victim: str) -> None:
    async with running_on(platform) as load:
        await load.acknowledged(300)
        await kill_in_mid_publish(load, platform, victim)
        await load.acknowledged(300)
        verdict = judge(await load.end())
    report(f"kill -9 of {victim}", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.promise("4a", "11b")
async def test_kills_at_any_moment_lose_double_and_reorder_nothing(platform: Platform, report: Report, victim: str) -> None:
    chance = random.Random(f"{SEED} {victim}")
    async with running_on(platform) as load:
        for _ in range(KILLS):
            await load.acknowledged(1)
            if chance.random() < 0.5:  # or at once, while the previously killed process is still starting
                await load.acknowledged(chance.randrange(1000))
                await kill_in_mid_publish(load, platform, victim)
            else:
                await kill(platform, victim)
        await load.acknowledged(300)
        verdict = judge(await load.end(is_retried=victim == "nats-server"))
    report(f"{KILLS} × kill -9 of {victim}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
