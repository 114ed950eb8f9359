"""A connection between server and NATS that breaks during publishes, with and without the answers in flight on it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.all_traffic import FEW, KINDS, check
from tests.faults.checker import judge
from tests.faults.conftest import SEED, QueueReport, Report, RulingReport
from tests.faults.load import Load, running_on
from tests.faults.queue_checker import judge_queue
from tests.faults.queue_load import working_on
from tests.faults.schedule_traffic import ScheduleTraffic
from tests.faults.separate_nats import separate_nats
from tests.faults.traffic import advance_all, end_all, running_all
from tests.platform import Platform, running
from tests.relay import Relay, relayed

CUTS = 10
DEAF_S = 0.2
LONG_DEAF_S = 5.0
"""The server waits 4 s for an answer, and then publishes messages with a key again."""

Cuttable = tuple[Platform, Relay]


@pytest.fixture
async def cuttable(tmp_path: Path) -> AsyncIterator[Cuttable]:
    """Run a platform and its relay to NATS. This event loop passes the bytes, so the platform is started in a thread."""
    with separate_nats(tmp_path / "data") as nats:
        async with relayed(nats.url) as relay:
            stack = ExitStack()
            try:
                platform = await asyncio.to_thread(stack.enter_context, running(tmp_path, ["--nats-urls", relay.url]))
                yield platform, relay
            finally:
                await asyncio.to_thread(stack.close)


async def cut(load: Load, relay: Relay, deaf_s: float = 0) -> None:
    """Break the connections during publishes, after NATS's answers have been lost for this long."""
    await load.mid_publish()
    await lose_answers(relay, deaf_s)


async def lose_answers(relay: Relay, for_s: float) -> None:
    """Lose NATS's answers and messages for this long, and then the connections."""
    relay.is_deaf = True
    await asyncio.sleep(for_s)
    relay.cut()
    relay.is_deaf = False


@pytest.mark.promise("2c", "4a")
async def test_cut_connection_to_nats_loses_doubles_and_reorders_nothing(cuttable: Cuttable, report: Report) -> None:
    platform, relay = cuttable
    async with running_on(platform) as load:
        await load.acknowledged(100)
        await cut(load, relay)
        await cut(load, relay, DEAF_S)
        await load.acknowledged(100)
        verdict = judge(await load.end())
    report("cut connection to NATS", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("2c", "4a")
async def test_cuts_at_any_moment_lose_double_and_reorder_nothing(cuttable: Cuttable, report: Report) -> None:
    platform, relay = cuttable
    chance = random.Random(SEED)
    async with running_on(platform) as load:
        for _ in range(CUTS):
            await load.acknowledged(1 + chance.choice((0, 30, 300)))
            await cut(load, relay, chance.choice((0, DEAF_S, LONG_DEAF_S)))
        await load.acknowledged(100)
        verdict = judge(await load.end())
    report(f"{CUTS} × cut connection to NATS", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("9a", "9b")
async def test_lost_answers_and_messages_of_nats_lose_no_task_and_give_none_two_holders(
    cuttable: Cuttable, queue_report: QueueReport
) -> None:
    platform, relay = cuttable
    chance = random.Random(SEED)
    async with working_on(platform, SEED) as load:
        for _ in range(CUTS):
            await load.done(1 + chance.choice((0, 10, 50)))
            await lose_answers(relay, chance.choice((0, DEAF_S, LONG_DEAF_S)))
        await load.done(50)
        verdict = judge_queue(await load.end(is_faulted=True))
    queue_report(f"{CUTS} × cut connection to NATS, its answers lost before", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_lost_answers_of_nats_keep_the_promises_of_requests_pulls_receipts_and_scheduled_messages(
    cuttable: Cuttable, ruling_report: RulingReport
) -> None:
    platform, relay = cuttable
    chance = random.Random(f"{SEED} answers")
    async with running_all(platform, KINDS, SEED) as all_of:
        (schedule,) = [each for each in all_of if isinstance(each, ScheduleTraffic)]
        for _ in range(CUTS):
            await advance_all(all_of, chance.randrange(1, 10))
            began = time.monotonic()
            await lose_answers(relay, chance.choice((0, DEAF_S, LONG_DEAF_S)))
            # Long cuts may follow one another so closely that a message waits through several. No other promise is excused.
            schedule.pauses.append((began, time.monotonic()))
        await advance_all(all_of, FEW)
        rulings = await end_all(all_of, is_faulted=True, stopped_s=LONG_DEAF_S)
    ruling_report(f"{CUTS} × cut connection to NATS, its answers lost before", rulings)
    check(rulings, SEED)
