"""A backup that was made while tasks were delivered, and restored when the workers were far ahead of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.conftest import SEED, QueueReport
from tests.faults.queue_checker import judge_queue
from tests.faults.queue_load import ACK_WAIT_S, QueueLoad, running, working_on
from tests.faults.restores import BackupBegan, BackupEnded, Restored
from tests.faults.restoring import last_seqs
from tests.flows.test_restore import artcafe, restore_yesterdays
from tests.platform import running as running_platform

BACKUPS = 3
LATER = 1_000_000
"""The number of the first task after the restore. No earlier one has it, so that its key is new."""


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("8c", "9a", "9b", "r5")
async def test_tasks_of_a_restored_log_are_done_although_workers_were_ahead(tmp_path: Path, queue_report: QueueReport) -> None:
    with running_platform(tmp_path / "platform") as platform:
        async with working_on(platform, SEED) as before:
            for number in range(BACKUPS):  # of a queue in use: its consumer may be ahead of the messages that the backup has
                await before.done(50)
                before.events.append(BackupBegan(time.monotonic()))
                await asyncio.to_thread(artcafe, "backup", "--data-dir", platform.data, tmp_path / f"{number}.tar")
                before.events.append(BackupEnded(time.monotonic()))
            await before.done(100)
        after = QueueLoad(platform, before.cast, before.queue, SEED, ACK_WAIT_S, LATER)
        async with before.cast.rest() as rest:
            after.lost_letters = await before.letters(rest)
        file = tmp_path / f"{BACKUPS - 1}.tar"
        await asyncio.to_thread(restore_yesterdays, platform, file)
        after.events += [*before.events, Restored(last_seqs(file)[before.cast.tenant], time.monotonic())]
        async with running(after):
            await after.done(150)
            verdict = judge_queue(await after.end(is_faulted=False))
    queue_report("restore of a backup that the workers are ahead of", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
