"""A backup that was made while tasks were delivered, and restored when the workers were far ahead of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.conftest import SEED, QueueReport
from tests.faults.queue_checker import Event, Left, judge_queue
from tests.faults.queue_load import ACK_WAIT_S, QueueLoad, running, working_on
from tests.flows.test_restore import artcafe, restore_yesterdays
from tests.platform import running as running_platform

BACKUPS = 3
LATER = 1_000_000
"""The number of the first task after the restore. No earlier one has it, so that its key is new."""


async def part_of(before: QueueLoad) -> list[Event]:
    """Return what happened before the restore to the tasks that the restored queue has."""
    async with before.cast.rest() as rest:
        restored = {each.seq async for each in rest.tenant(before.cast.tenant).messages.list(before.queue.id, after=0)}
    return [event for event in before.events if isinstance(event, Left) or event.seq in restored]


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("8c", "9a", "9b")
async def test_tasks_of_a_restored_log_are_done_although_workers_were_ahead(tmp_path: Path, queue_report: QueueReport) -> None:
    with running_platform(tmp_path / "platform") as platform:
        async with working_on(platform, SEED) as before:
            for number in range(BACKUPS):  # of a queue in use: its consumer may be ahead of the messages that the backup has
                await before.done(50)
                await asyncio.to_thread(artcafe, "backup", "--data-dir", platform.data, tmp_path / f"{number}.tar")
            await before.done(100)
        await asyncio.to_thread(restore_yesterdays, platform, tmp_path / f"{BACKUPS - 1}.tar")
        after = QueueLoad(platform, before.cast, before.queue, SEED, ACK_WAIT_S, LATER)
        after.events += await part_of(before)
        async with running(after):
            await after.done(150)
            verdict = judge_queue(await after.end(is_faulted=True))
    queue_report("restore of a backup that the workers are ahead of", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
