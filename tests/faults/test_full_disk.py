"""A full disk: no publish is wrongly acknowledged, nothing acknowledged is lost, and publishing continues once there is space."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Require
from tests.faults import disk as disks
from tests.faults.all_traffic import FEW, KINDS, check
from tests.faults.checker import judge
from tests.faults.conftest import SEED, QueueReport, Report, RulingReport
from tests.faults.load import running_on
from tests.faults.processes import wait_for
from tests.faults.queue_checker import judge_queue
from tests.faults.queue_load import working_on
from tests.faults.traffic import advance_all, end_all, running_all
from tests.platform import Platform, running

SIZE_MIB = 96
"""Space for two blocks of a stream, which the server requires before it restarts NATS, and for the rest of the test."""
FAILURES = 8


def readiness(platform: Platform) -> int:
    """Return the status of `/health/ready`."""
    return httpx2.get(f"{platform.url}/health/ready", timeout=10, trust_env=False).status_code


@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.promise("6d")
async def test_full_disk_loses_nothing_and_publishing_continues_when_there_is_space(
    require: Require, tmp_path: Path, report: Report
) -> None:
    """NATS (2.15.1) does not answer a failed write, and may complete it when it starts again: its outcome is unknown."""
    require(disks.NEEDS, disks.is_possible())
    with disks.mounted(tmp_path, tmp_path / "data", SIZE_MIB) as disk, running(tmp_path) as platform:
        async with running_on(platform) as load:
            await load.acknowledged(300)
            await asyncio.to_thread(disk.fill)
            await load.until(lambda: load.unknown + len(load.refused) >= FAILURES, "failed publishes")
            await asyncio.to_thread(wait_for, lambda: readiness(platform) == 503, "a server that is not ready")
            disk.make_room()
            await load.acknowledged(300)
            await asyncio.to_thread(wait_for, lambda: readiness(platform) == 200, "a server that is ready")
            verdict = judge(await load.end(is_retried=True))
    report("full disk", verdict)
    assert not verdict.findings, str(verdict)
    assert all("not stored" in refused.message for refused in load.refused), {refused.message for refused in load.refused}


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("9a", "9b")
async def test_full_disk_loses_no_task_and_gives_none_two_holders(
    require: Require, tmp_path: Path, queue_report: QueueReport
) -> None:
    require(disks.NEEDS, disks.is_possible())
    with disks.mounted(tmp_path, tmp_path / "data", SIZE_MIB) as disk, running(tmp_path) as platform:
        async with working_on(platform, SEED) as load:
            await load.done(50)
            await asyncio.to_thread(disk.fill)
            await asyncio.to_thread(wait_for, lambda: readiness(platform) == 503, "a server that is not ready")
            disk.make_room()
            await load.done(50)
            await asyncio.to_thread(wait_for, lambda: readiness(platform) == 200, "a server that is ready")
            verdict = judge_queue(await load.end(is_faulted=True))
    queue_report("full disk", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise(
    "q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5", "6d"
)
async def test_full_disk_keeps_the_promises_of_requests_pulls_receipts_and_scheduled_messages(
    require: Require, tmp_path: Path, ruling_report: RulingReport
) -> None:
    require(disks.NEEDS, disks.is_possible())
    with disks.mounted(tmp_path, tmp_path / "data", SIZE_MIB) as disk, running(tmp_path) as platform:
        async with running_all(platform, KINDS, SEED) as all_of:
            await advance_all(all_of, FEW)
            began = time.monotonic()
            await asyncio.to_thread(disk.fill)
            await asyncio.to_thread(wait_for, lambda: readiness(platform) == 503, "a server that is not ready")
            disk.make_room()
            await asyncio.to_thread(wait_for, lambda: readiness(platform) == 200, "a server that is ready")
            full_s = time.monotonic() - began
            await advance_all(all_of, FEW)
            rulings = await end_all(all_of, is_faulted=True, stopped_s=full_s)
    ruling_report("full disk", rulings)
    check(rulings, SEED)
