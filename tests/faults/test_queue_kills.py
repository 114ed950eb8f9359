"""Kills and stops of a work queue's server and NATS: a task has one holder at a time, and is done or a dead letter, each once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.aws import Aws
from tests.faults.conftest import SEED, QueueReport
from tests.faults.processes import frozen
from tests.faults.queue_checker import ReceiptTold, judge_queue
from tests.faults.queue_load import ACK_WAIT_S, working_on
from tests.faults.test_kill import VICTIMS, kill
from tests.faulty_aws import READS, WRITES, Fault, faulty
from tests.platform import Platform, running

KILLS = 10
KEYS = 8


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform to be killed."""
    with running(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


@pytest.mark.promise("9a", "9b", "c15")
async def test_queue_without_faults_keeps_its_promise(platform: Platform, queue_report: QueueReport) -> None:
    async with working_on(platform, SEED) as load:
        await load.done(150)
        history = await load.end(is_faulted=False)
    verdict = judge_queue(history)
    queue_report("none", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
    assert verdict.dead, "no task was poison"
    assert {told.state for told in history.of(ReceiptTold)} == {"acked", "dead_lettered"}


@pytest.mark.parametrize(
    "victim", ["both", *(pytest.param(each, marks=pytest.mark.faults) for each in VICTIMS if each != "both")]
)
@pytest.mark.promise("9a", "9b")
async def test_kill_while_tasks_are_held_loses_none_and_gives_none_two_holders(
    platform: Platform, queue_report: QueueReport, victim: str
) -> None:
    async with working_on(platform, SEED) as load:
        await load.done(50)
        await kill(platform, victim)
        await load.done(50)
        verdict = judge_queue(await load.end(is_faulted=True))
    queue_report(f"kill -9 of {victim}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.parametrize(
    "victim", ["both", *(pytest.param(each, marks=pytest.mark.faults) for each in VICTIMS if each != "both")]
)
@pytest.mark.promise("9a", "9c")
async def test_kill_while_keys_are_held_leaves_each_key_one_task_in_order(
    platform: Platform, queue_report: QueueReport, victim: str
) -> None:
    async with working_on(platform, SEED, keys=KEYS) as load:
        await load.done(50)
        await kill(platform, victim)
        await load.done(50)
        verdict = judge_queue(await load.end(is_faulted=True))
    queue_report(f"kill -9 of {victim}, ordered by key", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("keys", [0, KEYS])
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.promise("9a", "9b", "9c")
async def test_kills_at_any_moment_lose_no_task(platform: Platform, queue_report: QueueReport, victim: str, keys: int) -> None:
    chance = random.Random(f"{SEED} {victim}")
    async with working_on(platform, SEED, keys=keys) as load:
        for _ in range(KILLS):
            await load.done(chance.randrange(1, 100))
            await kill(platform, victim)
        await load.done(100)
        verdict = judge_queue(await load.end(is_faulted=True))
    queue_report(f"{KILLS} × kill -9 of {victim}{', ordered by key' if keys else ''}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["nats-server", "the server"])
@pytest.mark.promise("9a")
async def test_process_that_is_stopped_beyond_the_ack_deadline_gives_no_task_two_holders(
    platform: Platform, queue_report: QueueReport, victim: str
) -> None:
    async with working_on(platform, SEED) as load:
        await load.done(50)
        assert platform.process is not None
        with frozen(platform.nats_pid if victim == "nats-server" else platform.process.pid):
            await asyncio.sleep(3 * ACK_WAIT_S)
        await load.done(50)
        verdict = judge_queue(await load.end(is_faulted=True, slack_s=ACK_WAIT_S))
    queue_report(f"SIGSTOP of {victim}, for three ack deadlines", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("9a", "9b")
async def test_slow_tables_lose_no_task_and_give_none_two_holders(
    aws: Aws, tmp_path_factory: pytest.TempPathFactory, queue_report: QueueReport
) -> None:
    with faulty(aws.url) as proxy, running(tmp_path_factory.mktemp("slow"), aws.tables_flags(proxy.url)) as platform:
        async with working_on(platform, SEED) as load:
            await load.done(50)
            proxy.strike(Fault.SLOW, *WRITES, *READS, every=10)
            await load.done(100)
            proxy.spare()
            verdict = judge_queue(await load.end(is_faulted=True))
    queue_report("tables on DynamoDB that answer every 10th call after 5.5 s", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
